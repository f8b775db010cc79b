from __future__ import annotations

import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.data.cases import find_cases
from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.evaluate import evaluate
from napari_medcl.inference.predict import Predictor

from .models import by_intensity, checkpoint, replace_network

if TYPE_CHECKING:
    from pathlib import Path

AFFINE = np.diag([-1.0, 0.8, 2.5, 1.0])
SHAPE = (20, 18, 8)


def truth(shift: int = 0) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[3 + shift : 9 + shift, 4:12, 2:6] = 1
    array[10 + shift : 15 + shift, 4:12, 2:6] = 2
    return array


def save(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases whose intensities are their labels; one without a mask."""
    data = tmp_path / "data"
    for index, name in enumerate(("p1_a", "p1_b", "p2_a", "p3_a")):
        save(truth(index).astype(np.float32), data / "imagesTr" / f"{name}.nii.gz")
        if name != "p3_a":
            save(truth(index), data / "labelsTr" / f"{name}.nii.gz")
    labels = {"background": 0, "head": 1, "tail": 2}
    (data / "dataset.json").write_text(
        json.dumps({"name": "three", "labels": labels, "channel_names": {"0": "MR"}, "file_ending": ".nii.gz"})
    )
    return data


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    replace_network(monkeypatch, by_intensity)
    return Predictor(checkpoint((16, 16, 8)), precision="float32")


def test_a_perfect_model_has_perfect_scores(folder: Path, model: Predictor) -> None:
    said: list[float] = []
    table = evaluate(model, find_cases(folder, groups=r"(p\d)"), progress=said.append)
    assert [(row.case, row.group, row.label) for row in table.rows] == [
        *[("p1_a", "p1", 1), ("p1_a", "p1", 2), ("p1_b", "p1", 1), ("p1_b", "p1", 2)],
        *[("p2_a", "p2", 1), ("p2_a", "p2", 2)],
    ]
    assert {row.name for row in table.rows} == {"anterior", "posterior"}, "the model knows the names"
    for row in table.rows:
        assert (row.scores.status, row.scores.dice, row.scores.hd95_mm) == ("ok", 1, 0)
        assert row.scores.truth_ml == pytest.approx((6 if row.label == 1 else 5) * 8 * 4 * 2 / 1000)
    assert table.summary().dice == 1
    assert (said[0], said[-1]) == (0, 1)
    assert said == sorted(said)


def test_some_cases_can_be_chosen(folder: Path, model: Predictor) -> None:
    table = evaluate(model, find_cases(folder), ["p2_a"])
    assert {row.case for row in table.rows} == {"p2_a"}


def test_a_case_without_a_mask_cannot_be_chosen(folder: Path, model: Predictor) -> None:
    with pytest.raises(UserError, match=r"p3_a.*no mask"):
        evaluate(model, find_cases(folder), ["p2_a", "p3_a"])


def test_a_stop_is_obeyed(folder: Path, model: Predictor) -> None:
    asked = iter([False, False, False, False, False, True])
    with pytest.raises(Stopped):
        evaluate(model, find_cases(folder), stop=lambda: next(asked))


def test_a_class_that_the_model_does_not_know_counts_as_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_network(monkeypatch, lambda image: by_intensity(image)[:, :2])
    ignorant = Predictor(checkpoint((16, 16, 8), {0: "background", 1: "head"}), precision="float32")
    table = evaluate(ignorant, find_cases(folder), ["p1_a"])
    assert [(row.name, row.scores.status) for row in table.rows] == [("head", "ok"), ("tail", "empty prediction")]
    assert table.summary().dice < 0.5


def test_a_folder_of_masks_is_compared_in_millimetres(folder: Path, tmp_path: Path) -> None:
    moved = np.roll(truth(), 1, 2)
    save(moved, tmp_path / "masks" / "p1_a.nii.gz")
    save(np.zeros(SHAPE, np.uint8), tmp_path / "masks" / "p1_b_seg.nii")
    save(truth(), tmp_path / "masks" / "somebody_else.nii.gz")
    (tmp_path / "masks" / "p2_a.txt").write_text("no mask")
    table = evaluate(tmp_path / "masks", find_cases(folder))
    status = {(row.case, row.name): row.scores.status for row in table.rows}
    assert status == {
        ("p1_a", "head"): "ok",
        ("p1_a", "tail"): "ok",
        ("p1_b", "head"): "empty prediction",
        ("p1_b", "tail"): "empty prediction",
        ("p2_a", "head"): "no prediction",
        ("p2_a", "tail"): "no prediction",
    }
    first, missing = table.rows[0].scores, table.rows[-1].scores
    assert first.dice == pytest.approx(0.75)
    assert first.hd95_mm == pytest.approx(2.5)
    assert missing.truth_ml > 0
    assert np.isnan([missing.dice, missing.prediction_ml]).all()
    summary = table.summary()
    assert [entry.empty for entry in summary.classes] == [1, 1]
    assert [entry.missing for entry in summary.classes] == [1, 1]
    assert summary.dice == pytest.approx((np.mean([row.scores.dice for row in table.rows[:2]]) + 0) / 2)


def test_a_mask_stored_in_another_order_is_compared_at_the_same_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    turned = nib.Nifti1Image(truth(), AFFINE).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(turned, tmp_path / "masks" / "p1_a.nii.gz")
    table = evaluate(str(tmp_path / "masks"), find_cases(folder), ["p1_a"])
    assert [row.scores.dice for row in table.rows] == [1, 1]


@pytest.mark.parametrize("wrong", ["shape", "spacing", "origin", "tilt"])
def test_a_mask_on_another_grid_is_refused_with_both_files(folder: Path, tmp_path: Path, wrong: str) -> None:
    array, affine = truth(), AFFINE.copy()
    if wrong == "shape":
        array = array[:-1]
    elif wrong == "spacing":
        affine[2, 2] = 2.0
    elif wrong == "origin":
        affine[0, 3] = 4
    else:
        affine[0, 1] = 0.2
    save(array, tmp_path / "masks" / "p1_a.nii.gz", affine)
    with pytest.raises(UserError, match=r"save it again with the scan's grid and header") as caught:
        evaluate(tmp_path / "masks", find_cases(folder), ["p1_a"])
    assert str(tmp_path / "masks" / "p1_a.nii.gz") in str(caught.value)
    assert str(folder / "imagesTr" / "p1_a.nii.gz") in str(caught.value)


def test_rounding_in_a_header_is_no_other_grid(folder: Path, tmp_path: Path) -> None:
    save(truth(), tmp_path / "masks" / "p1_a.nii.gz", AFFINE + np.diag([1e-4, 1e-5, 1e-4, 0]))
    assert evaluate(tmp_path / "masks", find_cases(folder), ["p1_a"]).summary().dice == 1


def test_two_masks_of_one_case_are_refused(folder: Path, tmp_path: Path) -> None:
    save(truth(), tmp_path / "masks" / "p1_a.nii.gz")
    save(truth(), tmp_path / "masks" / "p1_a.nii")
    with pytest.raises(UserError, match="both a prediction for p1_a"):
        evaluate(tmp_path / "masks", find_cases(folder))


def test_a_folder_without_any_fitting_mask_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        evaluate(tmp_path / "absent", find_cases(folder))
    save(truth(), tmp_path / "masks" / "somebody.nii.gz")
    with pytest.raises(UserError, match=r"No mask in .*p1_a\.nii\.gz"):
        evaluate(tmp_path / "masks", find_cases(folder))


def test_slices_that_nobody_annotated_are_left_out(folder: Path, tmp_path: Path) -> None:
    partly = truth()
    partly[..., 3:] = IGNORE
    save(partly, folder / "labelsTr" / "p1_a.nii.gz")
    wrong = truth()
    wrong[..., 3:] = 2
    save(wrong, tmp_path / "masks" / "p1_a.nii.gz")
    table = evaluate(tmp_path / "masks", find_cases(folder), ["p1_a"])
    assert [row.scores.dice for row in table.rows] == [1, 1]
