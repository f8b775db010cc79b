"""Small runs of every kind, that are interrupted and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.methods import JCL, PDCR, SuperCL
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Evaluated, Stepped
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_medcl.training.events import Event
    from napari_medcl.training.run import Run

SMALL: dict[str, Any] = {"width": 4, "batch": 4, "steps": 12, "precision": "float32", "device": "cpu"}
CONFIGS: dict[str, Callable[[Path], PretrainConfig | FinetuneConfig]] = {
    "supercl": lambda folder: PretrainConfig(folder=folder, dims="2d", method=SuperCL(), **SMALL),
    "jcl": lambda folder: PretrainConfig(folder=folder, dims="2d", method=JCL(), **SMALL),
    "plain": lambda folder: FinetuneConfig(folder=folder, dims="2d", val=0.25, evaluations=3, **SMALL),
    "pdcr": lambda folder: FinetuneConfig(folder=folder, dims="3d", uafs=True, method=PDCR(), **SMALL),
}


def begin(config: PretrainConfig | FinetuneConfig, folder: Path) -> Iterator[Event]:
    return pretrain(config, folder) if isinstance(config, PretrainConfig) else finetune(config, folder)


def end_at(events: Iterator[Event], run: Run, step: int, how: str) -> list[Event]:
    """Lets a run go until it has said a step, then pauses it, stops it, or leaves it as a kill would."""
    said = []
    for event in events:
        said.append(event)
        if isinstance(event, Stepped) and event.step >= step and not run.asked():
            if how == "kill":
                events.close()  # type: ignore[attr-defined]
                break
            run.ask(how)  # type: ignore[arg-type]
    return said


def numbers(events: list[Event]) -> dict[tuple[str, int], Any]:
    """The losses and scores that count: of what was said of a step twice, the last."""
    found: dict[tuple[str, int], Any] = {}
    for event in events:
        if isinstance(event, Stepped):
            found["loss", event.step] = event.terms
        if isinstance(event, Evaluated):
            found["dice", event.step] = event.dice
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    return Checkpoint.load(run / "checkpoints" / "last.safetensors").weights


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same weights."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
