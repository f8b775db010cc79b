"""What a run has said so far, gathered for curves and a line of text."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_medcl.training.events import (
    Evaluated,
    Failed,
    Finished,
    Noted,
    Paused,
    Preparing,
    Previewed,
    Resumed,
    Saved,
    Started,
    Stepped,
    Waiting,
)

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

    def cut(self, step: int) -> None:
        """Forgets what was after a step."""
        kept = bisect_right(self.steps, step)
        del self.steps[kept:], self.values[kept:]


@dataclass
class History:
    """The events of one run in a form that can be drawn.

    Attributes:
        terms: A curve for every term of the loss.
        dice: A curve of the validation Dice for every class, and their mean.
        lines: What to tell the user, latest last.
        progress: How far it is, from 0 to 1.
        remaining_s: Seconds that are left, while it trains.
        step: The last step that it told of.
        steps: How many it was to make; None where only time ends it.
        device: Where it computes.
        began: When it first said something, in seconds since 1970.
        heard: When it last did.
        ahead: The runs that it waits for.
        best_dice: The mean over the classes of the best model, where the run chooses one, else of the last; None before
            the first measurement.
    """

    terms: dict[str, Curve] = field(default_factory=dict)
    dice: dict[str, Curve] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    progress: float = 0.0
    remaining_s: float | None = None
    step: int = 0
    steps: int | None = None
    device: str = ""
    began: float | None = None
    heard: float | None = None
    ahead: tuple[str, ...] = ()
    best_dice: float | None = None
    _chooses: bool = False

    def add(self, events: Iterable[Event]) -> None:
        """Takes in what the run said since."""
        for event in events:
            self.began, self.heard = self.began or event.time, event.time
            self.ahead = event.ahead if isinstance(event, Waiting) else ()
            match event:
                case Stepped():
                    self.step, self.progress, self.remaining_s = event.step, event.progress, event.remaining_s
                    for name, value in event.terms.items():
                        self.terms.setdefault(name, Curve()).add(event.step, value)
                case Evaluated():
                    for name, value in {**event.dice, MEAN: event.mean}.items():
                        self.dice.setdefault(name, Curve()).add(event.step, value)
                    self._measured(event)
                    best = ", the best so far" if event.best else ""
                    self.lines.append(f"Step {event.step}: validation Dice {event.mean:.3f}{best}.")
                case Preparing() | Saved() | Previewed():
                    pass
                case _:
                    self._turn(event)

    def _measured(self, event: Evaluated) -> None:
        """A run that chooses names its first model the best."""
        self._chooses = self._chooses or event.best
        if event.best or not (self._chooses or math.isnan(event.mean)):
            self.best_dice = event.mean

    def _turn(self, event: Waiting | Resumed | Started | Noted | Paused | Finished | Failed) -> None:
        """A turn of events: what the user is told in the run's own words."""
        hint = event.hint if isinstance(event, Failed) else ""
        self.lines.append(f"{event.message} {hint}".strip())
        if isinstance(event, Started):
            self.steps, self.device = event.steps, event.device
        elif isinstance(event, Resumed):
            self._go_back(event.step)
        elif isinstance(event, Paused | Finished | Failed):
            self.remaining_s = None
            self.step = event.step or self.step
            self.progress = 1.0 if isinstance(event, Finished) and event.reason == "done" else self.progress

    def _go_back(self, step: int) -> None:
        """What was said of later steps is said again."""
        self.step, self.remaining_s = step, None
        for curve in (*self.terms.values(), *self.dice.values()):
            curve.cut(step)


def duration(seconds: float) -> str:
    """A time as one says it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
