"""Networks that are not the papers' U-Net as it is: UAFS blocks, attention, and what a start decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.errors import UserError
from napari_medcl.methods import JCL, PDCR, Method, SuperCL
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Started
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOTH = pytest.mark.parametrize("dims", ["2d", "3d"])
SMALL: dict[str, Any] = {
    "width": 4, "depth": 2, "batch": 2, "steps": 3, "evaluations": 1, "precision": "float32", "device": "cpu"
}  # fmt: skip


def fine(folder: Path, run: Path, **settings: Any) -> tuple[Checkpoint, str]:
    """The model of a fine-tuning run, and what the run said of its start."""
    events = list(finetune(FinetuneConfig(folder=folder, **SMALL | settings), run))
    found = Run(run).checkpoint
    assert found is not None
    started = next(event for event in events if isinstance(event, Started))
    return Checkpoint.load(found), started.message


def pre(folder: Path, run: Path, **settings: Any) -> Checkpoint:
    """The model of a pre-training run."""
    small = {name: value for name, value in SMALL.items() if name != "evaluations"}
    list(pretrain(PretrainConfig(folder=folder, **small | settings), run))
    return Checkpoint.load(run / "checkpoints" / "last.safetensors")


@BOTH
@pytest.mark.parametrize("method", [SuperCL(stride=4), JCL(), PDCR()], ids=lambda method: method.name)
@pytest.mark.parametrize("network", ["unet", "attention"])
def test_it_pre_trains_and_fine_tunes(
    dims: str, method: Method, network: str, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    folder = blobs()
    before = pre(folder, tmp_path / "pre", dims=dims, network=network, method=method)
    assert before.network.architecture == network
    after, said = fine(folder, tmp_path / "fine", start=tmp_path / "pre", uafs=True, method=PDCR())
    assert after.network.architecture == network
    assert after.network.uafs == ("bottleneck", "dec2", "dec1")
    assert f"({', '.join(before.parts)})" in said
    name = next(name for name in before.weights if name.startswith("enc1.") and name.endswith("weight"))
    assert (after.weights[name] - before.weights[name]).abs().max() < 0.02
    image = torch.randn(1, 1, *[16] * after.network.spatial_dims)
    assert after.build()(image).isfinite().all()


def test_it_learns_what_is_easy(blobs: Callable[..., Path], tmp_path: Path) -> None:
    settings = {**SMALL, "batch": 4, "steps": 150, "rate": 0.01, "width": 8}
    config = FinetuneConfig(folder=blobs(scans=5, masks=5), dims="2d", network="attention", uafs=True, **settings)
    events = list(finetune(config, tmp_path / "run"))
    assert [event.mean for event in events if event.kind == "evaluated"][-1] > 0.85


def test_blocks_sit_where_they_are_asked_for(blobs: Callable[..., Path], tmp_path: Path) -> None:
    model, _ = fine(blobs(), tmp_path / "run", dims="2d", uafs=True, uafs_maps=("dec1", "enc2", "dec1"))
    assert model.network.uafs == ("enc2", "dec1")


def test_maps_that_the_network_has_not_are_refused_at_once(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = FinetuneConfig(folder=blobs(), dims="2d", uafs=True, uafs_maps=("dec1", "dec4"), **SMALL)
    with pytest.raises(UserError, match=r"no map 'dec4'; with 2 poolings it has enc1, enc2, bottleneck, dec2, dec1"):
        list(finetune(config, tmp_path / "run"))
    assert not (tmp_path / "run" / "split.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uafs_maps": ("dec1",)}, "uafs is off"),
        ({"uafs": True, "uafs_maps": ()}, "names no map"),
        ({"network": "transformer"}, "attention"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        FinetuneConfig(folder=tmp_path, **settings)


@pytest.mark.parametrize("asked", [{"network": "unet"}, {"width": 8}, {"depth": 1}])
def test_a_start_of_another_network_is_refused(
    asked: dict[str, Any], blobs: Callable[..., Path], tmp_path: Path
) -> None:
    folder, [(setting, value)] = blobs(), asked.items()
    pre(folder, tmp_path / "pre", dims="2d", network="attention", method=SuperCL(stride=4))
    with pytest.raises(UserError, match=rf"trained with {setting} \w+ and cannot go on with {value}\."):
        fine(folder, tmp_path / "fine", start=tmp_path / "pre", **asked)
    assert not (tmp_path / "fine" / "split.json").exists()


def test_a_fine_tuned_model_goes_on_with_its_head_and_blocks(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    first, _ = fine(folder, tmp_path / "1", dims="2d", uafs=True, rate=1e-9)
    second, said = fine(folder, tmp_path / "2", start=tmp_path / "1", uafs=True, uafs_maps=("dec1",), rate=1e-9)
    assert "dec1, blocks.dec1, head), without its UAFS blocks behind bottleneck, dec2" in said
    for name in ("head.weight", "blocks.dec1.logits.0.weight", "dec1.convs.0.weight"):
        torch.testing.assert_close(second.weights[name], first.weights[name], atol=1e-6, rtol=0)
