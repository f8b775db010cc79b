"""What a run has said so far, gathered for curves and a line of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_medcl.training.events import Evaluated, Failed, Finished, Started, Stepped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_medcl.training.events import Event

MEAN = "mean"


@dataclass
class Curve:
    """Points of one curve."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """One more point."""
        self.steps.append(step)
        self.values.append(value)


@dataclass
class History:
    """The events of one run in a form that can be drawn.

    Attributes:
        terms: A curve for every term of the loss.
        dice: A curve of the validation Dice for every class, and their mean.
        lines: What to tell the user, latest last.
    """

    terms: dict[str, Curve] = field(default_factory=dict)
    dice: dict[str, Curve] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    progress: float = 0.0
    remaining_s: float | None = None
    step: int = 0
    steps: int | None = None
    device: str = ""

    def add(self, events: Iterable[Event]) -> None:
        """Takes in what the run said since."""
        for event in events:
            match event:
                case Started():
                    self.steps, self.device = event.steps, event.device
                    self.lines.append(event.message)
                case Stepped():
                    self.step, self.progress, self.remaining_s = event.step, event.progress, event.remaining_s
                    for name, value in event.terms.items():
                        self.terms.setdefault(name, Curve()).add(event.step, value)
                case Evaluated():
                    for name, value in {**event.dice, MEAN: event.mean}.items():
                        self.dice.setdefault(name, Curve()).add(event.step, value)
                    best = ", the best so far" if event.best else ""
                    self.lines.append(f"Step {event.step}: validation Dice {event.mean:.3f}{best}.")
                case Finished():
                    self.step, self.remaining_s = event.step, None
                    self.progress = 1.0 if event.reason == "done" else self.progress
                    self.lines.append(event.message)
                case Failed():
                    self.remaining_s = None
                    self.lines.append(f"{event.message} {event.hint}".strip())


def duration(seconds: float) -> str:
    """A time as one says it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
