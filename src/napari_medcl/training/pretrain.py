"""Pre-training: a network learns from scans without masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.loader import Item, Loader
from napari_medcl.data.plan import Plan, make_plan
from napari_medcl.data.views import CHANGED
from napari_medcl.device import device_name, precision, resolve_device
from napari_medcl.models import NetworkSpec, build
from napari_medcl.models.layers import over_processes
from napari_medcl.training.check import begun
from napari_medcl.training.dataset import (
    Sides,
    choose,
    keep,
    read_cases,
    read_sides,
    read_volumes,
)
from napari_medcl.training.environment import environment
from napari_medcl.training.items import prepared, unlabelled_item
from napari_medcl.training.loop import Loop, Task, started, warmed_up
from napari_medcl.training.network import plain_network
from napari_medcl.training.processes import Processes, join
from napari_medcl.training.recorded import recorded, taken_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from napari_medcl.data.batch import Batch
    from napari_medcl.data.cases import Case
    from napari_medcl.data.views import Part
    from napari_medcl.training.config import PretrainConfig
    from napari_medcl.training.events import Event
    from napari_medcl.training.run import Run

_BATCH = {2: 16, 3: 4}


def pretrain(config: PretrainConfig, folder: Path, *, queue: bool = False) -> Iterator[Event]:
    """Pre-trains in a run folder.

    Args:
        config: What to do.
        folder: The run folder; made where it is missing.
        queue: Whether to wait until the runs that were started before on the same device have ended.

    Returns:
        The run's events, which also stand in the folder. The run goes on as they are asked for.

    Raises:
        UserError: Something is wrong with the data, a setting or the folder; says what to do. Where the settings alone
            tell, at once, and no folder is made.
    """
    processes = join(config.device)
    run = processes.lead(lambda: begun("pretrain", config, folder))
    return pretraining(run, config, processes, queue=queue)


def pretraining(run: Run, config: PretrainConfig, processes: Processes, *, queue: bool) -> Iterator[Event]:
    """The events of a run that begins, or goes on where its folder holds a state."""
    device = (lambda: device_name(resolve_device(config.device))) if queue else None
    return recorded(run, lambda: _events(run, config, processes), device, processes)


def _events(run: Run, config: PretrainConfig, processes: Processes) -> Iterator[Event]:
    state = yield from taken_up(run, processes)
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    chosen, sides, plan, spec = processes.lead(lambda: _decided(run, config, device, state))
    needs = config.method.needs(plan.spatial_dims)
    items, digests = yield from prepared(
        "superpixels of scan" if needs.superpixels else "scan",
        chosen,
        lambda case: unlabelled_item(case, plan, needs.superpixels, config.channel, run.end_asked),
        run.end_asked,
        processes,
    )
    provenance = environment(config, device, digests, processes.count)
    notes = processes.lead(lambda: keep(run, chosen, sides, digests, provenance))
    task = _Pretraining(config, spec, plan, items, device, provenance, processes.part)
    told = f"{config.method.name} on {len(items)} scans, {plan.in_words()}{processes.in_words}"
    yield started(run, config, task, len(items), ". ".join([told, *notes]))
    yield from Loop(run, config, task, state, processes)


def _decided(
    run: Run, config: PretrainConfig, device: torch.device, state: dict[str, Any] | None
) -> tuple[tuple[Case, ...], Sides, Plan, NetworkSpec]:
    """Which scans, how they become the network's input, and which network."""
    cases = read_cases(run, config)
    chosen, sides = read_sides(run, cases) or choose(config, cases)
    plan, spec = _network(config, chosen, device, state)
    config.method.hands_on(spec)  # refuses what does not fit, before the work
    return chosen, sides, plan, spec


def _network(
    config: PretrainConfig, chosen: Sequence[Case], device: torch.device, state: dict[str, Any] | None
) -> tuple[Plan, NetworkSpec]:
    """How scans become the network's input, and which network: as decided when the run began."""
    if state is not None:
        return Plan.model_validate(state["task"]["plan"]), NetworkSpec.model_validate(state["task"]["network"])
    plan, depth = make_plan(read_volumes(chosen, config.channel), config.dims, config.patch, config.depth)
    return plan, plain_network(config, plan, depth, device)


class _Pretraining(Task):
    smallest = 2

    def __init__(
        self,
        config: PretrainConfig,
        spec: NetworkSpec,
        plan: Plan,
        items: list[Item],
        device: torch.device,
        provenance: dict[str, Any],
        part: Part,
    ) -> None:
        self._config, self._plan, self._provenance = config, plan, provenance
        self.device, self.autocast = device, precision(device, config.precision)
        self.spec = spec
        self._net = build(spec).to(device)
        self._module = config.method.pretraining(self._net).to(device)
        over_processes(self._module)
        self.optimiser = torch.optim.SGD(self._module.parameters(), lr=config.rate, momentum=0.9, weight_decay=1e-5)
        needs = config.method.needs(plan.spatial_dims)
        size = config.batch or _BATCH[plan.spatial_dims]
        appearance = CHANGED.times(config.changes)
        self._loader = Loader(
            items, plan, needs, size, device, config.seed, appearance=appearance, part=part,
            timed=lambda name: self.timed(name),
        )  # fmt: skip
        self.epoch = self._loader.epoch

    def draw(self) -> Batch:
        return self._loader.draw()

    def layers(self) -> Iterator[nn.Module]:
        """Stages and heads; the whole of them computes the losses, too."""
        return (layer for whole in (self._net, self._module) for layer in whole.modules() if layer is not whole)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return cast("dict[str, Tensor]", self._module(batch))

    def rate(self, progress: float) -> float:
        return self._config.rate * warmed_up(progress)

    def checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(
            network=self.spec,
            weights=self._net.state_dict(),
            plan=self._plan,
            classes={},
            kind="pretrain",
            method=self._config.method.model_dump(mode="json"),
            parts=self._config.method.hands_on(self.spec),
            provenance={**self._provenance, "step": step},
        )

    def state(self) -> dict[str, Any]:
        return {
            "plan": self._plan.model_dump(mode="json"),
            "network": self.spec.model_dump(mode="json"),
            "weights": self._net.state_dict(),
            "module": self._module.state_dict(),
            "loader": self._loader.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._net.load_state_dict(state["weights"])
        self._module.load_state_dict(state["module"])
        self._loader.restore(state["loader"])
