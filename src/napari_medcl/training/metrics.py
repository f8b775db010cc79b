"""The numbers that a run said, as a table with a row a step."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from napari_medcl.files import whole
from napari_medcl.training.events import Evaluated, Resumed, Saved, Started, Stepped

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_medcl.training.events import Event

LOSS, DICE = "loss", "dice"


def numbers(event: Event) -> dict[str, float]:
    """The numbers of an event by name: `rate`, `loss/TERM`, `dice` for the mean over the classes, `dice/CLASS`."""
    if isinstance(event, Stepped):
        return {"rate": event.rate, **{f"{LOSS}/{name}": value for name, value in event.terms.items()}}
    if isinstance(event, Evaluated):
        return {DICE: event.mean, **{f"{DICE}/{name}": value for name, value in event.dice.items()}}
    return {}


class Metrics:
    """The numbers of a run by step, with the `seconds` of training until then; each step stands there once.

    Args:
        events: What the run has said so far.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._rows: dict[int, dict[str, float]] = {}
        self._saved: dict[int, float] = {}
        self._best: set[int] = set()
        self._before_s, self._began = 0.0, math.nan
        for event in events:
            self.add(event)

    @property
    def step(self) -> int:
        """The last step of which there are numbers; 0 before the first."""
        return next(reversed(self._rows), 0)

    @property
    def seconds(self) -> float:
        """The time of training until then."""
        return self._rows[self.step]["seconds"] if self._rows else 0.0

    @property
    def losses(self) -> dict[str, float]:
        """The terms of the loss as they were said last."""
        for row in reversed(self._rows.values()):
            if found := {name: value for name, value in row.items() if name.startswith(f"{LOSS}/")}:
                return found
        return {}

    @property
    def best(self) -> dict[str, float]:
        """The validation Dice of the best model, where the run chooses one, else of the last, and the `step` of it.

        Empty where none was measured.
        """
        measured = [step for step, row in self._rows.items() if not math.isnan(row.get(DICE, math.nan))]
        if not measured:
            return {}
        step = ([step for step in measured if step in self._best] or measured)[-1]
        dice = {name: value for name, value in self._rows[step].items() if name.partition("/")[0] == DICE}
        return {**dice, "step": step}

    def add(self, event: Event) -> None:
        """Takes an event in. When a run goes on from a saved state, what it said of later steps is forgotten."""
        if isinstance(event, Started):
            self._began = event.time
        elif isinstance(event, Saved) and not event.best:
            self._saved[event.step] = self._elapsed_s(event)
        elif isinstance(event, Resumed):
            self._before_s = self._saved.get(event.step, 0.0)
            for step in [step for step in self._rows if step > event.step]:
                del self._rows[step]
        elif isinstance(event, Stepped | Evaluated):
            row = self._rows.setdefault(event.step, {"seconds": self._elapsed_s(event)})
            row.update(numbers(event))
            if isinstance(event, Evaluated):
                (self._best.add if event.best else self._best.discard)(event.step)

    def write(self, path: Path) -> None:
        """Writes them as CSV, one line a step; a cell is empty where there is no number.

        Raises:
            OSError: The file cannot be written; one that was there is as it was.
        """
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        columns = sorted(names, key=_place)
        with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", *columns])
            writer.writerows([step, *(_cell(row.get(name)) for name in columns)] for step, row in self._rows.items())

    def _elapsed_s(self, event: Event) -> float:
        """Seconds from the first step, without those in which the run was interrupted."""
        return round(self._before_s + event.time - self._began, 3)


def _place(name: str) -> int:
    """Columns of a kind stand together, the losses before the scores."""
    return ("seconds", "rate", LOSS, DICE).index(name.partition("/")[0])


def _cell(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
