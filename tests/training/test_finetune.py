"""Fine-tuning, on scans that are made up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data import views
from napari_medcl.errors import UserError
from napari_medcl.methods import PDCR, SuperCL
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

SMALL = {"width": 4, "batch": 4, "steps": 4, "precision": "float32", "device": "cpu"}


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_it_learns_what_is_easy(dims: str, blobs: Callable[..., Path], tmp_path: Path) -> None:
    settings = {**SMALL, "steps": 150, "rate": 0.01, "width": 8, "evaluations": 3}
    config = FinetuneConfig(folder=blobs(scans=5, masks=5), dims=dims, **settings)
    events = list(finetune(config, tmp_path / "run"))
    measured = [event for event in events if event.kind == "evaluated"]
    assert len(measured) == 3
    assert measured[-1].mean > 0.85
    assert set(measured[-1].dice) == {"class 1", "class 2"}
    model = Checkpoint.load(Run(tmp_path / "run").checkpoint)
    assert model.classes == {0: "background", 1: "class 1", 2: "class 2"}
    sides = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(sides["learned"]) == 4
    assert len(sides["val"]) == 1


@pytest.mark.parametrize(
    ("dims", "rotation", "turned", "any_angle"),
    [("2d", None, 30, 0.5), ("3d", None, 20, 0), ("2d", 30, 30, 0), ("2d", 180, 180, 0), ("3d", 0, 0, 0)],
)
def test_crops_are_turned_as_far_as_the_settings_say(
    dims: str,
    rotation: float | None,
    turned: float,
    any_angle: float,
    blobs: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = set()

    def grid(*args: Any) -> Tensor:
        geometry = next(arg for arg in args if isinstance(arg, views.Geometry))
        asked.add((geometry.rotation, geometry.any_angle))
        return sampling_grid(*args)

    sampling_grid = views.sampling_grid
    monkeypatch.setattr(views, "sampling_grid", grid)
    config = FinetuneConfig(folder=blobs(), dims=dims, rotation=rotation, **{**SMALL, "steps": 1})
    list(finetune(config, tmp_path / "run"))
    assert asked == {(turned, any_angle)}


def test_it_goes_on_from_pretraining(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    list(pretrain(PretrainConfig(folder=folder, dims="2d", **SMALL), tmp_path / "pre"))
    config = FinetuneConfig(folder=folder, start=tmp_path / "pre", **SMALL)
    events = list(finetune(config, tmp_path / "run"))
    assert "starting from" in events[1].message
    before, after = (Checkpoint.load(Run(tmp_path / name).checkpoint) for name in ("pre", "run"))
    assert after.plan.spacing == before.plan.spacing
    assert after.network.spatial_dims == 2
    assert after.method is None
    assert after.start == before.origin
    assert after.origin.in_words() == "pre-trained with JCL, then fine-tuned"
    change = (after.weights["enc1.0.weight"] - before.weights["enc1.0.weight"]).abs().max()
    assert change < 0.02


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_pdcr_teaches_beside_the_masks(dims: str, blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    list(pretrain(PretrainConfig(folder=folder, dims=dims, method=PDCR(windows=(5,)), **SMALL), tmp_path / "pre"))
    settings = {**SMALL, "steps": 60, "rate": 0.01, "width": 8, "evaluations": 2}
    config = FinetuneConfig(folder=folder, dims=dims, method=PDCR(windows=(5, 7), encoder=1), **settings)
    events = list(finetune(config, tmp_path / "run"))
    said = [event.terms for event in events if event.kind == "stepped"]
    maps = PDCR().maps_read(Checkpoint.load(Run(tmp_path / "run").checkpoint).network)
    assert set(said[0]) == {"cross-entropy", "dice", "pdcr across", *(f"pdcr {name}" for name in maps)}
    assert len(said) == 60
    for name in ("cross-entropy", "dice", f"pdcr {maps[0]}"):
        assert sum(terms[name] for terms in said[-10:]) < sum(terms[name] for terms in said[:10])
    again = FinetuneConfig(folder=folder, start=tmp_path / "pre", method=PDCR(), **SMALL)
    list(finetune(again, tmp_path / "again"))
    made = {name: Checkpoint.load(Run(tmp_path / name).checkpoint) for name in ("run", "again")}
    assert made["run"].method == config.method.model_dump(mode="json")
    assert made["run"].origin.in_words() == "fine-tuned with PDCR"
    assert made["again"].origin.in_words() == "pre-trained with PDCR, then fine-tuned with PDCR"
    assert not made["run"].build().training


def test_the_weights_beside_the_network_stay_behind(blobs: Callable[..., Path], tmp_path: Path) -> None:
    """The convolutions that bring two maps together are no part of the model."""
    plain, more = (
        FinetuneConfig(folder=blobs() if method is None else tmp_path / "blobs", dims="2d", method=method, **SMALL)
        for method in (None, PDCR())
    )
    for name, config in (("plain", plain), ("more", more)):
        list(finetune(config, tmp_path / name))
    plain, more = (Checkpoint.load(Run(tmp_path / name).checkpoint) for name in ("plain", "more"))
    assert plain.weights.keys() == more.weights.keys()
    assert any(not torch.equal(plain.weights[name], more.weights[name]) for name in plain.weights)


def test_a_method_that_does_not_fit_is_refused_before_the_work(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    with pytest.raises(ValidationError, match=r"SuperCL learns without masks only\. Pre-train with it"):
        FinetuneConfig(folder=folder, method=SuperCL())
    config = FinetuneConfig(folder=folder, dims="2d", method=PDCR(maps=("enc4",)), **SMALL)
    with pytest.raises(UserError, match="no map 'enc4'"):
        list(finetune(config, tmp_path / "run"))
    assert not any(event.kind == "started" for event in Run(tmp_path / "run").events()[0])


def test_a_start_of_other_dimensions_is_refused(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    list(pretrain(PretrainConfig(folder=folder, dims="2d", **SMALL), tmp_path / "pre"))
    with pytest.raises(UserError, match=r"trained in 2D"):
        list(finetune(FinetuneConfig(folder=folder, dims="3d", start=tmp_path / "pre", **SMALL), tmp_path / "run"))


def test_one_patient_is_judged_by_slices_and_that_is_said(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = FinetuneConfig(folder=blobs(scans=1, masks=1), dims="2d", **SMALL)
    events = list(finetune(config, tmp_path / "run"))
    assert "too optimistic" in events[1].message


@pytest.mark.parametrize("slices", [1, 2])
def test_one_or_two_annotated_slices_are_enough(slices: int, blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=1, masks=1)
    path = folder / "labelsTr" / "case_0.nii.gz"
    mask = nib.load(path)
    array = np.asarray(mask.dataobj).copy()
    filled = np.flatnonzero(array.any((0, 1)))
    array[:, :, filled[slices:]] = 0
    nib.save(nib.Nifti1Image(array, mask.affine), path)
    events = list(finetune(FinetuneConfig(folder=folder, dims="2d", annotated="nonempty", **SMALL), tmp_path / "run"))
    assert events[-1].kind == "finished"
    assert Run(tmp_path / "run").checkpoint is not None
    assert any(event.kind == "evaluated" for event in events) == (slices > 1)
    assert ("nothing measures it" in events[1].message) == (slices == 1)


@pytest.mark.parametrize(("annotated", "chooses"), [(8, False), (30, True)])
def test_a_few_slices_measure_the_model_and_the_last_one_is_the_result(
    annotated: int, chooses: bool, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    folder = blobs(scans=1, masks=1, shape=(16, 16, annotated))
    events = list(finetune(FinetuneConfig(folder=folder, dims="2d", **SMALL), tmp_path / "run"))
    measured = [event for event in events if event.kind == "evaluated"]
    assert measured
    assert any(event.best for event in measured) == chooses
    assert ("the last model is the result" in events[1].message) != chooses
    name = "best" if chooses else "last"
    assert Run(tmp_path / "run").checkpoint == Run(tmp_path / "run").checkpoints / f"{name}.safetensors"


def test_a_mask_of_another_shape_is_refused_by_name(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    wrong = folder / "labelsTr" / "case_2.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4)), wrong)
    with pytest.raises(UserError, match=r"case_2"):
        list(finetune(FinetuneConfig(folder=folder, **SMALL), tmp_path / "run"))


def test_a_class_that_never_occurs_is_said(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs()
    names = {"background": 0, "ball": 1, "hole": 2, "spleen": 3}
    (folder / "dataset.json").write_text(json.dumps({"labels": names}))
    events = list(finetune(FinetuneConfig(folder=folder, dims="2d", **SMALL), tmp_path / "run"))
    assert "spleen" in events[1].message
    assert Checkpoint.load(Run(tmp_path / "run").checkpoint).classes == {0: "background", 1: "ball", 2: "hole"}
