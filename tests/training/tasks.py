"""A task that takes no time to learn, for whoever tests the loop round it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_medcl.data.batch import Batch
from napari_medcl.training.events import Evaluated
from napari_medcl.training.loop import Loop, Task, started, warmed_up
from napari_medcl.training.recorded import recorded, taken_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_medcl.training.config import PretrainConfig
    from napari_medcl.training.events import Event
    from napari_medcl.training.run import Run


class Number:
    """Stands for a checkpoint."""

    def __init__(self, value: float) -> None:
        self.value = value

    def save(self, path: Path) -> None:
        path.write_text(str(self.value))


class Falling(Task):
    """Learns that a factor is 3, from crops of random brightness.

    Attributes:
        rates: The learning rate of every step.
        sizes: How many crops each loss was taken of.
    """

    def __init__(self, crops: int = 8, evaluations: int = 4) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.optimiser = torch.optim.SGD([self.weight], lr=1)
        self.device, self.autocast, self.evaluations = torch.device("cpu"), None, evaluations
        self.rates: list[float] = []
        self.sizes: list[int] = []
        self._crops, self._random = crops, torch.Generator().manual_seed(0)

    def draw(self) -> Batch:
        self.rates.append(self.optimiser.param_groups[0]["lr"])
        views = torch.rand(self._crops, 1, generator=self._random) + 0.5
        return Batch(fixed=(views,), cases=tuple(f"case_{len(self.rates)}" for _ in views))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.sizes.append(len(batch.cases))
        return {"square": ((self.weight - 3) * batch.fixed[0]).square().mean()}

    def rate(self, progress: float) -> float:
        return 0.1 * warmed_up(progress)

    def checkpoint(self, step: int) -> Number:  # type: ignore[override]
        return Number(self.weight.item())

    def evaluate(self, step: int) -> Evaluated:
        return Evaluated(step=step, dice={}, mean=-abs(self.weight.item() - 3), best=False)

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight, "random": self._random.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.weight.copy_(state["weight"])
        self._random.set_state(state["random"])


def going_on(run: Run, config: PretrainConfig, task: Task) -> Iterator[Event]:
    """A run of the task, which goes on where its folder holds a state."""

    def events() -> Iterator[Event]:
        state = yield from taken_up(run)
        yield started(run, config, task, 1, "go")
        yield from Loop(run, config, task, state)

    return recorded(run, events, None)
