"""Disks that are full or may only be read."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def mount(options: list[str], at: Path) -> None:
    """Mounts a disk in memory, or skips the test."""
    if not sys.platform.startswith("linux"):
        pytest.skip("disks are mounted for this test, which is done on Linux only")
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "medcl-test", str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"disks cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount(["-o", "size=8m"], folder)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def protected_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A disk, and what makes it one that may only be read ("ro"), or written ("rw")."""
    folder = tmp_path / "protected"
    folder.mkdir()
    mount([], folder)
    yield folder, lambda how: subprocess.check_call(["mount", "-o", f"remount,{how}", str(folder)]) and None
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
