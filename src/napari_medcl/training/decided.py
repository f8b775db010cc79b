"""What a fine-tuning run learns from, and which network it trains: decided once, and the same when it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medcl.data.plan import Plan, make_plan
from napari_medcl.models import NetworkSpec
from napari_medcl.training import dataset
from napari_medcl.training.network import plain_network, with_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.cases import Case
    from napari_medcl.training.config import FinetuneConfig
    from napari_medcl.training.run import Run


@dataclass(frozen=True)
class Decided:
    """What a run learns from, and what it trains.

    Attributes:
        chosen: The cases whose masks teach.
        sides: Who stands where.
        plan: How a scan becomes the network's input.
        spec: The network.
        classes: Label value in the masks to name, background first.
        notes: What to tell the user about it.
    """

    chosen: tuple[Case, ...]
    sides: dataset.Sides
    plan: Plan
    spec: NetworkSpec
    classes: dict[int, str]
    notes: list[str]


def decide(
    run: Run, config: FinetuneConfig, device: torch.device, start: Checkpoint | None, state: dict[str, Any] | None
) -> Decided:
    """Decides it from the data and the start, or reads in split.json and state what was decided.

    Raises:
        UserError: The data, the start and the settings do not fit each other.
    """
    cases = dataset.read_cases(run, config)
    chosen, sides = dataset.read_sides(run, cases) or dataset.choose(config, cases)
    classes, notes = dataset.find_classes(cases.names, [case.truth() for case in chosen])
    if state is None:
        plan, depth = _plan(config, chosen, start)
        spec = with_blocks(plain_network(config, plan, depth, device, len(classes), start), config)
    else:
        classes = {int(value): name for value, name in state["task"]["classes"].items()}
        plan = Plan.model_validate(state["task"]["plan"])
        spec = NetworkSpec.model_validate(state["task"]["network"])
    if config.method is not None:
        config.method.maps_read(spec)  # refuses what does not fit, before the work
    return Decided(chosen, sides, plan, spec, classes, notes)


def _plan(config: FinetuneConfig, chosen: Sequence[Case], start: Checkpoint | None) -> tuple[Plan, int]:
    """The start's plan where there is one: its weights know this spacing and these intensities."""
    if start is None:
        return make_plan(dataset.read_volumes(chosen, config.channel), config.dims, config.patch, config.depth)
    if set(start.plan.spacing) == {None}:  # weights that say nothing of crops
        own, _ = make_plan(dataset.read_volumes(chosen, config.channel), "2d", config.patch, start.network.depth)
        kept = start.plan.model_dump(include={"channels", "spacing", "intensities"})
        return Plan(**{**own.model_dump(), **kept}), start.network.depth
    patch = config.patch or start.plan.patch
    return Plan(**{**start.plan.model_dump(), "patch": patch}), start.network.depth
