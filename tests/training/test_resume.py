"""Runs that are interrupted, extended and repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.methods import JCL, PDCR, SuperCL
from napari_medcl.training import loop
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Evaluated, Resumed, Stepped
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_medcl.training.events import Event

SMALL: dict[str, Any] = {"width": 4, "batch": 4, "steps": 12, "precision": "float32", "device": "cpu"}


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


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


CONFIGS = {
    "supercl": lambda folder: PretrainConfig(folder=folder, dims="2d", method=SuperCL(), **SMALL),
    "jcl": lambda folder: PretrainConfig(folder=folder, dims="2d", method=JCL(), **SMALL),
    "plain": lambda folder: FinetuneConfig(folder=folder, dims="2d", val=0.25, evaluations=3, **SMALL),
    "pdcr": lambda folder: FinetuneConfig(folder=folder, dims="3d", uafs=True, method=PDCR(), **SMALL),
}


@pytest.mark.parametrize("how", ["pause", "stop", "kill"])
@pytest.mark.parametrize("what", CONFIGS)
def test_a_run_that_was_interrupted_twice_ends_with_the_numbers_of_one_that_was_not(
    what: str, how: str, blobs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIGS[what](blobs())
    whole = list(begin(config, tmp_path / "whole"))
    if how == "kill":
        monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)  # a state after every step, of which the last is then missing
    run = Run(tmp_path / "run")
    end_at(begin(config, run.folder), run, 4, how)
    assert run.state == {"pause": "paused", "stop": "stopped", "kill": "dead"}[how]
    torch.manual_seed(99)
    end_at(resume(run.folder), run, 9, how)
    torch.manual_seed(98)
    last = list(resume(run.folder))
    assert isinstance(last[0], Resumed)
    assert 8 <= last[0].step < 12
    assert run.state == "finished"
    assert same(weights(run.folder), weights(tmp_path / "whole"))
    interrupted = numbers(run.events()[0])
    assert {key: interrupted[key] for key in numbers(whole)} == numbers(whole)
