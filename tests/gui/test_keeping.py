from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtWidgets import QApplication

from napari_medcl.correction.journal import Journal, Unwritable, beside, pending, read
from napari_medcl.correction.record import Record
from napari_medcl.data.formats import read_labels
from napari_medcl.gui import keeping
from napari_medcl.gui.keeping import box_of, left_behind
from tests.gui.conftest import same_geometry
from tests.gui.test_correct import LONG_MS, close_dock, drag, open_dock, opened, settle, windowless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

HOW = {"segments": 20, "compactness": 0.3}
MOST = 250
"""Strokes of a viewer that is killed: labels of uint8."""
STROKES = [[(6, 4, 3), (6, 4, 28)], [(6, 15, 16)], [(6, 20, 20), (6, 25, 28)]]


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def dock(viewer: Any, scan: Path, mask: Path) -> Any:
    return opened(viewer, scan, mask)


@pytest.fixture
def journal(mask: Path) -> Path:
    return beside(mask)


def paint(layer: Any, *voxel: int, label: int = 2) -> None:
    with layer.block_history():  # as napari's tools; else the event comes before the change
        layer.data_setitem(tuple(np.array([place]) for place in voxel), label)


def corrections(runs: Path) -> list[Path]:
    """The journals that lie where there is no other place for them."""
    return sorted((runs.parent / "corrections").glob("*.medcl-journal"))


def test_every_stroke_is_in_the_journal_at_once(
    viewer: Any, dock: Any, journal: Path, mask: Path, qtbot: QtBot
) -> None:
    layer, brush = viewer.layers["mask"], dock.tools.brush
    first = layer.data.copy()
    dock.tools.form.setValue(HOW)
    dock.tools.buttons["superpixels"].click()
    settle(brush, qtbot)
    assert not journal.exists(), "nothing was done yet"
    layer.selected_label = 3
    for number, stroke in enumerate(STROKES, 1):
        before = layer.data.copy()
        drag(brush, [layer.data_to_world(voxel) for voxel in stroke])
        assert not np.array_equal(layer.data, before)
        found = read(journal)
        assert np.array_equal(found.mask, layer.data)
        assert found.changes == dock.keeper.record.edits == number
    assert np.array_equal(found.first, first)
    assert found.about["mask"] == str(mask)
    assert found.about["scan"] == str(mask.parent / "scan.nii.gz")
    layer.mode = "paint"
    with layer.block_history():
        layer.paint((6, 10, 10), 4)
        layer.paint((6, 14, 12), 4)
    assert np.array_equal(read(journal).mask, layer.data), "napari's own tools"
    dock.edits.run("keep-largest")
    qtbot.waitUntil(lambda: not dock.edits._make.running, timeout=LONG_MS)
    assert np.array_equal(read(journal).mask, layer.data)
    layer.data_setitem(tuple(np.array([place]) for place in (0, 1, 2)), 2)
    qtbot.waitUntil(lambda: np.array_equal(read(journal).mask, layer.data), timeout=LONG_MS)
    layer.undo()
    qtbot.waitUntil(lambda: np.array_equal(read(journal).mask, layer.data), timeout=LONG_MS)
    layer.redo()
    qtbot.waitUntil(lambda: np.array_equal(read(journal).mask, layer.data), timeout=LONG_MS)
    assert dock.keeper.unsaved
    assert not pending([journal]), "it is in hand"


def test_saving_ends_the_journal_and_keeps_the_file_before(
    viewer: Any, dock: Any, journal: Path, scan: Path, mask: Path, runs: Path
) -> None:
    layer, old = viewer.layers["mask"], mask.read_bytes()
    paint(layer, 6, 15, 16)
    dock.keeper.review(0, 6, done=True)
    saved = dock.keeper.save(mask)
    assert saved.backup is not None
    assert saved.backup.read_bytes() == old
    assert not journal.exists()
    assert not list((runs.parent / "corrections").iterdir())
    assert not dock.keeper.unsaved
    assert same_geometry(scan, mask)
    assert np.array_equal(read_labels(mask).array, layer.data)
    record = Record.load(mask)
    assert (record.edits, record.reviewed, len(record.versions)) == (1, ((0, 6),), 1)
    assert record == dock.keeper.record
    paint(layer, 6, 15, 17)
    assert np.array_equal(read(journal).mask, layer.data)
    dock.keeper.save(mask)
    assert (dock.keeper.record.edits, len(dock.keeper.record.versions)) == (2, 2)


def test_what_cannot_be_saved_stays_in_the_journal(viewer: Any, dock: Any, journal: Path, mask: Path) -> None:
    layer = viewer.layers["mask"]
    paint(layer, 6, 15, 16)
    dock.account.save_to(mask.parent / "nowhere" / "mask.nii.gz")
    assert "nowhere" in dock.account.message.text()
    assert dock.keeper.unsaved
    paint(layer, 6, 15, 17)
    assert np.array_equal(read(journal).mask, layer.data)


def test_reviewed_slices_are_kept_with_the_mask(viewer: Any, dock: Any, mask: Path) -> None:
    dock.keeper.review(0, 6, done=True)
    dock.keeper.review(1, 3, done=True)
    dock.keeper.review(1, 3, done=False)
    dock.keeper.save(mask)
    close_dock(viewer, dock)
    viewer.layers.remove("mask")
    viewer.open(mask, plugin="medcl")
    assert open_dock(viewer).keeper.record.reviewed == ((0, 6),)


def test_a_closed_dock_leaves_a_journal_only_of_what_is_not_saved(
    viewer: Any, dock: Any, journal: Path, mask: Path
) -> None:
    layer = viewer.layers["mask"]
    close_dock(viewer, dock)
    assert not journal.exists()
    dock = open_dock(viewer)
    paint(layer, 6, 15, 16)
    dock.keeper.save(mask)
    close_dock(viewer, dock)
    assert not journal.exists()
    assert not left_behind()
    dock = open_dock(viewer)
    paint(layer, 6, 15, 17)
    layer.undo()
    layer.redo()
    close_dock(viewer, dock)
    (found,) = left_behind()
    assert found.path == journal
    assert np.array_equal(found.mask, layer.data)


def test_where_the_folder_cannot_be_written_the_journal_lies_apart(
    viewer: Any, dock: Any, journal: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder that may only be read; root may write to those."""
    begin = Journal.begin

    def refuse(path: Path, *args: Any) -> Journal:
        if path == journal:
            raise Unwritable("Read-only file system")
        return begin(path, *args)

    monkeypatch.setattr(keeping.Journal, "begin", refuse)
    layer = viewer.layers["mask"]
    paint(layer, 6, 15, 16)
    paint(layer, 6, 15, 17)
    (apart,) = corrections(runs)
    assert np.array_equal(read(apart).mask, layer.data)
    assert not journal.exists()
    monkeypatch.setattr(keeping.Journal, "note", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    paint(layer, 6, 15, 18)
    assert "not journalled, so save the mask. the disk is full" in dock.account.message.text()


def test_edits_that_were_never_saved_stay_where_they_are(viewer: Any, dock: Any, journal: Path, runs: Path) -> None:
    layer = viewer.layers["mask"]
    left = Journal.begin(journal, layer.data, {})
    left.note(np.where(layer.data == 0, 1, layer.data).astype(layer.data.dtype))
    left.close(keep=True)
    before = journal.read_bytes()
    paint(layer, 6, 15, 16)
    assert journal.read_bytes() == before
    (apart,) = corrections(runs)
    assert np.array_equal(read(apart).mask, layer.data)


def test_a_mask_without_a_file_has_its_journal_apart(viewer: Any, scan: Path, runs: Path) -> None:
    dock = opened(viewer, scan)
    dock.new.click()
    layer = viewer.layers["scan mask"]
    assert not corrections(runs)
    paint(layer, 6, 15, 16)
    (apart,) = corrections(runs)
    assert np.array_equal(read(apart).mask, layer.data)
    assert read(apart).about["mask"] is None
    dock.keeper.save(scan.parent / "new.nii.gz")
    assert not corrections(runs)
    paint(layer, 6, 15, 17)
    assert np.array_equal(read(beside(scan.parent / "new.nii.gz")).mask, layer.data)


def test_going_to_another_mask_and_back_loses_nothing(
    viewer: Any, dock: Any, journal: Path, mask: Path, runs: Path
) -> None:
    layer, other = viewer.layers["mask"], viewer.add_labels(np.zeros((4, 5), int), name="other")
    dock.keeper.review(0, 6, done=True)
    paint(layer, 6, 15, 16)
    dock.mask.setValue(other)
    assert (dock.keeper.record.edits, dock.keeper.unsaved) == (0, False)
    paint(other, 2, 3)
    paint(layer, 6, 15, 17)
    dock.mask.setValue(layer)
    assert (dock.keeper.record.edits, dock.keeper.record.reviewed) == (1, ((0, 6),))
    assert dock.keeper.unsaved
    paint(layer, 6, 15, 18)
    assert np.array_equal(read(journal).mask, layer.data)
    dock.keeper.save(mask)
    assert not journal.exists()
    assert not left_behind(), "the other is put aside, and still in hand"
    viewer.layers.remove("other")
    dock.mask.setValue(None)
    assert [found.about["layer"]["name"] for found in left_behind()] == ["other"]


def test_a_mask_that_is_given_other_data_begins_anew(viewer: Any, dock: Any, journal: Path) -> None:
    layer = viewer.layers["mask"]
    paint(layer, 6, 15, 16)
    painted = layer.data.copy()
    layer.data = np.zeros((3, 4, 5), np.uint8)
    dock.keeper._note()
    assert np.array_equal(read(journal).mask, painted)
    assert not dock.keeper.unsaved


def test_where_a_step_lies() -> None:
    one = (np.array([1, 4]), np.array([2, 2]), np.array([7, 3])), 0, 1
    other = (np.array([2]), np.array([9]), np.array([5])), 0, 1
    assert box_of([one, other], (9, 10, 11)) == (slice(1, 5), slice(2, 10), slice(3, 8))

    layer = Labels(np.zeros((9, 10, 11), int))
    layer.events.paint.connect(lambda event: told.extend(event.value))
    told: list[Any] = []
    layer.brush_size = 3
    layer.paint((3, 4, 5), 2)
    assert box_of(told, (9, 10, 11)) == (slice(3, 4), slice(3, 6), slice(4, 7)), "as napari's brush tells it"
    assert box_of([*told, other], (9, 10, 11)) == (slice(2, 4), slice(3, 10), slice(4, 7))
    layer.fill((0, 0, 0), 3)
    assert box_of(told, (9, 10, 11)) == (slice(0, 4), slice(0, 10), slice(0, 11))
    assert box_of([], (9, 10, 11)) is None
    assert box_of(["what a later napari may keep"], (9, 10, 11)) is None


def strokes(folder: str) -> None:
    """What a child process does: strokes of the brush without an end, a line after each."""
    import napari

    viewer = napari.Viewer(show=False)
    dock = opened(viewer, Path(folder, "scan.nii.gz"), Path(folder, "mask.nii.gz"))
    brush, layer = dock.tools.brush, viewer.layers["mask"]
    dock.tools.form.setValue(HOW)
    dock.tools.buttons["superpixels"].click()
    while brush._found is None:
        QApplication.processEvents()
    numbers = random.Random(0)
    for number in range(MOST):
        layer.selected_label = number + 1  # no two strokes have one, so each of them changes something
        places = [(6, numbers.randrange(30), numbers.randrange(32)) for _ in range(2)]
        drag(brush, [layer.data_to_world(place) for place in places])
        np.save(Path(folder, f"{number}.npy"), layer.data)
        print(number, flush=True)  # noqa: T201
    time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_killed_viewer_loses_no_stroke(scan: Path, mask: Path, tmp_path: Path, runs: Path, seed: int) -> None:
    code = f"from tests.gui.test_keeping import strokes; strokes({str(tmp_path)!r})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    begun = child.stdout.readline()
    assert begun == "0\n"
    time.sleep(random.Random(seed).uniform(0, 0.7))
    child.kill()
    told = [int(line) for line in (begun + child.stdout.read()).splitlines(keepends=True) if line.endswith("\n")]
    child.stdout.close()
    child.wait()
    assert told == [*range(len(told))]
    (found,) = left_behind()
    assert found.path == beside(mask)
    expected = np.load(tmp_path / f"{told[-1]}.npy")
    assert found.changes - len(told) in (0, 1), "perhaps one more, that nobody was told of"
    if found.changes > len(told):
        more = found.mask == len(told) + 1
        assert more.any()
        expected[more] = len(told) + 1
    assert np.array_equal(found.mask, expected)
