"""How far a run is, and what its losses were on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_POINTS = 1000
"""A curve is drawn through so many points where the number of steps is known,"""
_MOST_STEPS = 20
"""and through more where there would be too long between them."""
_UNKNOWN = 5
"""Steps between points where time ends the run."""


@dataclass
class Clock:
    """How far a run is: by steps, or by time where that ends it earlier.

    Attributes:
        joined: The progress at which an extension began.
    """

    steps: int | None
    minutes: float | None
    step: int = 0
    joined: float | None = None
    _before_s: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _seen_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first step began, without those in which the run was interrupted."""
        return self._before_s + time.monotonic() - self._began

    def look(self, agree: Callable[[float], float]) -> None:
        """Sets the time that the progress goes by until the next look.

        Args:
            agree: Gives the time of the process that leads, of several that go by one clock.
        """
        if self.minutes is not None:
            self._seen_s = agree(self.elapsed_s)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        seen_s = self.elapsed_s if self._seen_s is None else self._seen_s
        by_time = 0.0 if self.minutes is None else seen_s / (60 * self.minutes)
        by_steps = 0.0 if self.steps is None else self.step / self.steps
        return min(1.0, max(by_steps, by_time))

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, if it goes on at this speed."""
        progress = self.progress
        return self.elapsed_s * (1 - progress) / progress if progress > 0 else 0.0

    @property
    def since_joined(self) -> float:
        """How far the extension is, from 0 to 1; 1 where there is none."""
        if self.joined is None or self.joined >= 1:
            return 1.0
        return (self.progress - self.joined) / (1 - self.joined)

    def says(self) -> bool:
        """Whether the losses are to be said: at steps that only the settings decide, not at times."""
        every = _UNKNOWN if self.steps is None else min(_MOST_STEPS, max(1, self.steps // _POINTS))
        return self.step % every == 0 or self.step == self.steps

    def state(self) -> dict[str, Any]:
        """Where it stands."""
        return {
            "steps": self.steps,
            "minutes": self.minutes,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "joined": self.joined,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state; where more is to be done than was meant then, it is an extension."""
        self.step, self._before_s, self._began = state["step"], state["elapsed_s"], time.monotonic()
        extended = (state["steps"], state["minutes"]) != (self.steps, self.minutes)
        self._seen_s = self._before_s  # the same in all processes
        self.joined = self.progress if extended else state["joined"]
        self._seen_s = None


class Meter:
    """Means of the loss terms since they were last said."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Takes the terms of a step in."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means; starts anew."""
        means = {name: value.item() / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """What was taken in since."""
        return {"sums": dict(self._sums), "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._sums, self._count = dict(state["sums"]), state["count"]
