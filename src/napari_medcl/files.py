"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_PART = ".part-"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; at the end it is flushed to the disk and takes the name.

    The temporary name ends like `path`, for writers that go by the suffix. After an exception nothing
    is left and an older file is as it was.
    """
    suffix = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_PART, suffix=suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
        _flush_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder that is written anew: gives an empty one beside it, which takes the name at the end.

    A folder that was there before goes when the new one is on the disk.
    """
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=_PART, suffix="".join(path.suffixes[-2:])))
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=_PART))
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
        part.chmod(0o777 & ~_umask())
        if path.exists():
            path.replace(old / path.name)
        part.replace(path)
        _flush_folder(path.parent)
    finally:
        if (old / path.name).exists() and not path.exists():
            (old / path.name).replace(path)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def digest(path: Path) -> str:
    """A hash of what a file, or a folder with files, holds; a file whose time and size stayed is not read again.

    Raises:
        UserError: It cannot be read.
    """
    try:
        if path.is_dir():
            return hashlib.blake2b(b"".join(digests(path))).hexdigest()
        status = path.stat()
        return _digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def digests(path: Path) -> Iterator[bytes]:
    """The hashes of a file or of the files of a folder, those in its subfolders with their names.

    Raises:
        UserError: One cannot be read.
    """
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.parent not in (path, path.parent):
            yield file.relative_to(path).as_posix().encode()
        if not file.is_dir():
            yield bytes.fromhex(digest(file))


@lru_cache(maxsize=100_000)
def _digest(path: Path, time_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def delete_parts(folder: Path) -> None:
    """Deletes what processes that were killed have left half-written in a folder; none may be writing there now."""
    for part in folder.glob(f"{_PART}*"):
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Puts a new name on the disk, too; Windows does that by itself and opens no folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes a table as CSV; a cell is empty where a row has nothing, or None.

    Args:
        path: Where to; its folder is made.
        rows: What stands in the columns by name.
        columns: Those that come first, also where there is no row.

    Raises:
        UserError: The file cannot be written; one that was there is as it was.
    """
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(
            f"The table {path} cannot be written: {error.strerror or error}. Close it in other programs, or choose a "
            "folder that has space and may be written to."
        ) from error
