"""Choosing a trained model, one of the runs or a file, and what it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog

from napari_medcl.errors import UserError
from napari_medcl.gui.editors import Choice
from napari_medcl.gui.settings import settings
from napari_medcl.gui.tasks import Task
from napari_medcl.training.follow import Follower
from napari_medcl.training.run import Run, find_checkpoint, list_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.training.events import Stage

_FILE = "file"
_FILES: dict[Stage, str] = {"pretrain": "*.safetensors *.pth *.pt", "finetune": "*.safetensors"}
"""Of model files; weights of the methods' authors are only pre-trained."""
_STAGES: dict[Stage, str] = {"pretrain": "pre-trained", "finetune": "fine-tuned"}


class ModelChoice(Choice):
    """A run that has a checkpoint, or a model file; the value is the folder or the file.

    The runs are looked for in a thread; they are offered as soon as they are found.

    Args:
        stages: Of the runs that are offered, first the one that most choose.
        none: Text of the choice of no model; without it there is none.
    """

    def __init__(self, *stages: Stage, none: str | None = None) -> None:
        self._stages, self._none = stages, none
        self._runs: list[tuple[str, Path]] = []
        self._files: list[Path] = []
        super().__init__()
        self._task = Task(self)
        self._task.done.connect(self._found)
        self.activated.connect(self._look)
        self._offer()
        self.refresh()

    def refresh(self) -> None:
        """Looks for the runs that there are now."""
        self._task.start(usable_runs, settings().runs, self._stages)

    def setValue(self, value: Path | str | None) -> None:  # noqa: N802
        """Chooses a run or a file; one not offered yet is offered from now on."""
        if isinstance(value, Path) and self.findData(value) < 0:
            self._files.append(value)
            self._offer()
        super().setValue(value)

    def value(self) -> Path | None:
        """The run folder or file, None for no model."""
        chosen = super().value()
        return chosen if isinstance(chosen, Path) else None

    def showPopup(self) -> None:  # noqa: N802
        """There may be new runs."""
        self.refresh()
        super().showPopup()

    def _found(self, runs: list[tuple[str, Path]]) -> None:
        if runs != self._runs:
            self._runs = runs
            self._offer()

    def _offer(self) -> None:
        none = [] if self._none is None else [(self._none, None)]
        known = {folder for _, folder in self._runs}
        files = [(f"{path.parent.name}/{path.name}", path) for path in self._files if path not in known]
        self.setChoices([*none, *self._runs, *files, ("Model file…", _FILE)])

    def _look(self, index: int) -> None:
        if self.itemData(index) != _FILE:
            return
        found, _ = QFileDialog.getOpenFileName(
            self, "Choose a model file", str(settings().runs), f"Models ({_FILES[self._stages[0]]})"
        )
        if found:
            self.setValue(Path(found))
        elif index:
            self.setCurrentIndex(0)


def usable_runs(root: Path, stages: tuple[Stage, ...], **_: Callable[..., Any]) -> list[tuple[str, Path]]:
    """Runs that have a checkpoint, newest first; folders that cannot be read are left out.

    Args:
        root: The runs folder.
        stages: Of the runs; where there are several, the text names the stage.
    """
    found = []
    for run in list_runs(root):
        with contextlib.suppress(UserError):
            if run.checkpoint is not None and run.stage in stages:
                found.append((f"{run.name} ({_STAGES[run.stage]})" if len(stages) > 1 else run.name, run.folder))
    return found


@dataclass(frozen=True)
class Facts:
    """What the user should know of a model.

    Attributes:
        text: What it is, in words.
        blocks: The maps that it has UAFS blocks behind.
    """

    text: str
    blocks: tuple[str, ...]


def look_at(path: Path, **_: Callable[..., Any]) -> Facts:
    """What a model is.

    Raises:
        UserError: It cannot be read.
    """
    from napari_medcl.foreign import load_model

    model = load_model(find_checkpoint(path))
    return Facts(describe(model, best_dice(path)), model.network.uafs)


def describe(model: Checkpoint, dice: float | None) -> str:
    """What a model was trained for, and how well it did."""
    plan = model.plan
    sizes = " × ".join("any" if size is None else f"{size:.3g}" for size in plan.spacing)
    classes = ", ".join(name for value, name in sorted(model.classes.items()) if value)
    channels = "1 channel" if plan.channels == 1 else f"{plan.channels} channels"
    finds = f"Finds {classes}" if classes else "Finds nothing yet"
    score = "" if dice is None else f" Dice on its validation cases: {dice:.3f}."
    made = model.origin.in_words().capitalize()
    return f"{finds}. {made}. {plan.spatial_dims}D, {channels}, voxels of {sizes} mm (z, y, x).{score}"


def best_dice(path: Path) -> float | None:
    """The best mean validation Dice of the run that a model is of."""
    follower = Follower(Run(path if path.is_dir() else path.parent.parent), curves=False)
    follower.look()
    return follower.history.best_dice
