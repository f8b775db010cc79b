"""The steps of a run: schedule, precision, events, checkpoints, and a state to go on from; the same for every stage."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from napari_medcl.data.loader import untimed
from napari_medcl.device import reuse_memory
from napari_medcl.training.events import Evaluated, Event, Finished, Noted, Paused, Started, Stepped
from napari_medcl.training.previewer import Previewer
from napari_medcl.training.processes import ALONE, Processes
from napari_medcl.training.profile import Profile
from napari_medcl.training.progress import Clock, Meter
from napari_medcl.training.state import random_state, restore_random_state
from napari_medcl.training.step import Stepper
from napari_medcl.training.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.batch import Batch
    from napari_medcl.training.config import FinetuneConfig, PretrainConfig
    from napari_medcl.training.run import Request, Run

    Timed = Callable[[str], AbstractContextManager[None]]

_SAVE_EVERY_S = 60.0
_WARM_UP = 0.05
"""Part of a run in which the learning rate rises."""
_JOIN = 0.05
"""Part of an extension in which the learning rate rises from 0 to that of the longer schedule."""


class Task(ABC):
    """What a stage contributes to the loop.

    Attributes:
        optimiser: Steps on everything that is trained.
        autocast: Number format of the products, None for float32.
        evaluations: How often `evaluate` is called, 0 for never.
        chooses: Whether what it finds says which model is the best; else the last one is the result.
        smallest: Crops that a batch must have for its loss to mean anything.
        epoch: Steps in which every scan is drawn once.
        timed: Is entered round the parts of a step, by their names (see `profile.PARTS`).
    """

    optimiser: torch.optim.Optimizer
    device: torch.device
    autocast: torch.dtype | None
    evaluations: int = 0
    chooses: bool = True
    smallest: int = 1
    epoch: int = 1
    timed: Timed = staticmethod(untimed)

    @abstractmethod
    def draw(self) -> Batch:
        """The next batch."""

    def layers(self) -> Iterable[nn.Module]:
        """The layers of the network, which a profile tells from what else computes the losses."""
        return ()

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss."""

    @abstractmethod
    def rate(self, progress: float) -> float:
        """The learning rate at a progress from 0 to 1."""

    @abstractmethod
    def checkpoint(self, step: int) -> Checkpoint:
        """The model as it stands."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that the steps to come depend on, but the optimiser: weights, and what decides the batches."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Sets what `state` gave."""

    def stepped(self) -> None:  # noqa: B027 - most stages have nothing to do
        """Called after every step."""

    def evaluate(self, step: int) -> Evaluated:
        """Measures the model on the validation cases; a stage that has none measures nothing."""
        return Evaluated(step=step, dice={}, mean=math.nan, best=False)


def warmed_up(progress: float) -> float:
    """The share of the learning rate: up to 1 in a straight line, then to 0 along half a cosine."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def started(run: Run, config: PretrainConfig | FinetuneConfig, task: Task, cases: int, message: str) -> Started:
    """The event that says what a run sets out to do."""
    return Started(
        run=run.name,
        stage=run.stage,
        device=str(task.device),
        precision=str(task.autocast or torch.float32).removeprefix("torch."),
        steps=config.total_steps,
        minutes=config.minutes,
        cases=cases,
        message=message,
    )


class Loop:
    """Makes the steps of a run.

    Args:
        run: Where events and checkpoints go, and where a stop or a pause is asked for.
        config: Says how many steps.
        task: What is trained.
        state: What `state` gave, to go on from there.
        processes: Those that train together.
    """

    def __init__(
        self,
        run: Run,
        config: PretrainConfig | FinetuneConfig,
        task: Task,
        state: dict[str, Any] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._run, self._task, self._processes = run, task, processes
        self._clock, self._meter = Clock(config.total_steps, config.minutes), Meter()
        self._writer = Writer(run, task, processes)
        self._previewer = Previewer(run, config, task)
        self._stepper = Stepper(task, processes)
        reuse_memory(task.device)
        self._profile = Profile(task.device, task.epoch) if config.profile else None
        if self._profile is not None:
            task.timed = self._profile.part
            self._profile.watch(task.layers())
        if state is not None:
            self._restore(state)
        self._stepper.align()

    def __iter__(self) -> Iterator[Event]:
        """Yields `Stepped` often enough to be watched, `Evaluated`, `Saved`, and `Finished` or `Paused` at the end.

        Raises:
            UserError: A loss or a gradient is not finite, or not one crop fits into the device's memory; the last
                checkpoint is as it was.
        """
        clock = self._clock
        saved_s = time.monotonic()
        while True:
            asked = self._look()
            if clock.progress >= 1:
                break
            if asked is not None:
                yield from self._end(asked == "pause")
                return
            yield from self._step()
            clock.look(self._processes.same)
            if clock.says():
                yield self._said()
            yield from self._writer.evaluate_when_due(clock.step, clock.progress)
            if self._processes.leads:
                yield from self._previewer.when_due(clock.step, clock.progress)
            if time.monotonic() - saved_s > _SAVE_EVERY_S:
                yield self._save()
                saved_s = time.monotonic()
        yield self._save()
        yield from self._profiled()
        yield Finished(step=clock.step, reason="done", message=self._told())

    def _look(self) -> Request | None:
        """Looks at the clock, and what somebody has asked for."""
        self._clock.look(self._processes.same)
        return self._processes.same(self._run.asked() if self._processes.leads else None)

    def _end(self, pause: bool) -> Iterator[Event]:
        """Ends before the last step. The state is safe before the model is measured, which takes long."""
        step = self._clock.step
        yield self._save()
        yield from self._profiled()
        if pause:
            yield Paused(step=step, message=f"Paused after {self._told()}")
            return
        if self._task.evaluations and step:
            yield from self._writer.evaluate(step)
            yield self._save()  # with what was measured: a later and worse model is not to take the best one's place
        yield Finished(step=step, reason="stopped", message=self._told())

    def _profiled(self) -> Iterator[Event]:
        for line in [] if self._profile is None else self._profile.in_words():
            yield Noted(step=self._clock.step, message=line)

    def _step(self) -> Iterator[Event]:
        with nullcontext() if self._profile is None else self._profile.step():
            terms = yield from self._stepper.step(self._clock.step, self._rate())
        self._clock.step += 1
        self._meter.add(terms)

    def _rate(self) -> float:
        """That of the whole schedule; an extension joins in gently."""
        return self._task.rate(self._clock.progress) * min(1.0, self._clock.since_joined / _JOIN)

    def _said(self) -> Stepped:
        clock = self._clock
        return Stepped(
            step=clock.step,
            progress=clock.progress,
            terms=self._meter.take(),
            rate=self._rate(),
            remaining_s=clock.remaining_s,
        )

    def _save(self) -> Event:
        return self._writer.save(self._clock.step, self._state())

    def _told(self) -> str:
        said = f"{self._clock.step} steps in {self._clock.elapsed_s:.0f} s"
        if self._writer.best is not None:
            said += f", best validation Dice {self._writer.best:.4f} at step {self._writer.best_step}"
        return f"{said}."

    def _state(self) -> dict[str, Any]:
        return {
            "clock": self._clock.state(),
            "meter": self._meter.state(),
            "writer": self._writer.state(),
            **self._stepper.state(),
            "random": random_state(self._task.device),
            "task": self._task.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._task.restore(state["task"])
        self._stepper.restore(state)
        self._clock.restore(state["clock"])
        self._meter.restore(state["meter"])
        self._writer.restore(state["writer"], self._clock.progress)
        restore_random_state(state["random"], self._task.device)
