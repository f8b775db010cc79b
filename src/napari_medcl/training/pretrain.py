"""Pre-training: a network learns from scans without masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.batch import Item, Loader
from napari_medcl.data.plan import make_plan
from napari_medcl.device import precision, resolve_device
from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.models import build
from napari_medcl.training.check import check
from napari_medcl.training.dataset import divide, prepared, read_cases, read_volumes, unlabelled_item
from napari_medcl.training.environment import environment
from napari_medcl.training.loop import Task, cosine, recorded, started, train
from napari_medcl.training.network import plain_network
from napari_medcl.training.run import Run, create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_medcl.data.plan import Plan
    from napari_medcl.training.config import PretrainConfig
    from napari_medcl.training.events import Event

_BATCH = {2: 16, 3: 4}


def pretrain(config: PretrainConfig, folder: Path) -> Iterator[Event]:
    """Pre-trains in a run folder.

    Args:
        config: What to do.
        folder: The run folder; made where it is missing.

    Returns:
        The run's events, which also stand in the folder. The run goes on as they are asked for.

    Raises:
        UserError: Something is wrong with the data, a setting or the folder; says what to do. Where the settings alone
            tell, at once, and no folder is made.
    """
    check(config)
    run = create("pretrain", config.to_json(), folder)
    return recorded(run, lambda: _events(run, config))


def _events(run: Run, config: PretrainConfig) -> Iterator[Event]:
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    cases = read_cases(config)
    sides = divide(config, cases)
    chosen = (*sides.train, *sides.unlabelled)
    if not chosen:
        raise UserError(
            f"{config.folder} has no scans to pre-train on: all of them are set aside for validation or test."
        )
    plan, depth = make_plan(read_volumes(chosen, config.channel), config.dims, config.patch, config.depth)
    config.method.hands_on(plain_network(config, plan, depth, device))  # refuses what does not fit, before the work
    needs = config.method.needs(plan.spatial_dims)
    items = yield from prepared(
        "superpixels of scan" if needs.superpixels else "scan",
        chosen,
        lambda case: unlabelled_item(case, plan, needs.superpixels, config.channel, run.stop_asked),
        run.stop_asked,
    )
    write_json(run.folder / "split.json", {"seen": [case.id for case in chosen], **sides.to_json()})
    provenance = environment(config, device, cases.fingerprint())
    write_json(run.folder / "environment.json", provenance)
    task = _Pretraining(config, plan, depth, items, device, provenance)
    message = f"{config.method.name} on {len(items)} scans, {plan.in_words()}"
    yield started(run, config, task, len(items), message)
    yield from train(run, config, task)


class _Pretraining(Task):
    def __init__(
        self,
        config: PretrainConfig,
        plan: Plan,
        depth: int,
        items: list[Item],
        device: torch.device,
        provenance: dict[str, Any],
    ) -> None:
        self._config, self._plan, self._provenance = config, plan, provenance
        self.device, self.autocast = device, precision(device, config.precision)
        self.spec = plain_network(config, plan, depth, device)
        self._net = build(self.spec).to(device)
        self._module = config.method.pretraining(self._net).to(device)
        self.optimiser = torch.optim.SGD(self._module.parameters(), lr=config.rate, momentum=0.9, weight_decay=1e-5)
        needs = config.method.needs(plan.spatial_dims)
        self._loader = Loader(items, plan, needs, config.batch or _BATCH[plan.spatial_dims], device, config.seed)

    def losses(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        batch = self._loader.draw()
        return self._module(batch), batch.cases

    def rate(self, progress: float) -> float:
        return self._config.rate * cosine(progress)

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
