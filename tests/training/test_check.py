"""Settings that make no run are refused before one is begun."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.errors import UserError
from napari_medcl.methods import JCL, PDCR, SuperCL
from napari_medcl.models import NetworkSpec, build
from napari_medcl.training.check import check, check_data
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain

if TYPE_CHECKING:
    from pathlib import Path


def model(path: Path, dims: int = 2, **network: Any) -> Path:
    spec = NetworkSpec(**{"in_channels": 1, "classes": 3, "spatial_dims": dims, "width": 4, "depth": 2, **network})
    return Checkpoint(
        network=spec,
        weights=build(spec).state_dict(),
        plan=Plan(
            channels=1,
            spatial_dims=spec.spatial_dims,
            spacing=(1.0, 1.0, 1.0),
            patch=(16,) * dims,
            intensities=(Intensity(scheme="scan"),),
        ),
        classes={0: "background", 1: "one", 2: "two"},
        kind="finetune",
        parts=spec.map_names,
    ).save(path)


@pytest.mark.parametrize("dims", ["auto", "2d", "3d"])
@pytest.mark.parametrize("method", [SuperCL(), JCL(), PDCR()], ids=lambda method: method.name)
def test_defaults_pass(dims: str, method: Any, tmp_path: Path) -> None:
    check(PretrainConfig(folder=tmp_path, dims=dims, method=method))
    check(FinetuneConfig(folder=tmp_path, dims=dims, method=method if method.finetunes else None, uafs=True))


@pytest.mark.parametrize("network", ["unet", "attention"])
def test_every_method_fits_every_network(network: str, tmp_path: Path) -> None:
    for method in (SuperCL(), JCL(), PDCR()):
        check(PretrainConfig(folder=tmp_path, network=network, method=method))
    check(FinetuneConfig(folder=tmp_path, network=network, method=PDCR(), uafs=True))


def test_a_fitting_start_passes(tmp_path: Path) -> None:
    start = model(tmp_path / "start.safetensors")
    check(FinetuneConfig(folder=tmp_path, start=start, dims="2d", width=4, depth=2, method=PDCR(), uafs=True))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": JCL(blocks=4), "depth": 3}, "JCL cannot train 4 decoder blocks of a network with 3 poolings"),
        ({"method": SuperCL(map="dec1")}, "SuperCL cannot compare pixels of map 'dec1'"),
        ({"method": SuperCL(map="enc9")}, "'enc9'"),
        ({"method": PDCR(maps=("enc7",))}, "no map 'enc7'"),
        ({"method": PDCR(maps=("enc3",)), "depth": 2}, "no map 'enc3'"),
        ({"method": PDCR(pair=("enc1", "deep"))}, "no map 'deep'"),
        ({"patch": (32, 32, 32), "dims": "2d"}, "has 3 numbers; a 2D network needs 2"),
        ({"patch": (32,)}, "has 1 numbers"),
    ],
)
def test_pretraining_that_makes_no_sense(settings: dict[str, Any], expected: str, tmp_path: Path) -> None:
    config = PretrainConfig(folder=tmp_path, **settings)
    with pytest.raises(UserError, match=expected):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "start", "expected"),
    [
        ({"method": PDCR(maps=("enc7",))}, None, "no map 'enc7'"),
        ({"uafs": True, "uafs_maps": ("dec1", "enc9")}, None, "no map 'enc9'"),
        ({"uafs": True, "uafs_maps": ("dec4",), "depth": 2}, None, "no map 'dec4'"),
        ({"dims": "3d"}, {}, "trained in 2D and cannot go on in 3D"),
        ({"dims": "2d"}, {"dims": 3}, "trained in 3D and cannot go on in 2D"),
        ({"width": 8}, {}, "width 4 and cannot go on with 8"),
        ({"depth": 3}, {}, "depth 2 and cannot go on with 3"),
        ({"network": "attention"}, {}, "network unet and cannot go on with attention"),
        ({"network": "unet"}, {"architecture": "attention"}, "network attention and cannot go on with unet"),
        ({"method": PDCR(maps=("enc3",))}, {}, "no map 'enc3'"),
        ({"patch": (8, 8, 8)}, {}, "has 3 numbers; a 2D network needs 2"),
    ],
)
def test_fine_tuning_that_makes_no_sense(
    settings: dict[str, Any], start: dict[str, Any] | None, expected: str, tmp_path: Path
) -> None:
    if start is not None:
        settings = {**settings, "start": model(tmp_path / "start.safetensors", **start)}
    config = FinetuneConfig(folder=tmp_path, **settings)
    with pytest.raises(UserError, match=expected):
        finetune(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A data folder of which only the names count: four scans of two patients, one with a mask."""
    for name in ("a_1", "a_2", "b_1", "b_2"):
        path = tmp_path / "data" / "images" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no scan")
    (tmp_path / "data" / "labels").mkdir()
    (tmp_path / "data" / "labels" / "a_1.nii.gz").write_bytes(b"no mask")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"folder": "nowhere"}, "There is no folder"),
        ({"folder": "empty"}, "There are no scans in"),
        ({"split": "split.json"}, "split.json"),
        ({"groups": "(x)"}, "a_1"),
    ],
)
@pytest.mark.parametrize("stage", [pretrain, finetune], ids=["pretrain", "finetune"])
def test_data_that_make_no_sense(
    stage: Any, settings: dict[str, str], expected: str, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "split.json").write_text('{"train": ["a_1", "zebra"]}')
    given: dict[str, Any] = {"folder": scans, **settings}
    given |= {name: tmp_path / given[name] for name in ("folder", "split") if name in given}
    config = (PretrainConfig if stage is pretrain else FinetuneConfig)(**given)
    with pytest.raises(UserError, match=re.escape(expected)):
        stage(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_masks_that_are_too_few(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 labelled cases were asked for; the training side has 1"):
        finetune(FinetuneConfig(folder=scans, labelled=2), tmp_path / "run")
    (scans / "labels" / "a_1.nii.gz").unlink()
    with pytest.raises(UserError, match="None of the 4 scans"):
        finetune(FinetuneConfig(folder=scans), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_data(PretrainConfig(folder=scans))


def test_a_start_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model file or run folder"):
        check(FinetuneConfig(folder=tmp_path, start=tmp_path / "nothing"))
    (tmp_path / "bad.pth").write_text("no weights")
    with pytest.raises(UserError, match="broken"):
        check(FinetuneConfig(folder=tmp_path, start=tmp_path / "bad.pth"))


def test_the_authors_weights_are_a_start(shared: Path, tmp_path: Path) -> None:
    start = shared / "reference" / "jcl_authors_checkpoint.pth"
    check(FinetuneConfig(folder=tmp_path, start=start))
    with pytest.raises(UserError, match="trained in 2D"):
        check(FinetuneConfig(folder=tmp_path, start=start, dims="3d"))


def test_it_leaves_the_random_numbers_as_they_are(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    check(PretrainConfig(folder=tmp_path))
    assert torch.equal(torch.get_rng_state(), state)
