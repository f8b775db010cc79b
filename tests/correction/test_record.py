"""Records of masks: what was done, kept beside them, and the table of it."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_medcl.correction.record import Record, Version, find_records, rows
from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import UserError
from napari_medcl.files import write_rows
from napari_medcl.inference.metrics import dice

if TYPE_CHECKING:
    from pathlib import Path

NOW = "2024-05-06T07:08:09+02:00"
finite = st.floats(0, 1e6)
versions = st.builds(
    Version,
    time=st.text(max_size=5),
    seconds=finite,
    edits=st.integers(0, 9),
    volumes_ml=st.dictionaries(st.integers(1, 300), finite, max_size=3),
    dice=st.dictionaries(st.integers(1, 300), st.floats(0, 1), max_size=3),
)
records = st.builds(
    Record,
    origin=st.text(max_size=5),
    scan=st.none() | st.text(max_size=5),
    reviewed=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400)), max_size=5),
    seconds=finite,
    edits=st.integers(0, 9),
    versions=st.lists(versions, max_size=3),
)
pairs = hnp.array_shapes(min_dims=3, max_dims=3, max_side=4).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 9, IGNORE]))] * 2)
)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return tmp_path / "a.nii.gz"


@settings(max_examples=30, deadline=None)
@given(records)
def test_what_is_stored_is_loaded(tmp_path_factory: pytest.TempPathFactory, record: Record) -> None:
    mask = tmp_path_factory.mktemp("masks") / "a.nii.gz"
    record.store(mask)
    assert Record.load(mask) == record
    assert [path.name for path in mask.parent.iterdir()] == [".a.nii.gz.medcl.json"]


def test_labels_come_back_as_numbers(mask: Path) -> None:
    after = np.array([[[0, 1, 1, 7]]], np.uint16)
    Record(origin="empty").with_version(after, after, 0.5, NOW).store(mask)
    (version,) = Record.load(mask).versions
    assert version == Version(time=NOW, seconds=0, edits=0, volumes_ml={1: 1.0, 7: 0.5}, dice={1: 1.0, 7: 1.0})


def test_a_mask_without_a_record_has_a_fresh_one(mask: Path) -> None:
    assert Record.load(mask) == Record(origin="empty")
    mask.touch()
    assert Record.load(mask) == Record(origin="a.nii.gz")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"origin": "x", "more": 1}',
        b'{"origin": "x", "seconds": NaN}',
        b'{"origin": "x", "reviewed": [[1]]}',
        b'{"origin": "x", "versions": [{"time": "x", "seconds": 1, "edits": 1, "volumes_ml": {"liver": 1}}]}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_record_is_named_and_kept(content: bytes, mask: Path) -> None:
    path = mask.with_name(".a.nii.gz.medcl.json")
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path} cannot be read: .*only tells what was done to a\.nii\.gz; delete it"):
        Record.load(mask)
    assert path.read_bytes() == content


def test_where_it_cannot_be_written_the_old_one_stays(mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Record(origin="a run")
    old.store(mask)

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UserError, match=r"what was done to a\.nii\.gz, cannot be written: No space left"):
        old.with_edit().store(mask)
    assert Record.load(mask) == old
    with pytest.raises(UserError, match=r"cannot be written: No such file .* folder that is there"):
        old.store(mask.parent / "nowhere" / "a.nii.gz")


def test_a_block_that_fails_leaves_the_old_one(mask: Path) -> None:
    old = Record(origin="a run")
    old.store(mask)
    with pytest.raises(ZeroDivisionError), old.with_edit().storing(mask):
        raise ZeroDivisionError
    assert Record.load(mask) == old
    with old.with_edit().storing(mask):
        assert Record.load(mask) == old
    assert Record.load(mask).edits == 1


def test_every_change_gives_a_new_record() -> None:
    record = Record(origin="empty")
    later = record.with_edit().worked(1.5).with_edit().worked(2).review(0, 3)
    assert (later.edits, later.seconds, later.reviewed) == (2, 3.5, ((0, 3),))
    assert record == Record(origin="empty")
    with pytest.raises(ValidationError):
        record.edits = 3  # type: ignore[misc]


def test_reviewed_slices_are_in_order_and_there_once() -> None:
    record = Record(origin="", reviewed=((2, 1), (0, 9), (2, 1)))
    assert record.reviewed == ((0, 9), (2, 1))
    record = record.review(0, 4).review(0, 10).review(0, 4).review(2, 1, done=False).review(1, 1, done=False)
    assert record.reviewed == ((0, 4), (0, 9), (0, 10))
    assert record.reviewed_along(0) == [4, 9, 10]
    assert record.reviewed_along(2) == []
    assert record.worked(1).with_edit().reviewed == record.reviewed


def test_reviewed_voxels_are_those_of_the_slices() -> None:
    record = Record(origin="", reviewed=((0, 1), (2, 4), (0, 3), (3, 0), (-1, 0), (1, -1)))
    expected = np.zeros((3, 4, 5), bool)
    expected[1] = True
    expected[:, :, 4] = True
    assert np.array_equal(record.reviewed_voxels((3, 4, 5)), expected)
    assert not Record(origin="").reviewed_voxels((2, 3)).any()


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_a_version_has_volumes_and_dice_by_label(both: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = both
    record = Record(origin="", seconds=90, edits=4).with_version(None, before, 0.25, NOW)
    record = record.worked(30).with_edit().with_version(before, after, 0.25, "later")
    first, second = record.versions
    assert first.dice == {}
    assert (first.time, first.seconds, first.edits) == (NOW, 90, 4)
    assert (second.time, second.seconds, second.edits) == ("later", 120, 5)
    labels = {*np.unique(before).tolist(), *np.unique(after).tolist()} - {0, IGNORE}
    assert second.dice == {label: dice(before == label, after == label) for label in labels}
    assert second.volumes_ml == {label: 0.25 * size for label in labels if (size := np.count_nonzero(after == label))}
    assert not any(map(math.isnan, second.dice.values()))


def test_the_table_has_a_row_for_every_label_of_every_version(tmp_path: Path) -> None:
    one, two = (np.array([[row]], np.uint8) for row in ([1, 1, 2, 0], [1, 0, 0, 0]))
    record = Record(origin="").review(0, 0).worked(60).with_version(None, one, 1, "t1")
    record = record.with_edit().worked(30).with_version(one, two, 1, "t2").with_version(None, 0 * two, 1, "t3")
    found = rows({"a": record, "b": Record(origin="")})
    shared = {"case": "a", "reviewed_slices": 1}
    assert found == [
        shared | dict(zip(("version", "time", "minutes", "edits", "label", "volume_ml", "dice"), row, strict=True))
        for row in (
            (1, "t1", 1.0, 0, 1, 2, None),
            (1, "t1", 1.0, 0, 2, 1, None),
            (2, "t2", 1.5, 1, 1, 1, 2 / 3),
            (2, "t2", 1.5, 1, 2, 0, 0),
            (3, "t3", 1.5, 1, None, None, None),
        )
    ]
    write_rows(tmp_path / "table.csv", found)
    with (tmp_path / "table.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert list(first.items())[:5] == [
        ("case", "a"),
        ("version", "1"),
        ("time", "t1"),
        ("minutes", "1.0"),
        ("edits", "0"),
    ]


def test_records_are_found_in_a_folder_of_masks_and_in_a_data_folder(tmp_path: Path) -> None:
    for name in ("one.nii.gz", "labelsTr/two.v1.nii.gz", "masks/three.png", "elsewhere/four.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Record(origin=name).store(tmp_path / name)
    assert {name: record.origin for name, record in find_records(tmp_path).items()} == {
        "one": "one.nii.gz",
        "two.v1": "labelsTr/two.v1.nii.gz",
        "three": "masks/three.png",
    }
    assert find_records(tmp_path / "nowhere") == {}
    (tmp_path / ".one.nii.gz.medcl.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        find_records(tmp_path)
