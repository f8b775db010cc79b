"""Who writes a folder, and whether that process still lives."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STALE_S = 20.0
"""On another machine, a process that gave no sign of life for so long is gone."""
_PATIENCE_S = 1.0
"""So long a lock is tried for: whoever looks whether it is held holds it for a moment."""
_LOOK_S = 0.05
"""So long it is looked at: another one who looks at the same time is no holder."""


class Taken(UserError):  # noqa: N818 - as Stopped
    """Another process writes the folder."""


def held(path: Path) -> bool:
    """Whether a process on this machine holds a lock. The system takes it from one that was killed.

    Raises:
        OSError: The lock cannot be tried, as in a folder that may only be read.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_LOOK_S, poll_interval=_LOOK_S / 4)
    except Timeout:
        return True
    lock.release()
    return False


class FolderLock:
    """Held by the one process that writes a run folder.

    On the machine of that process the system's own lock tells whether it lives. Other machines, which may see
    the folder on a file share without locks, go by the time of its last sign of life.
    """

    def __init__(self, folder: Path) -> None:
        self._lock, self._owner = folder / "lock", folder / "owner.json"

    def alive(self) -> bool:
        """Whether a process holds it."""
        try:
            sign = self._owner.stat().st_mtime
            host = self._host()
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError):
            host, sign = None, self._last_sign()
        if host == platform.node():
            with contextlib.suppress(OSError):
                return held(self._lock)
        return time.time() - sign < _STALE_S

    def here(self) -> bool:
        """Whether a process on this machine holds it."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return self._host() == platform.node() and self.alive()
        return False

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Holds it, and gives signs of life.

        Raises:
            Taken: Another process holds it.
            UserError: The folder cannot be written.
        """
        taken = Taken(f"Another process is training in {self._lock.parent}. Wait for it, or choose another folder.")
        if self.alive():
            raise taken
        lock = FileLock(self._lock, thread_local=False)  # a run may be ended from another thread than it began in
        try:
            lock.acquire(timeout=_PATIENCE_S)
            self._owner.write_text(json.dumps({"host": platform.node(), "process": os.getpid()}), "utf-8")
        except Timeout:
            raise taken from None
        except OSError as error:
            with contextlib.suppress(OSError):
                self._owner.unlink()
            lock.release()
            raise UserError(f"The run folder {self._lock.parent} cannot be written: {error}.") from error
        ended = threading.Event()
        beat = threading.Thread(target=_give_signs, args=(self._owner, ended), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            with contextlib.suppress(OSError):
                self._owner.unlink()
            lock.release()

    def _host(self) -> str:
        return str(json.loads(self._owner.read_text("utf-8"))["host"])

    def _last_sign(self) -> float:
        with contextlib.suppress(OSError):
            return self._owner.stat().st_mtime
        return 0.0


def _give_signs(owner: Path, ended: threading.Event) -> None:
    while not ended.wait(_STALE_S / 4):
        with contextlib.suppress(OSError):
            os.utime(owner)
