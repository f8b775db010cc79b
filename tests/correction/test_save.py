"""Saving: the old mask is kept, and nothing is lost when something goes wrong."""

from __future__ import annotations

import re
import shutil
from datetime import datetime
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.correction import save
from napari_medcl.correction.journal import Journal, beside
from napari_medcl.correction.record import Record
from napari_medcl.correction.save import save_mask
from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import read_labels
from napari_medcl.data.volume import Labels
from napari_medcl.data.writing import write_labels
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORD = Record(origin="a run", seconds=60, edits=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A mask of eight voxels along axes of its own, which are not ours."""
    array = np.zeros((4, 5, 6), np.uint8)
    array[:2, :2, :2] = 1
    affine = np.array([[0, 2, 0, 3], [0, 0, -3, 1], [1, 0, 0, -7], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def corrected(path: Path) -> Labels:
    labels = read_labels(path)
    array = labels.array.copy()
    array[tuple(np.argwhere(array)[0])] = 2
    return Labels(array, labels.spacing, labels.origin, labels.source)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_mask_that_is_new_has_no_backup(tmp_path: Path) -> None:
    labels = Labels(np.ones((2, 3, 4), np.uint8), spacing=(5.0, 2.0, 1.0))
    saved = save_mask(labels, tmp_path / "new.nii.gz", RECORD)
    assert (saved.path, saved.backup) == (tmp_path / "new.nii.gz", None)
    assert np.array_equal(read_labels(saved.path).array, labels.array)
    assert saved.record == Record.load(saved.path)
    (version,) = saved.record.versions
    assert (version.seconds, version.edits, version.dice) == (60, 2, {})
    assert version.volumes_ml == {1: pytest.approx(0.24)}
    assert datetime.fromisoformat(version.time).tzinfo is not None
    assert names(tmp_path) == {"new.nii.gz", ".new.nii.gz.medcl.json"}


def test_the_mask_before_is_kept_and_compared_with(path: Path) -> None:
    old, labels = path.read_bytes(), corrected(path)
    saved = save_mask(labels, path, RECORD)
    assert saved.backup is not None
    assert re.fullmatch(r"a-\d{8}-\d{6}\.nii\.gz", saved.backup.name)
    assert saved.backup.parent == path.parent / ".medcl-backups"
    assert saved.backup.read_bytes() == old
    assert np.array_equal(read_labels(path).array, labels.array)
    assert np.array_equal(nib.load(path).affine, nib.load(saved.backup).affine)
    (version,) = saved.record.versions
    assert version.dice == {1: 14 / 15, 2: 0}
    assert version.volumes_ml == {1: pytest.approx(7 * 0.006), 2: pytest.approx(0.006)}


def test_saving_often_keeps_every_version(path: Path) -> None:
    labels, record, contents = corrected(path), RECORD, []
    for value in range(4):
        contents.append(path.read_bytes())
        labels.array[0, 0] = value
        saved = save_mask(labels, path, record)
        record = saved.record
    backups = sorted((path.parent / ".medcl-backups").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [backup.read_bytes() for backup in backups] == contents
    assert len(Record.load(path).versions) == 4
    assert record == Record.load(path)


def test_names_within_a_second_are_numbered(path: Path) -> None:
    now = datetime(2024, 5, 6, 7, 8, 9)
    backups = [save.back_up(path, now).name for _ in range(3)]
    assert backups == [f"a-20240506-070809{end}.nii.gz" for end in ("", "-1", "-2")]


def test_pictures_are_saved_too(tmp_path: Path) -> None:
    path = write_labels(Labels(np.zeros((1, 4, 5), np.uint8)), tmp_path / "a.png")
    array = np.full((1, 4, 5), 3, np.uint8)
    saved = save_mask(Labels(array), path, RECORD)
    assert saved.backup is not None
    assert saved.backup.suffix == ".png"
    assert np.array_equal(read_labels(path).array, array)
    assert saved.record.versions[0].dice == {3: 0}


@pytest.mark.parametrize("content", ["another shape", "damaged", "empty"])
def test_an_old_file_that_cannot_be_compared_is_kept(content: str, path: Path) -> None:
    labels = corrected(path)
    if content == "another shape":
        write_labels(Labels(np.ones((2, 2, 2), np.uint8)), path)
    else:
        path.write_bytes(b"no mask" if content == "damaged" else b"")
    old = path.read_bytes()
    saved = save_mask(labels, path, RECORD)
    assert saved.backup is not None
    assert saved.backup.read_bytes() == old
    assert saved.record.versions[0].dice == {}
    assert np.array_equal(read_labels(path).array, labels.array)


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("what", ["copy", "mask", "record", "record's name", "label"])
def test_where_anything_fails_the_old_file_is_as_it_was(what: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_mask(read_labels(path), path, RECORD)
    shutil.rmtree(path.parent / ".medcl-backups")
    labels, record, before = corrected(path), Record.load(path), names(path.parent)
    old, time = path.read_bytes(), path.stat().st_mtime_ns
    match what:
        case "copy":
            monkeypatch.setattr(shutil, "copyfile", full)
        case "mask":
            monkeypatch.setattr(nib, "save", full)
        case "record":
            monkeypatch.setattr("pathlib.Path.write_text", full)
        case "record's name":
            hidden = path.with_name(".a.nii.gz.medcl.json")
            hidden.unlink()
            hidden.mkdir()
            (hidden / "x").touch()
            before = names(path.parent)
        case "label":
            labels = Labels(labels.array.astype(int) - 1)
    with pytest.raises(UserError):
        save_mask(labels, path, record)
    assert path.read_bytes() == old
    assert what == "record's name" or path.stat().st_mtime_ns == time
    assert names(path.parent) == before
    assert what == "record's name" or Record.load(path) == record


def test_a_kind_that_is_not_written_leaves_what_is_there(path: Path) -> None:
    other = path.with_name("a.jpg")
    other.write_bytes(b"a picture")
    with pytest.raises(UserError, match="cannot be written in the format"):
        save_mask(corrected(path), other, RECORD)
    assert other.read_bytes() == b"a picture"
    assert names(path.parent) == {"a.nii.gz", "a.jpg"}


@pytest.mark.parametrize("flat", [False, True])
def test_a_data_folder_has_the_same_cases_after_corrections(
    flat: bool, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    folder = blobs(scans=3, masks=2)
    if flat:
        for path in (folder / "imagesTr").iterdir():
            path.rename(folder / path.name)
        (folder / "imagesTr").rmdir()
        for path in (folder / "labelsTr").iterdir():
            path.rename(folder / path.name.replace(".nii.gz", "_mask.nii.gz"))
    before = find_cases(folder)
    assert len(before.labelled) == 2
    for case in before.labelled:
        assert case.labels is not None
        journal = Journal.begin(beside(case.labels), case.truth().array, {})
        for _ in range(2):
            saved = save_mask(corrected(case.labels), case.labels, Record.load(case.labels))
        journal.note(saved.record.reviewed_voxels(case.truth().shape).astype(np.uint8))
        journal.close(keep=True)
    assert find_cases(folder) == before
    assert find_cases(folder).names == {1: "class 1", 2: "class 2"}
    assert len([*folder.rglob("*.medcl-journal")]) == len([*folder.rglob("*.medcl.json")]) == 2
    assert len([*folder.rglob(".medcl-backups/*")]) == 4
