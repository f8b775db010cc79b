"""Commands, as somebody types them."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import pytest

from napari_medcl.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = ("--width", "4", "--batch", "4", "--precision", "float32", "--device", "cpu")
_PATIENCE_S = 120.0


def medcl(*words: object, fails: bool = False) -> str:
    """What a command says, its white space made even; in this process, which is several times faster."""
    said = raw(*words, fails=fails)
    return " ".join(said.split())


def raw(*words: object, fails: bool = False) -> str:
    """What a command says, as it stands on the terminal."""
    said, status = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(said), redirect_stderr(said):
        patched.setattr(sys, "argv", ["medcl", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            status = 1 if isinstance(end.code, str) else end.code or 0
    assert (status != 0) == fails, said.getvalue()
    return said.getvalue()


def alone(*words: object) -> str:
    """What a command says in a process of its own; it must not fail."""
    shown = subprocess.run(_command(words), capture_output=True, text=True, timeout=200)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return " ".join((shown.stdout + shown.stderr).split())


def begin(*words: object) -> subprocess.Popen[str]:
    """Starts a command and does not wait for its end."""
    return subprocess.Popen(_command(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits until something is so, which must be before the process ends."""
    last = time.monotonic() + _PATIENCE_S
    while not so():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < last, "this took too long"
        time.sleep(0.05)


def _command(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "napari_medcl", *map(str, words)]
