"""The commands `medcl edit` and `medcl corrections`."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.correction.journal import Journal, apart, note_journal
from napari_medcl.correction.places import home_beside
from napari_medcl.correction.record import Record
from napari_medcl.inference.edits import EDITS
from napari_medcl.training.run import Run, default_root
from tests.commands import SMALL, medcl, raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path: Path, array: NDArray[np.generic]) -> Path:
    """Writes (z, y, x) as NIfTI whose axes are x, y, z towards left, posterior, superior."""
    nib.save(nib.Nifti1Image(np.transpose(array), AFFINE @ np.diag([-1, -1, 1, 1])), path)
    return path


def voxels(path: Path) -> NDArray[np.uint8]:
    return np.transpose(np.asarray(nib.load(path).dataobj))


@pytest.fixture
def holed() -> NDArray[np.uint8]:
    """A block with a hole in every slice, an island, and another label."""
    mask = np.zeros((5, 12, 14), np.uint8)
    mask[1:4, 2:8, 2:8] = 1
    mask[2, 4, 4] = 0
    mask[2, 10, 12] = 1
    mask[0, 10, 2] = 2
    return mask


@pytest.fixture
def mask(tmp_path: Path, holed: NDArray[np.uint8]) -> Path:
    return save(tmp_path / "mask.nii.gz", holed)


def test_an_edit_in_place_keeps_the_old_file(mask: Path, holed: NDArray[np.uint8]) -> None:
    said = medcl("edit", "fill-holes", mask)
    expected = holed.copy()
    expected[2, 4, 4] = 1
    assert np.array_equal(voxels(mask), expected)
    assert "1 voxels changed" in said
    (backup,) = (mask.parent / ".medcl-backups").iterdir()
    assert np.array_equal(voxels(backup), holed)
    assert np.array_equal(nib.load(mask).affine, nib.load(backup).affine)
    assert Record.load(mask).edits == 1


def test_an_edit_goes_to_another_file_and_to_one_label(mask: Path, holed: NDArray[np.uint8], tmp_path: Path) -> None:
    out = tmp_path / "other.nii.gz"
    medcl("edit", "keep-largest", mask, "--label", 1, "--out", out)
    assert np.array_equal(voxels(mask), holed)
    assert voxels(out)[2, 10, 12] == 0
    assert (voxels(out) == 2).sum() == 1


def test_one_slice_is_edited_for_itself(mask: Path, holed: NDArray[np.uint8]) -> None:
    medcl("edit", "remove-islands", mask, "--slice", 2, "--below", 0.01)
    assert voxels(mask)[2, 10, 12] == 0
    assert np.array_equal(np.delete(voxels(mask), 2, 0), np.delete(holed, 2, 0))
    medcl("edit", "grow", mask, "--slice", 2, "--axis", 2, "--distance", 3, "--label", 1)
    assert np.array_equal(np.delete(voxels(mask), 2, 2)[3:], np.delete(holed, 2, 2)[3:])
    assert voxels(mask)[0, 3, 2] == 1, "3 mm are one voxel along z"


def test_nothing_to_change_writes_nothing(mask: Path) -> None:
    before = mask.stat().st_mtime_ns
    assert "Nothing was to be changed" in medcl("edit", "fill-holes", mask, "--slice", 0)
    assert mask.stat().st_mtime_ns == before
    assert [path.name for path in mask.parent.iterdir()] == [mask.name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fill-holes", "nowhere.nii.gz"), "nowhere.nii.gz"),
        (("fill-holes", "MASK", "--label", 0), "label"),
        (("fill-holes", "MASK", "--slice", 9), "has no slice 9"),
        (("fill-holes", "MASK", "--axis", 5), "no axis 5"),
        (("interpolate", "MASK", "--slice", 1), "leave out --slice"),
        (("smooth", "MASK", "--radius", -1), "radius"),
        (("smooth", "MASK", "--out", "mask.jpg"), "mask.jpg"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_changes(
    words: tuple[object, ...], said: str, mask: Path, holed: NDArray[np.uint8]
) -> None:
    told = medcl("edit", *(mask if word == "MASK" else word for word in words), fails=True)
    assert said in told
    assert np.array_equal(voxels(mask), holed)


def test_every_edit_is_a_command() -> None:
    told = medcl("edit", "--help")
    assert all(name in told for name in EDITS)


def test_the_most_doubtful_slice_comes_first(mask: Path, holed: NDArray[np.uint8], tmp_path: Path) -> None:
    doubt = np.zeros(holed.shape, np.float32)
    doubt[3] = 0.9
    told = raw("corrections", "next", mask, "--uncertainty", save(tmp_path / "doubt.nii.gz", doubt))
    rows = [line for line in told.splitlines() if line.strip("│┃ ")[:1].isdigit()]
    assert rows[0].strip("│┃ ").startswith("3")
    other = save(tmp_path / "other.nii.gz", doubt[:2])
    assert "another shape" in medcl("corrections", "next", mask, "--uncertainty", other, fails=True)


def test_the_table_tells_what_was_done(mask: Path, tmp_path: Path) -> None:
    assert "No mask" in medcl("corrections", "table", tmp_path, "--csv", tmp_path / "t.csv", fails=True)
    medcl("edit", "fill-holes", mask)
    medcl("corrections", "table", tmp_path, "--csv", tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text("utf-8").splitlines()))
    assert [row["label"] for row in rows] == ["1", "2"]
    assert float(rows[0]["volume_ml"]) == pytest.approx(109 * 6 / 1000)
    assert float(rows[0]["dice"]) == pytest.approx(2 * 108 / (108 + 109))


def test_edits_that_were_left_behind_are_saved(mask: Path, holed: NDArray[np.uint8], tmp_path: Path) -> None:
    home = home_beside(default_root())
    home.mkdir(exist_ok=True)
    layer = {
        "name": "my mask", "scale": [3.0, 2.0, 1.0], "translate": [0.0, 0.0, 0.0], "metadata": {"medcl": {}},
    }  # fmt: skip
    journal = Journal.begin(apart(home), holed, {"mask": None, "scan": None, "layer": layer})
    note_journal(home, journal.path)
    holed[2, 4, 4] = 1
    journal.note(holed)
    journal.close(keep=True)
    assert "my mask" in medcl("corrections", "list")
    out = tmp_path / "back.nii.gz"
    medcl("corrections", "recover", journal.path, "--out", out)
    assert np.array_equal(voxels(out), holed)
    assert nib.load(out).header.get_zooms() == (1.0, 2.0, 3.0)
    assert "All edits have been saved" in medcl("corrections", "list")
    assert "left behind" in medcl("corrections", "recover", journal.path, "--out", out, fails=True)


def test_a_model_learns_on_from_a_corrected_case(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=5, masks=4)
    medcl("finetune", folder, "--dims", "2d", "--steps", 2, "--run", tmp_path / "weak", *SMALL)
    scan, made = folder / "imagesTr" / "case_4.nii.gz", tmp_path / "set"
    mask = tmp_path / "case_4.nii.gz"
    array = np.zeros(nib.load(scan).shape, np.uint8)
    array[2:5, 2:5] = 1
    nib.save(nib.Nifti1Image(array, nib.load(scan).affine), mask)
    add = ("corrections", "add", scan, mask, "--run", tmp_path / "weak", "--to", made)
    assert "No slice is marked as reviewed" in medcl(*add, fails=True)
    medcl(*add, "--everything")
    split, before = json.loads((made / "split.json").read_text()), Run(tmp_path / "weak")
    assert "case_4" in split["train"]
    assert split["val"] == json.loads((before.folder / "split.json").read_text())["val"]
    medcl("corrections", "improve", made, "--run", tmp_path / "weak", "--steps", 2, "--out", tmp_path / "better")
    better = Run(tmp_path / "better")
    assert better.state == "finished"
    assert better.config["start"] == str(tmp_path / "weak")
    assert "case_4" in json.loads((better.folder / "split.json").read_text())["learned"]
    told = medcl("corrections", "improve", tmp_path / "none", "--run", tmp_path / "weak", fails=True)
    assert "no training set" in told
