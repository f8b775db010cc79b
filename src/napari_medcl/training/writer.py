"""Writes the checkpoints of a run and remembers the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_medcl.errors import UserError
from napari_medcl.training.events import Event, Saved
from napari_medcl.training.state import write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_medcl.training.loop import Task
    from napari_medcl.training.processes import Processes
    from napari_medcl.training.run import Run

_ROUNDING = 1e-9
"""0.29 times 100 is a little less than 29."""


class Writer:
    """Writes the last model with the state to go on from, and the best model; of several processes the first one does.

    Attributes:
        best: The best mean Dice so far, None before the first.
        best_step: When that was.
    """

    def __init__(self, run: Run, task: Task, processes: Processes) -> None:
        self._run, self._task, self._writes = run, task, processes.leads
        self.best: float | None = None
        self.best_step = 0
        self._evaluated = 0

    def save(self, step: int, state: dict[str, Any]) -> Saved:
        """Writes the model as it stands, then the state.

        Raises:
            UserError: The disk is full or the folder cannot be written; what was there is as it was.
        """
        saved = self._save("last", step)
        folder = self._run.checkpoints
        self._write(folder, lambda: write_state(folder, step, state))
        return saved

    def evaluate_when_due(self, step: int, progress: float) -> Iterator[Event]:
        """Measures the model if it is time, at a progress of the whole run.

        Raises:
            UserError: As `save`.
        """
        if (due := self._due(progress)) > self._evaluated:
            self._evaluated = due
            yield from self.evaluate(step)

    def evaluate(self, step: int) -> Iterator[Event]:
        """Measures the model; writes it if it is the best, where the task chooses one.

        Raises:
            UserError: As `save`.
        """
        found = self._task.evaluate(step)
        better = self._task.chooses and not math.isnan(found.mean) and (self.best is None or found.mean > self.best)
        yield found.model_copy(update={"best": better})
        if better:
            self.best, self.best_step = found.mean, step
            yield self._save("best", step)

    def state(self) -> dict[str, Any]:
        """What it remembers."""
        return {"best": self.best, "best_step": self.best_step}

    def restore(self, state: dict[str, Any], progress: float) -> None:
        """Remembers that, at a progress of the whole run."""
        self.best, self.best_step = state["best"], state["best_step"]
        self._evaluated = self._due(progress)

    def _due(self, progress: float) -> int:
        """How many evaluations there are up to then."""
        return int(progress * self._task.evaluations + _ROUNDING)

    def _save(self, name: str, step: int) -> Saved:
        path = self._run.checkpoints / f"{name}.safetensors"
        self._write(path, lambda: self._task.checkpoint(step).save(path))
        return Saved(step=step, path=path.relative_to(self._run.folder).as_posix(), best=name == "best")

    def _write(self, path: Path, write: Callable[[], object]) -> None:
        if not self._writes:
            return
        try:
            write()
        except OSError as error:
            raise UserError(
                f"The checkpoint in {path} cannot be written: {error}. Free some space or mend the folder's rights, "
                "then resume the run; the checkpoint before it is as it was."
            ) from error
