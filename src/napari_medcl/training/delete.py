"""Deleting run folders, and nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from napari_medcl.errors import UserError
from napari_medcl.training.run import ALIVE

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.training.run import Run

_MARK = "-deleted"
"""Behind the name of a folder that is being deleted, so that nobody goes on with the run meanwhile."""


def delete(run: Run, root: Path) -> None:
    """Deletes a run folder with all that is in it. Links in it are removed, what they lead to is not.

    Raises:
        UserError: It is no run folder directly inside `root`, the run goes on, or something cannot be deleted.
    """
    folder = run.folder
    if folder.is_symlink() or folder.parent.resolve() != root.resolve() or not (folder / "config.json").is_file():
        raise UserError(f"{folder} was not deleted: it is not a run folder that lies in {root} itself.")
    if run.state in ALIVE:
        raise UserError(f"{run.name} was not deleted: it goes on. Stop it first.")
    doomed = folder.with_name(f"{folder.name}{_MARK}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        left = doomed if doomed.exists() else folder
        raise UserError(f"{left} cannot be deleted: {error}. Close what uses it or mend its rights.") from error


def size_of(run: Run) -> int:
    """Bytes of the files in a run folder; links count for nothing."""
    return sum(path.lstat().st_size for path in run.folder.rglob("*") if path.is_file() and not path.is_symlink())
