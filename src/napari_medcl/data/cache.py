"""Arrays that take long to make, kept on the disk by what they are made from, and read as memory maps."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from napari_medcl.files import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

_SHARE = 0.2
"""Of the disk that the arrays may take; those that were not used for longest go first."""


def home() -> Path:
    """The folder with all of them: `MEDCL_CACHE`, or a place of the user's."""
    return Path(os.environ.get("MEDCL_CACHE") or platformdirs.user_cache_dir("medcl"))


def kept(path: Path, make: Callable[[], NDArray[Any]], smallest: int = 0) -> NDArray[Any]:
    """An array that is made once.

    Args:
        path: Where it is kept, below `home`; its name says what it is made from. A damaged file, or a folder that
            cannot be written to, costs time and nothing else.
        make: Makes it.
        smallest: Bytes from which on it is worth keeping.

    Returns:
        A memory map that cannot be written to; the array itself where it is not kept.
    """
    if (found := mapped(path)) is not None:
        return found
    array = make()
    if array.nbytes < smallest:
        return array
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            np.save(part, array, allow_pickle=False)
        _make_room(path)
    found = mapped(path)
    return array if found is None else found


def mapped(path: Path) -> NDArray[Any] | None:
    """What is kept, or None."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return found if isinstance(found, np.ndarray) and found.dtype.kind in "biuf" else None


def blank(shape: tuple[int, ...], kind: DTypeLike, folder: Path) -> NDArray[Any]:
    """Zeros in a file without a name, which the system deletes with the array.

    Args:
        shape: Of the array.
        kind: Of its numbers.
        folder: Whose disk holds it; made where it is missing.

    Raises:
        OSError: The folder cannot be written to, or its disk has no room for all of it: to find that out while a map is
            written to would end the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * np.dtype(kind).itemsize))
        return np.memmap(file, kind, "r+", shape=shape)


def room(shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
    """An array to be filled that need not fit into memory: on the disk of `home`, in memory where that has no room."""
    try:
        return blank(shape, kind, home())
    except OSError:
        return np.empty(shape, kind)


def size() -> int:
    """Bytes of all that is kept."""
    return sum(bytes_ for _, bytes_, _ in _files(home()))


def clear() -> None:
    """Deletes all that is kept; what a run is reading stays there for it."""
    for _, _, path in _files(home()):
        with contextlib.suppress(OSError):  # Windows keeps what is open
            path.unlink()


def _make_room(newest: Path) -> None:
    """Deletes what was not used for longest until the rest fits into its share of the disk."""
    files = sorted(_files(newest.parent.parent))
    left = sum(bytes_ for _, bytes_, _ in files)
    allowed = int(_SHARE * shutil.disk_usage(newest.parent).total)
    for _, bytes_, path in files:
        if left <= allowed:
            return
        if path != newest:
            with contextlib.suppress(OSError):
                path.unlink()
                left -= bytes_


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When it was last used, bytes and path of every array."""
    for path in folder.glob("*/*.npy"):
        with contextlib.suppress(OSError):
            status = path.stat()
            yield status.st_mtime, status.st_size, path
