"""Every change of a mask, on the disk as soon as it is made: what is left when the viewer is killed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from napari_medcl.correction.journal_file import apply, beginning, change, first_bytes, records
from napari_medcl.correction.places import apart, beside, forget_journal, known_journals, note_journal
from napari_medcl.errors import UserError
from napari_medcl.files import whole
from napari_medcl.training.lock import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Box = tuple[slice, ...]

__all__ = [
    "Journal",
    "Recovered",
    "Unwritable",
    "apart",
    "beside",
    "discard",
    "forget_journal",
    "known_journals",
    "note_journal",
    "pending",
    "read",
]

_PATIENCE_S = 0.5
"""So long a lock is tried for: whoever looks whether it is held holds it for a moment."""


class Unwritable(UserError):  # noqa: N818 - as Stopped
    """A journal cannot be written where it is to lie; `apart` may be."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a journal tells.

    Attributes:
        path: The journal.
        about: What its writer said of the mask.
        mask: (Z, Y, X) or (Y, X), as it was after the last change.
        first: The same at the beginning.
        changes: How many there were.
    """

    path: Path
    about: dict[str, Any]
    mask: NDArray[Any]
    first: NDArray[Any]
    changes: int


class Journal:
    """A journal in the hands of the one process that writes it, from `begin` or `resume` to `close`."""

    def __init__(self, path: Path, shadow: NDArray[Any], lock: FileLock) -> None:
        self.path = path
        self._shadow, self._lock = shadow, lock
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        self._shut = weakref.finalize(self, os.close, self._file)  # a viewer that closes says nothing to its docks
        self._end = os.fstat(self._file).st_size
        self._behind = False

    @classmethod
    def begin(cls, path: Path, mask: NDArray[Any], about: dict[str, Any]) -> Journal:
        """Starts a journal with the mask as it is now.

        Args:
            path: Where, see `beside` and `apart`.
            mask: (Z, Y, X) or (Y, X) integers.
            about: What to say of the mask, as JSON values: its file, its scan, its layer.

        Raises:
            Unwritable: It cannot be written.
            UserError: Another process writes that journal, or it holds changes that nobody saved.
        """
        shadow = np.array(mask, order="C")
        with _taking(path) as lock:
            if _holds_changes(path):
                raise UserError(
                    f"{path} holds changes of a mask that were never saved. Take them back or discard them first."
                )
            with whole(path) as part:
                part.write_bytes(first_bytes(shadow, about))
            return cls(path, shadow, lock)

    @classmethod
    def resume(cls, path: Path) -> Journal:
        """Goes on with a journal that another process left, after its last whole record.

        Raises:
            Unwritable: It cannot be written.
            UserError: Another process writes it, or it cannot be read.
        """
        with _taking(path) as lock:
            recovered, end = _read(path)
            os.truncate(path, end)
            return cls(path, recovered.mask, lock)

    def note(self, mask: NDArray[Any], box: Box | None = None) -> int:
        """Writes what has changed since the last time; it is on the disk when this returns.

        What could not be written, on a full disk, the next call takes along, whatever its box.

        Args:
            mask: All of it, with the shape and type that it had at the beginning.
            box: Where to look, a slice without a step for every axis; None: everywhere.

        Returns:
            How many voxels have changed.

        Raises:
            UserError: The journal cannot be written; what was there is as it was.
            ValueError: The mask has another shape or type.
        """
        if (mask.shape, mask.dtype) != (self._shadow.shape, self._shadow.dtype):
            raise ValueError(
                f"The journal is of {self._shadow.shape} {self._shadow.dtype}, not {mask.shape} {mask.dtype}"
            )
        changed = _changed(mask, self._shadow, None if self._behind else box)
        self._behind = True  # until it is on the disk
        if len(changed):
            values = mask.flat[changed]
            self._append(change(changed, values))
            self._shadow.reshape(-1)[changed] = values
        self._behind = False
        return len(changed)

    def close(self, keep: bool = False) -> None:
        """Ends the journal, and deletes it unless it is to be kept.

        Raises:
            UserError: It cannot be deleted.
        """
        if not self._shut.alive:
            return
        self._shut()
        try:
            if not keep:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"The journal {self.path} cannot be deleted: {error.strerror}. Delete it by hand."
            ) from error
        finally:
            _give_back(self._lock)

    def _append(self, record: bytes) -> None:
        try:
            if os.fstat(self._file).st_size > self._end:  # a full disk took a part of the one before
                os.ftruncate(self._file, self._end)
            if os.write(self._file, record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError as error:
            raise UserError(
                f"The last change is not in the journal {self.path}, which cannot be written: {error.strerror}. Free "
                "some space; the next change takes it along. Until then save the mask often."
            ) from error
        self._end += len(record)


def read(path: Path) -> Recovered:
    """What a journal tells; a record that a crash cut short ends it.

    Raises:
        UserError: It cannot be read or is no journal.
    """
    return _read(path)[0]


def pending(paths: Iterable[Path]) -> list[Recovered]:
    """The journals that processes left which are gone, newest first; those without a change are passed over.

    So are damaged ones, and those of which it cannot be told whether a process writes them.
    """
    left = {path: time for path in paths if (time := _left_at(path)) is not None}
    found = []
    for path in sorted(left, key=left.__getitem__, reverse=True):
        with contextlib.suppress(UserError):
            found.append(read(path))
    return [recovered for recovered in found if recovered.changes]


def discard(path: Path) -> None:
    """Deletes a journal whose changes nobody wants back.

    Raises:
        UserError: A process writes it, or it cannot be deleted.
    """
    with _taking(path) as lock:
        path.unlink(missing_ok=True)
        _give_back(lock)


@contextlib.contextmanager
def _taking(path: Path) -> Iterator[FileLock]:
    """Takes the lock of a journal, and gives it back if anything goes wrong."""
    lock = FileLock(_lock_of(path), thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise UserError(f"Another window has the mask of {path} in hand. Close the mask there first.") from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield lock
    except OSError as error:
        _give_back(lock)
        raise _unwritable(path, error) from error
    except BaseException:
        _give_back(lock)
        raise


def _give_back(lock: FileLock) -> None:
    """Deletes the lock's file before others can take it: what they took would have no name."""
    with contextlib.suppress(OSError):  # Windows deletes no file that is open
        Path(lock.lock_file).unlink()
    lock.release()


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _left_at(path: Path) -> float | None:
    """When a journal was last written; None if a process writes it, or that cannot be told."""
    with contextlib.suppress(OSError):
        lock = _lock_of(path)
        if not (lock.exists() and held(lock)):
            return path.stat().st_mtime
    return None


def _unwritable(path: Path, error: OSError) -> Unwritable:
    return Unwritable(
        f"The journal {path} cannot be written: {error.strerror}. Free some space or mend the folder's rights."
    )


def _read(path: Path) -> tuple[Recovered, int]:
    """What a journal tells, and where its last whole record ends."""
    try:
        with path.open("rb") as file:
            whole_ones = records(file)
            payload, end = next(whole_ones, (b"", 0))
            about, first = beginning(payload)
            mask, changes = first.copy(), 0
            for payload, end in whole_ones:  # noqa: B007 - the last one counts
                apply(payload, mask)
                changes += 1
    except OSError as error:
        raise UserError(f"The journal {path} cannot be read: {error.strerror}.") from error
    except (ValueError, LookupError, TypeError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is no journal of a mask, or is damaged from its beginning. Delete it.") from error
    return Recovered(path, about, mask, first, changes), end


def _holds_changes(path: Path) -> bool:
    """Whether there is a journal with at least one change."""
    try:
        with path.open("rb") as file:
            return len(list(itertools.islice(records(file), 2))) == 2
    except FileNotFoundError:
        return False


def _changed(mask: NDArray[Any], shadow: NDArray[Any], box: Box | None) -> NDArray[np.intp]:
    """Flat indices of the voxels that differ, ascending."""
    if box is None:
        return np.flatnonzero(mask != shadow)
    differs = mask[box] != shadow[box]
    inside = np.unravel_index(np.flatnonzero(differs), differs.shape)
    starts = (part.indices(size)[0] for part, size in zip(box, mask.shape, strict=True))
    return np.ravel_multi_index([place + start for place, start in zip(inside, starts, strict=True)], mask.shape)
