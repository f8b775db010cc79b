"""Whose turn it is: one run at a time on a device, first come, first served."""

from __future__ import annotations

import contextlib
import platform
import time
from typing import TYPE_CHECKING

import platformdirs
from filelock import FileLock, Timeout

from napari_medcl.errors import Stopped, UserError
from napari_medcl.training.events import Event, Waiting
from napari_medcl.training.lock import held

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

_LOOK_EVERY_S = 0.5


class Ticket:
    """A place in the queue of a device: a numbered file, locked as long as its process lives.

    Args:
        device: The name of the device; every machine and user has queues of their own.
        name: Whose place it is, for others to read.

    Raises:
        UserError: The folder of the queue cannot be written.
    """

    def __init__(self, device: str, name: str) -> None:
        home = platformdirs.user_state_path("medcl", appauthor=False)
        self._folder = home / "queue" / f"{platform.node()}-{device}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "door"):
                numbers = [_number(path) for path in self._folder.glob("*.ticket")]
                self._path = self._folder / f"{max(numbers, default=0) + 1:08d}.ticket"
                self._lock = FileLock(self._path, thread_local=False)
                self._lock.acquire()
            self._path.with_suffix(".name").write_text(name, "utf-8")
        except OSError as error:
            raise UserError(
                f"The queue in {self._folder} cannot be written: {error}. Mend the folder's rights, or start the run "
                "beside others (--now)."
            ) from error

    def ahead(self) -> tuple[str, ...]:
        """The names of those before it; places of processes that are gone are cleared."""
        names = []
        for path in sorted(self._folder.glob("*.ticket")):
            if _number(path) >= _number(self._path):
                break
            if self._kept(path):
                names.append(_name(path))
        return tuple(names)

    def leave(self) -> None:
        """Gives the place up. Behind the door: its number may be somebody else's as soon as it is free."""
        with contextlib.suppress(Timeout, OSError), FileLock(self._folder / "door", timeout=_LOOK_EVERY_S):
            self._lock.release()
            _clear(self._path)
        self._lock.release()

    def _kept(self, path: Path) -> bool:
        with contextlib.suppress(Timeout, OSError), FileLock(self._folder / "door", timeout=_LOOK_EVERY_S):
            if held(path):
                return True
            _clear(path)
            return False
        return path.exists()


def wait_for_turn(ticket: Ticket, stop: Callable[[], bool]) -> Generator[Event, None, None]:
    """Waits until nobody is ahead, and says whom it waits for.

    Raises:
        Stopped: `stop` said so.
    """
    told: tuple[str, ...] = ()
    while ahead := ticket.ahead():
        if stop():
            raise Stopped
        if ahead != told:
            told = ahead
            others = f" and {len(ahead) - 1} more" if len(ahead) > 1 else ""
            yield Waiting(ahead=ahead, message=f"Waits for {ahead[0]}{others} to leave the device.")
        time.sleep(_LOOK_EVERY_S)


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0


def _name(path: Path) -> str:
    try:
        return path.with_suffix(".name").read_text("utf-8") or "another run"
    except OSError:
        return "another run"


def _clear(path: Path) -> None:
    for one in (path, path.with_suffix(".name")):
        with contextlib.suppress(OSError):
            one.unlink()
