"""Training sets: what the model learned from stays as it is, and what was corrected comes to it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.correction.record import Record
from napari_medcl.correction.training_set import TrainingSet, only_reviewed
from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import read_labels, read_volume
from napari_medcl.data.volume import IGNORE, Labels, Volume
from napari_medcl.errors import UserError
from napari_medcl.training.config import FinetuneConfig
from napari_medcl.training.dataset import Sides, write_sides
from napari_medcl.training.run import Run, create
from tests.blobs import write_blobs

if TYPE_CHECKING:
    from pathlib import Path

RECORD = Record(origin="a run").review(0, 2).review(1, 3)


def a_run(root: Path, folder: Path, **config: Any) -> Run:
    """A run that learned from the first and the second case, chose by the third and was measured on the last."""
    run = create("finetune", FinetuneConfig(folder=folder, **config).to_json(), root / "1-finetune")
    first, second, third, last = find_cases(folder)
    write_sides(run, (first, second), Sides((first, second), (third,), (last,), ()))
    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = write_blobs(tmp_path / "blobs", shape=(8, 7, 6))
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "spleen": 2}}), "utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Run:
    return a_run(tmp_path / "runs", data, steps=7, rate=0.002, mirror=True, val=0.3)


@pytest.fixture
def made(tmp_path: Path, run: Run) -> TrainingSet:
    return TrainingSet.begin(tmp_path / "set", run)


def scan(seed: int = 0, channels: int = 1) -> tuple[Volume, Labels]:
    random = np.random.default_rng(seed)
    image, mask = random.random((channels, 4, 5, 6), np.float32), random.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    return Volume(image, (3.0, 2.0, 1.0)), Labels(mask, (3.0, 2.0, 1.0))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sides(made: TrainingSet) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(made.split.read_text("utf-8"))
    return found


def test_a_new_one_takes_over_the_cases_of_the_run(made: TrainingSet, run: Run, data: Path) -> None:
    assert sides(made) == {"train": ["case_0", "case_1"], "val": ["case_2"], "test": ["case_3"]}
    assert [case.id for case in made.cases()] == [f"case_{number}" for number in range(4)]
    assert made.cases().names == {1: "liver", 2: "spleen"}
    for case, original in zip(made.cases(), find_cases(data), strict=True):
        for path, source in ((case.images[0], original.images[0]), (case.labels, original.labels)):
            assert path is not None
            assert path.is_symlink()
            assert path.resolve() == source
    again = TrainingSet.begin(made.folder, run)
    assert again == made
    assert len(list(made.folder.rglob("*.nii.gz"))) == 8


def test_a_corrected_scan_teaches(made: TrainingSet, data: Path) -> None:
    before = content(data)
    volume, labels = scan()
    assert made.add("new", volume, labels, RECORD) == "new"
    assert sides(made) == {"train": ["case_0", "case_1", "new"], "val": ["case_2"], "test": ["case_3"]}
    (case,) = made.cases().select(["new"])
    assert case.labels is not None
    np.testing.assert_array_equal(read_volume(case.images[0]).array, volume.array)
    expected = np.full((4, 5, 6), IGNORE)
    expected[2], expected[:, 3] = labels.array[2], labels.array[:, 3]
    np.testing.assert_array_equal(read_labels(case.labels).array, expected)
    assert Record.load(case.labels).reviewed == RECORD.reviewed
    assert len(Record.load(case.labels).versions) == 1
    assert content(data) == before


def test_the_same_scan_again_replaces_its_mask(made: TrainingSet) -> None:
    volume, labels = scan()
    made.add("new", volume, labels, RECORD)
    old = (made.folder / "labelsTr" / "new.nii.gz").read_bytes()
    made.add("new", volume, scan(1)[1], Record(origin="empty"), everything=True)
    np.testing.assert_array_equal(read_labels(made.folder / "labelsTr" / "new.nii.gz").array, scan(1)[1].array)
    (backup,) = (made.folder / "labelsTr" / ".medcl-backups").iterdir()
    assert backup.read_bytes() == old
    assert sides(made)["train"] == ["case_0", "case_1", "new"]
    assert len(made.cases()) == 5


def test_a_case_of_the_run_is_corrected_without_touching_its_files(made: TrainingSet, data: Path) -> None:
    before = content(data)
    volume = read_volume(data / "imagesTr" / "case_0.nii.gz")
    array = read_labels(data / "labelsTr" / "case_0.nii.gz").array.copy()
    array[2] = 1
    made.add("case_0", volume, Labels(array, volume.spacing, volume.origin, volume.source), RECORD.review(0, 0))
    assert content(data) == before
    mask = made.folder / "labelsTr" / "case_0.nii.gz"
    assert not mask.is_symlink()
    assert (read_labels(mask).array[2] == 1).all()
    assert (made.folder / "imagesTr" / "case_0.nii.gz").is_symlink()
    assert sides(made)["train"] == ["case_0", "case_1"]


@pytest.mark.parametrize(("name", "words"), [("case_2", "chooses the model"), ("case_3", "judges the model")])
def test_what_measures_the_model_does_not_teach_it(made: TrainingSet, name: str, words: str) -> None:
    before = content(made.folder)
    with pytest.raises(UserError, match=words):
        made.add(name, *scan(), RECORD)
    assert content(made.folder) == before


def test_something_must_have_been_reviewed_and_be_known(made: TrainingSet) -> None:
    before = content(made.folder)
    volume, labels = scan()
    with pytest.raises(UserError, match="No slice is marked as reviewed"):
        made.add("new", volume, labels, Record(origin="empty"))
    labels.array[0, 0, 0] = 7
    with pytest.raises(UserError, match=r"label 7.*1 \(liver\), 2 \(spleen\)"):
        made.add("new", volume, labels, RECORD)
    assert content(made.folder) == before
    labels.array[0, 0, 0] = IGNORE
    made.add("new", volume, labels, RECORD)


def test_channels_in_files_of_their_own(tmp_path: Path, data: Path) -> None:
    for path in sorted((data / "imagesTr").iterdir()):
        name = path.name.removesuffix(".nii.gz")
        path.with_name(f"{name}_0001.nii.gz").write_bytes(path.read_bytes())
        path.rename(path.with_name(f"{name}_0000.nii.gz"))
    made = TrainingSet.begin(tmp_path / "set", a_run(tmp_path / "runs", data))
    volume, labels = scan(channels=2)
    made.add("new", volume, labels, RECORD)
    assert [case.id for case in made.cases()] == [*(f"case_{number}" for number in range(4)), "new"]
    (case,) = made.cases().select(["new"])
    files = case.images
    assert [path.name for path in files] == ["new_0000.nii.gz", "new_0001.nii.gz"]
    np.testing.assert_array_equal(np.concatenate([read_volume(path).array for path in files]), volume.array)


def test_the_model_learns_on_with_its_own_settings(made: TrainingSet, run: Run) -> None:
    config = made.config(run, minutes=2.5)
    assert (config.folder, config.split, config.start) == (made.folder, made.split, run.folder)
    assert (config.rate, config.mirror) == (0.002, True)
    assert (config.steps, config.minutes, config.groups, config.labelled) == (None, 2.5, None, None)
    assert made.config(run, steps=3).steps == 3


def test_data_of_the_first_run_do_not_stay(tmp_path: Path, data: Path) -> None:
    run = a_run(
        tmp_path / "runs", data, groups=r"(case)_\d", labelled=1, labelled_by="patient", annotated="nonempty", steps=9
    )
    config = TrainingSet.begin(tmp_path / "set", run).config(run, minutes=1)
    assert (config.groups, config.labelled, config.labelled_by, config.annotated) == (None, None, "case", "all")
    assert config.steps is None


def test_another_folder_is_left_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "thesis.txt").write_text("all of it", "utf-8")
    with pytest.raises(UserError, match="is not empty and no training set"):
        TrainingSet.begin(tmp_path, run)
    (tmp_path / "empty").mkdir()
    assert TrainingSet.begin(tmp_path / "empty", run).cases()


def test_a_run_without_data_is_refused(tmp_path: Path, data: Path) -> None:
    run = create("finetune", FinetuneConfig(folder=data).to_json(), tmp_path / "runs" / "2")
    with pytest.raises(UserError, match="has not begun to learn"):
        TrainingSet.begin(tmp_path / "set", run)
    assert not (tmp_path / "set").exists()
    run = create("finetune", FinetuneConfig(folder=tmp_path / "gone").to_json(), tmp_path / "runs" / "3")
    with pytest.raises(UserError, match="gone"):
        TrainingSet.begin(tmp_path / "set", run)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights as POSIX has them")
def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, run: Run, made: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder that may only be read; root may write to those."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        TrainingSet.begin(tmp_path / "other", run)
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        made.add("new", *scan(), RECORD)
    monkeypatch.undo()
    assert "new" not in sides(made)["train"]


def test_what_nobody_looked_at_is_not_annotated() -> None:
    array = np.array([[[1, 0]], [[2, 3]]], bool)
    found = only_reviewed(array, Record(origin="empty").review(0, 1))
    assert found.tolist() == [[[IGNORE, IGNORE]], [[1, 1]]]
    assert found.dtype == np.uint8
    assert only_reviewed(np.full((2, 1, 1), 300, np.int16), Record(origin="empty").review(0, 0)).max() == 300
