"""Saving a corrected mask, with the one before kept."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from napari_medcl.data.formats import read_labels
from napari_medcl.data.names import stem
from napari_medcl.data.writing import write_labels
from napari_medcl.errors import UserError
from napari_medcl.files import digest, whole, whole_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medcl.correction.record import Record
    from napari_medcl.data.volume import Labels

_BACKUPS = ".medcl-backups"


@dataclass(frozen=True)
class Saved:
    """A mask that was saved.

    Attributes:
        path: Its file.
        backup: The copy of the file that was there before; None if there was none.
        record: The mask's record, with the new version.
    """

    path: Path
    backup: Path | None
    record: Record


def save_mask(labels: Labels, path: Path, record: Record) -> Saved:
    """Writes a mask and its record; of a file that is there already a copy is kept in `.medcl-backups` beside it.

    Args:
        labels: The mask.
        path: Where to.
        record: What was done to it until now.

    Raises:
        UserError: The mask, its record or the copy cannot be written; the old file is as it was.
    """
    now = datetime.now().astimezone()
    backup = back_up(path, now) if path.exists() else None
    try:
        before = _voxels(path, labels.shape) if backup else None
        voxel_ml = math.prod(labels.spacing) / 1000
        record = record.with_version(before, labels.array, voxel_ml, now.isoformat(timespec="seconds"))
        with record.storing(path):
            write_labels(labels, path)
    except BaseException:
        if backup:
            _put_back(backup, path)
        raise
    return Saved(path, backup, record)


def back_up(path: Path, now: datetime) -> Path:
    """Copies a mask to `.medcl-backups` beside it, under a name that tells when.

    Raises:
        UserError: It cannot be copied.
    """
    folder, name = path.parent / _BACKUPS, stem(path)
    end, begin = path.name[len(name) :], f"{name}-{now:%Y%m%d-%H%M%S}"
    names = (f"{begin}{(number and f'-{number}') or ''}{end}" for number in count())
    try:
        folder.mkdir(exist_ok=True)
        target = next(folder / name for name in names if not (folder / name).exists())
        if path.is_dir():
            with whole_folder(target) as part:
                shutil.copytree(path, part, dirs_exist_ok=True)
        else:
            with whole(target) as part:
                shutil.copyfile(path, part)
    except OSError as error:
        raise UserError(
            f"{path} cannot be copied to {folder} before it is replaced: {error.strerror}. Free some space or mend the "
            "folder's rights, or save the mask elsewhere."
        ) from error
    return target


def _voxels(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The mask in a file; None if it cannot be read or has another shape."""
    try:
        labels = read_labels(path)
    except (UserError, MemoryError):
        return None
    return labels.array if labels.shape == shape else None


def _put_back(backup: Path, path: Path) -> None:
    """Leaves the old file as it was, and no copy of it."""
    useless = backup if digest(backup) == digest(path) else path
    if useless.is_dir():
        shutil.rmtree(useless)
    else:
        useless.unlink()
    if useless is path:
        backup.replace(path)
