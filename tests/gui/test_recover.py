from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtWidgets import QMessageBox

from napari_medcl.correction.journal import apart, beside, note_journal, read
from napari_medcl.correction.record import Record
from napari_medcl.gui.keeping import about, file_of, left_behind
from tests.gui.conftest import answer, same_geometry
from tests.gui.test_correct import close_dock, names, open_dock, opened, windowless
from tests.gui.test_keeping import paint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

_CHILD = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from napari_medcl.correction.journal import Journal

mask = np.load(sys.argv[2])
journal = Journal.begin(Path(sys.argv[1]), mask, json.loads(sys.argv[3]))
for place in range(3):
    mask[0, 0, place] = 5
    journal.note(mask)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


def killed(path: Path, mask: Any, told: dict[str, Any], runs: Path) -> None:
    """A process that made three edits and was killed."""
    np.save(runs.parent / "before.npy", mask)
    arguments = [str(path), str(runs.parent / "before.npy"), json.dumps(told)]
    child = subprocess.run([sys.executable, "-c", _CHILD, *arguments], check=False)
    assert child.returncode == -signal.SIGKILL
    note_journal(runs.parent / "corrections", path)


@pytest.fixture
def left(viewer: Any, scan: Path, mask: Path, runs: Path) -> Any:
    """Edits of a mask whose viewer was killed; the mask as it was then."""
    viewer.open([scan, mask], plugin="medcl")
    layer = viewer.layers["mask"]
    Record(origin="a run").review(0, 4).store(mask)
    killed(beside(mask), layer.data, about(layer, viewer.layers["scan"]), runs)
    expected = layer.data.copy()
    expected[0, 0, :3] = 5
    viewer.layers.clear()
    return expected


def test_where_nothing_is_left_nothing_is_offered(viewer: Any, scan: Path, mask: Path) -> None:
    dock = opened(viewer, scan, mask)
    assert not dock.recover.isVisibleTo(dock)
    paint(viewer.layers["mask"], 6, 15, 16)
    dock.recover.refresh()
    assert not dock.recover.isVisibleTo(dock), "these are in hand"


def test_what_is_left_is_offered_and_taken_up(viewer: Any, left: Any, scan: Path, mask: Path, qtbot: QtBot) -> None:
    dock, journal = open_dock(viewer), beside(mask)
    assert dock.recover.isVisibleTo(dock)
    assert dock.recover.found.currentText() == "mask, 3 edits"
    assert "never saved" in dock.recover.message.text()
    dock.recover.take.click()
    assert names(viewer) == ["scan", "mask"]
    layer = viewer.layers["mask"]
    assert np.array_equal(layer.data, left)
    assert np.allclose(layer.data_to_world((3, 4, 5)), viewer.layers["scan"].data_to_world((3, 4, 5)))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert dock.mask.value() is layer
    assert file_of(layer) == mask
    assert not dock.recover.isVisibleTo(dock)
    assert np.array_equal(read(journal).mask, left), "until it is saved"
    assert dock.keeper.unsaved
    assert dock.keeper.record.reviewed == ((0, 4),)
    assert "not saved yet" in dock.account.told.text()
    paint(layer, 6, 15, 16)
    assert np.array_equal(read(journal).mask, layer.data)
    assert read(journal).changes == 4
    dock.keeper.save(mask)
    assert not journal.exists()
    assert not left_behind()
    assert same_geometry(scan, mask)


def test_what_is_recovered_and_not_saved_is_offered_again(viewer: Any, left: Any, mask: Path) -> None:
    dock = open_dock(viewer)
    dock.recover.take.click()
    close_dock(viewer, dock)
    viewer.layers.clear()
    dock = open_dock(viewer)
    assert dock.recover.found.currentText() == "mask, 3 edits"
    dock.recover.take.click()
    paint(viewer.layers["mask"], 6, 15, 16)
    viewer.layers.remove("mask")
    dock.recover.refresh()
    (found,) = left_behind()
    left[6, 15, 16] = 2
    assert np.array_equal(found.mask, left)


def test_the_scan_is_not_opened_twice_and_may_be_gone(viewer: Any, left: Any, scan: Path) -> None:
    viewer.open(scan, plugin="medcl")
    dock = open_dock(viewer)
    dock.recover.take.click()
    assert names(viewer) == ["scan", "mask"]
    close_dock(viewer, dock)
    viewer.layers.clear()
    scan.unlink()
    dock = open_dock(viewer)
    dock.recover.take.click()
    assert names(viewer) == ["mask"]
    assert np.array_equal(viewer.layers["mask"].data, left)


def test_a_journal_that_is_gone_or_damaged_is_said(viewer: Any, left: Any, mask: Path) -> None:
    dock = open_dock(viewer)
    beside(mask).write_bytes(b"")
    dock.recover.take.click()
    assert "damaged" in dock.recover.message.text()
    assert "mask" not in viewer.layers


@pytest.mark.parametrize("yes", [True, False])
def test_discarding_is_asked_for(viewer: Any, left: Any, mask: Path, qtbot: QtBot, yes: bool) -> None:
    dock, before = open_dock(viewer), mask.read_bytes()
    button = QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No
    asked: list[str] = []

    def act(box: Any) -> None:
        asked.append(box.text())
        box.button(button).click()

    timer = answer(QMessageBox, act)
    dock.recover.drop.click()
    timer.stop()
    assert asked == ["Delete the edits of mask, 3 edits for good? The mask's file stays as it is."]
    assert beside(mask).exists() == (not yes)
    assert dock.recover.isVisibleTo(dock) == (not yes)
    assert len(left_behind()) == (not yes)
    assert mask.read_bytes() == before


def test_of_several_one_is_taken_up(viewer: Any, left: Any, mask: Path, runs: Path) -> None:
    told = json.loads(json.dumps(left_behind()[0].about))
    other = apart(runs.parent / "corrections")
    killed(
        other, np.zeros((2, 3, 4), np.int32), {**told, "mask": None, "layer": {**told["layer"], "name": "two"}}, runs
    )
    dock = open_dock(viewer)
    found = dock.recover.found
    assert [found.itemText(row) for row in range(found.count())] == ["two, 3 edits", "mask, 3 edits"]
    dock.recover.take.click()
    assert viewer.layers["two"].data[0, 0].tolist() == [5, 5, 5, 0]
    assert dock.recover.found.currentText() == "mask, 3 edits"
    dock.recover.take.click()
    assert not dock.recover.isVisibleTo(dock)
    assert not left_behind(), "the other is put aside, and still in hand"
    dock.mask.setValue(viewer.layers["two"])
    paint(viewer.layers["two"], 1, 2, 3)
    assert np.array_equal(read(other).mask, viewer.layers["two"].data)
    close_dock(viewer, dock)
    assert {one.about["layer"]["name"] for one in left_behind()} == {"two", "mask"}
