"""Commands, as somebody types them."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = ("--width", "4", "--batch", "4", "--precision", "float32", "--device", "cpu")
_PATIENCE_S = 120.0


def medcl(*words: object, fails: bool = False) -> str:
    """What a command says, its white space made even; in no case with a traceback."""
    shown = subprocess.run(_command(words), capture_output=True, text=True, timeout=200)
    text = shown.stdout + shown.stderr
    assert "Traceback" not in text, text
    assert (shown.returncode != 0) == fails, text
    return " ".join(text.split())


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
