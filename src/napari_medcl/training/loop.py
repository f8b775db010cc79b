"""The steps of a run: schedule, precision, events, checkpoints and a clean stop; the same for every stage."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from napari_medcl.errors import Stopped, UserError
from napari_medcl.training.events import Evaluated, Event, Failed, Finished, Saved, Started, Stepped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.training.config import FinetuneConfig, PretrainConfig
    from napari_medcl.training.run import Run

_SAY_EVERY_S = 0.5
_SAVE_EVERY_S = 60.0
_LARGEST_GRADIENT = 12.0


class Task(ABC):
    """What a stage contributes to the loop.

    Attributes:
        optimiser: Steps on everything that is trained.
        autocast: Number format of the products, None for float32.
        evaluations: How often `evaluate` is called, 0 for never.
    """

    optimiser: torch.optim.Optimizer
    device: torch.device
    autocast: torch.dtype | None
    evaluations: int = 0

    @abstractmethod
    def losses(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Draws a batch; its loss terms, weighted, and the names of the cases in it."""

    @abstractmethod
    def rate(self, progress: float) -> float:
        """The learning rate at a progress from 0 to 1."""

    @abstractmethod
    def checkpoint(self, step: int) -> Checkpoint:
        """The model as it stands."""

    def stepped(self) -> None:  # noqa: B027 - most stages have nothing to do
        """Called after every step."""

    def evaluate(self, step: int) -> Evaluated:
        """Measures the model on the validation cases; a stage that has none measures nothing."""
        return Evaluated(step=step, dice={}, mean=math.nan, best=False)


@dataclass
class Clock:
    """How far a run is: by steps, or by time where that ends it earlier."""

    steps: int | None
    minutes: float | None
    step: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first step began."""
        return time.monotonic() - self.began

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        by_time = 0.0 if self.minutes is None else self.elapsed_s / (60 * self.minutes)
        by_steps = 0.0 if self.steps is None else self.step / self.steps
        return min(1.0, max(by_steps, by_time))

    @property
    def remaining_s(self) -> float:
        """Seconds that are left, if it goes on at this speed."""
        progress = self.progress
        return self.elapsed_s * (1 - progress) / progress if progress > 0 else 0.0


class Meter:
    """Means of the loss terms since they were last said."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._said = -math.inf

    def add(self, terms: dict[str, Tensor]) -> None:
        """Takes the terms of a step in."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        self._count += 1

    def due(self) -> bool:
        """Whether it is time to say something."""
        return self._count > 0 and time.monotonic() - self._said > _SAY_EVERY_S

    def take(self) -> dict[str, float]:
        """The means; starts anew."""
        means = {name: value.item() / self._count for name, value in self._sums.items()}
        self._sums, self._count, self._said = {}, 0, time.monotonic()
        return means


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


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


def train(run: Run, config: PretrainConfig | FinetuneConfig, task: Task) -> Iterator[Event]:
    """Makes the steps of a run.

    Yields:
        `Stepped` about twice a second, `Evaluated`, `Saved`, and `Finished` at the end.

    Raises:
        UserError: A loss is not finite; the last checkpoint is as it was.
    """
    clock, meter, writer = Clock(config.total_steps, config.minutes), Meter(), _Writer(run, task)
    scaler = torch.amp.GradScaler(task.device.type, enabled=task.autocast == torch.float16)
    stopped = False
    while clock.progress < 1 and not (stopped := run.stop_asked()):
        terms = _step(task, scaler, clock)
        clock.step += 1
        meter.add(terms)
        if meter.due():
            yield _stepped(clock, meter, task)
        if task.evaluations and clock.progress >= (writer.evaluated + 1) / task.evaluations:
            writer.evaluated = int(clock.progress * task.evaluations)
            yield from writer.evaluate(clock.step)
        elif clock.elapsed_s - writer.saved_s > _SAVE_EVERY_S:
            yield writer.save(clock.step, clock.elapsed_s)
    if stopped and task.evaluations and clock.step:
        yield from writer.evaluate(clock.step)
    yield writer.save(clock.step, clock.elapsed_s)
    said = f"{clock.step} steps in {clock.elapsed_s:.0f} s"
    if writer.best is not None:
        said += f", best validation Dice {writer.best:.4f} at step {writer.best_step}"
    yield Finished(step=clock.step, reason="stopped" if stopped else "done", message=said + ".")


def _step(task: Task, scaler: torch.amp.GradScaler, clock: Clock) -> dict[str, Tensor]:
    for group in task.optimiser.param_groups:
        group["lr"] = task.rate(clock.progress)
    with torch.autocast(task.device.type, dtype=task.autocast, enabled=task.autocast is not None):
        terms, cases = task.losses()
    total = torch.stack([value.float() for value in terms.values()]).sum()
    if not torch.isfinite(total):
        values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
        raise UserError(
            f"The loss is not finite at step {clock.step + 1} ({values}), on {', '.join(dict.fromkeys(cases))}. "
            "Lower the learning rate, use float32, or look at these scans; the last checkpoint is usable."
        )
    task.optimiser.zero_grad(set_to_none=True)
    scaler.scale(total).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(task.optimiser)
    parameters = [parameter for group in task.optimiser.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
    scaler.step(task.optimiser)
    scaler.update()
    task.stepped()
    return terms


def _stepped(clock: Clock, meter: Meter, task: Task) -> Stepped:
    return Stepped(
        step=clock.step,
        progress=clock.progress,
        terms=meter.take(),
        rate=task.rate(clock.progress),
        remaining_s=clock.remaining_s,
    )


@dataclass
class _Writer:
    """Writes the checkpoints of a run and remembers the best."""

    run: Run
    task: Task
    best: float | None = None
    best_step: int = 0
    evaluated: int = 0
    saved_s: float = 0.0

    def save(self, step: int, elapsed_s: float) -> Saved:
        self.saved_s = elapsed_s
        return self._write("last", step)

    def evaluate(self, step: int) -> Iterator[Event]:
        found = self.task.evaluate(step)
        better = not math.isnan(found.mean) and (self.best is None or found.mean > self.best)
        yield found.model_copy(update={"best": better})
        if better:
            self.best, self.best_step = found.mean, step
            yield self._write("best", step)

    def _write(self, name: str, step: int) -> Saved:
        path = self.run.folder / "checkpoints" / f"{name}.safetensors"
        try:
            self.task.checkpoint(step).save(path)
        except OSError as error:
            raise UserError(
                f"The checkpoint {path} cannot be written: {error}. Free some space or check the folder's rights; "
                "the checkpoint before it is as it was."
            ) from error
        return Saved(step=step, path=path.relative_to(self.run.folder).as_posix(), best=name == "best")


def recorded(run: Run, events: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """Holds the run's lock, writes every event to its folder and passes it on.

    Raises:
        UserError: What went wrong, after it was written as `Failed`.
    """
    with run.locked():
        try:
            for event in events():
                run.append(event)
                yield event
        except UserError as error:
            run.append(Failed(step=_last_step(run), message=str(error)))
            raise
        except Stopped:
            event = Finished(step=0, reason="stopped", message="Stopped before the first step; there is no model.")
            run.append(event)
            yield event
        except Exception as error:
            hint = f"This is a fault of the program; {run.folder / 'log.txt'} may tell more."
            run.append(Failed(step=_last_step(run), message=f"{type(error).__name__}: {error}", hint=hint))
            raise


def _last_step(run: Run) -> int:
    last = run.last_event()
    return getattr(last, "step", 0)
