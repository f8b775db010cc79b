"""Pre-training, on scans that are made up."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.errors import UserError
from napari_medcl.methods import SuperCL
from napari_medcl.training.config import PretrainConfig
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = {"width": 4, "batch": 4, "steps": 3, "precision": "float32", "device": "cpu"}


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_a_run_leaves_all_that_is_needed_to_go_on_and_to_repeat_it(
    dims: str, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    config = PretrainConfig(folder=blobs(masks=0), dims=dims, **SMALL)
    events = list(pretrain(config, tmp_path / "run"))
    assert [event.kind for event in events][:3] == ["preparing", "started", "stepped"]
    assert set(events[2].terms) == {"instance", "dense", "equivariance"}
    run = Run(tmp_path / "run")
    assert run.state == "finished"
    assert [event.kind for event in run.events()[0]] == [event.kind for event in events]
    assert PretrainConfig(**{k: v for k, v in run.config.items() if k != "stage"}) == config
    assert len(json.loads((run.folder / "split.json").read_text())["learned"]) == 4
    assert json.loads((run.folder / "environment.json").read_text())["versions"]["torch"] == version("torch")
    model = Checkpoint.load(run.checkpoint)
    assert model.kind == "pretrain"
    assert model.method["name"] == "jcl"
    assert model.parts[0] == "enc1"
    assert model.parts[-1].startswith("dec")
    assert model.network.spatial_dims == int(dims[0])


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    blobs: Callable[..., Path], tmp_path: Path
) -> None:
    folder, weights = blobs(masks=0), []
    for number, seed in enumerate((5, 5, 6)):
        config = PretrainConfig(folder=folder, dims="2d", seed=seed, **SMALL)
        list(pretrain(config, tmp_path / str(number)))
        weights.append(Checkpoint.load(Run(tmp_path / str(number)).checkpoint).weights)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_losses_fall(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = PretrainConfig(folder=blobs(masks=0), dims="2d", rate=0.05, **{**SMALL, "steps": 60, "batch": 8})
    events = [event for event in pretrain(config, tmp_path / "run") if event.kind == "stepped"]
    totals = [sum(event.terms.values()) for event in events]
    assert len(totals) >= 2
    assert totals[-1] < totals[0]


def test_test_patients_are_not_seen(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = PretrainConfig(folder=blobs(), dims="2d", val=0, test=0.5, **SMALL)
    list(pretrain(config, tmp_path / "run"))
    sides = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(sides["test"]) == 2
    assert not set(sides["learned"]) & set(sides["test"])


def test_the_baselines_are_settings(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = PretrainConfig(
        folder=blobs(masks=0), dims="2d", method=SuperCL(positives="simclr", intra=0, inter=0), **SMALL
    )
    events = list(pretrain(config, tmp_path / "run"))
    assert set(events[2].terms) == {"instance"}


def test_what_is_wrong_is_said_and_written_down(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(masks=0)
    (folder / "imagesTr" / "broken.nii.gz").write_bytes(b"no scan")
    with pytest.raises(UserError, match="broken"):
        list(pretrain(PretrainConfig(folder=folder, **SMALL), tmp_path / "run"))
    assert "broken" in Run(tmp_path / "run").message
    if not torch.cuda.is_available():
        (folder / "imagesTr" / "broken.nii.gz").unlink()
        config = PretrainConfig(folder=folder, **{**SMALL, "device": "cuda"})
        with pytest.raises(UserError, match=r"(?i)cuda"):
            list(pretrain(config, tmp_path / "other"))
