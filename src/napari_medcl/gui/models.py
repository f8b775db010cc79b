"""Choosing a trained model: one of the runs, or a file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog

from napari_medcl.errors import UserError
from napari_medcl.gui.editors import Choice
from napari_medcl.gui.settings import settings
from napari_medcl.training.run import Run, list_runs

if TYPE_CHECKING:
    from napari_medcl.training.events import Stage

_FILE = "file"
_SUFFIX = ".safetensors"


class ModelChoice(Choice):
    """A run of one stage that has a checkpoint, or a model file; the value is the folder or the file.

    Args:
        stage: Of the runs that are offered.
        none: Text of the choice of no model; without it there is none.
    """

    def __init__(self, stage: Stage, none: str | None = None) -> None:
        super().__init__()
        self._stage, self._none = stage, none
        self._files: list[Path] = []
        self.activated.connect(self._look)
        self.refresh()

    def refresh(self) -> None:
        """Lists the runs that there are now."""
        none = [] if self._none is None else [(self._none, None)]
        runs = [(run.name, run.folder) for run in usable_runs(settings().runs, self._stage)]
        files = [(f"{path.parent.name}/{path.name}", path) for path in self._files]
        self.setChoices([*none, *runs, *files, ("Model file…", _FILE)])

    def setValue(self, value: Path | str | None) -> None:  # noqa: N802
        """Chooses a run or a file; a file not offered yet is offered from now on."""
        if isinstance(value, Path) and self.findData(value) < 0:
            self._files.append(value)
            self.refresh()
        super().setValue(value)

    def value(self) -> Path | None:
        """The run folder or file, None for no model."""
        chosen = super().value()
        return chosen if isinstance(chosen, Path) else None

    def showPopup(self) -> None:  # noqa: N802
        """There may be new runs."""
        self.refresh()
        super().showPopup()

    def _look(self, index: int) -> None:
        if self.itemData(index) != _FILE:
            return
        found, _ = QFileDialog.getOpenFileName(
            self, "Choose a model file", str(settings().runs), f"Models (*{_SUFFIX})"
        )
        if found:
            self.setValue(Path(found))
        elif index:
            self.setCurrentIndex(0)


def usable_runs(root: Path, stage: Stage) -> list[Run]:
    """Runs of a stage that have a checkpoint, newest first; folders that cannot be read are left out."""
    found = []
    for run in list_runs(root):
        with contextlib.suppress(UserError):
            if run.checkpoint is not None and run.stage == stage:
                found.append(run)
    return found
