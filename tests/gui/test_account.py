from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_medcl.correction.record import Record, Version
from napari_medcl.gui.account import in_words
from tests.gui.conftest import same_geometry, save
from tests.gui.test_correct import open_dock, opened, windowless
from tests.gui.test_keeping import paint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What dialogs for a file suggested; the answer is a file in the folder `chosen`, with the last one's name."""
    suggestions: list[str] = []
    (tmp_path / "chosen").mkdir()

    def answer(_: Any, __: str, suggestion: str, *___: Any) -> tuple[str, str]:
        suggestions.append(suggestion)
        return str(tmp_path / "chosen" / suggestion.rsplit("/", 1)[-1]), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    return suggestions


def test_saving_again_and_elsewhere(viewer: Any, scan: Path, mask: Path, asked: list[str]) -> None:
    dock = opened(viewer, scan, mask)
    layer, account, old = viewer.layers["mask"], dock.account, mask.read_bytes()
    assert account.told.text() == "0 edits in 0 min"
    paint(layer, 6, 15, 16)
    assert account.told.text() == "1 edit in 0 min, not saved yet"
    account.save.click()
    assert not asked
    (backup,) = (mask.parent / ".medcl-backups").iterdir()
    assert backup.read_bytes() == old
    assert account.message.text() == f"Saved as {mask}. The file that was there is {backup}."
    volumes = [np.count_nonzero(layer.data == label) * np.prod(layer.scale) / 1000 for label in (1, 2)]
    told = f"1 edit in 0 min. Version 1: 1: {volumes[0]:.3g} ml, 2: {volumes[1]:.3g} ml"
    assert account.told.text() == told
    paint(layer, 6, 15, 17)
    account.save_as.click()
    assert asked == [str(mask)]
    elsewhere = mask.parent / "chosen" / "mask.nii.gz"
    assert same_geometry(scan, elsewhere)
    assert np.array_equal(np.asarray(nib.load(elsewhere).dataobj).T, layer.data)
    assert account.message.text() == f"Saved as {elsewhere}."
    paint(layer, 6, 15, 18)
    account.save.click()
    assert np.array_equal(np.asarray(nib.load(elsewhere).dataobj).T, layer.data), "the file that it was saved to last"


def test_a_mask_without_a_file_is_asked_for_one(viewer: Any, scan: Path, asked: list[str]) -> None:
    dock = opened(viewer, scan)
    dock.account.save.click()
    assert not asked
    dock.account.save_as.click()
    assert "no mask to correct" in dock.account.message.text()
    dock.new.click()
    dock.account.save.click()
    assert asked == [str(scan.parent / "scan_mask.nii.gz")]
    assert same_geometry(scan, scan.parent / "chosen" / "scan_mask.nii.gz")


def test_what_cannot_be_saved_is_said(viewer: Any, scan: Path, mask: Path) -> None:
    dock = opened(viewer, scan, mask)
    paint(viewer.layers["mask"], 6, 15, 16)
    dock.account.save_to(mask.parent / "mask.txt")
    assert dock.account.message.text().startswith("⚠")
    assert "mask.txt" in dock.account.message.text()
    assert "not saved yet" in dock.account.told.text()


def test_the_table_is_of_all_masks_in_the_folder(
    viewer: Any, scan: Path, mask: Path, brick: Any, asked: list[str], tmp_path: Path
) -> None:
    second = save(tmp_path / "second.nii.gz", brick[1])
    dock = opened(viewer, scan, mask, second)
    account, first = dock.account, viewer.layers["mask"]
    dock.mask.setValue(first)
    account.table.click()
    assert "was saved from here yet" in account.message.text()
    paint(first, 6, 15, 16)
    account.save.click()
    paint(first, 6, 15, 16, label=1)
    account.save.click()
    dock.mask.setValue(viewer.layers["second"])
    dock.keeper.review(0, 3, done=True)
    account.save.click()
    account.table.click()
    assert asked[-1] == "corrections.csv"
    table = tmp_path / "chosen" / "corrections.csv"
    assert account.message.text() == f"The table of 2 masks is {table}."
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["case"], row["version"], row["label"], row["edits"], row["reviewed_slices"]) for row in rows]
    assert found == [
        ("mask", "1", "1", "1", "0"),
        ("mask", "1", "2", "1", "0"),
        ("mask", "2", "1", "2", "0"),
        ("mask", "2", "2", "2", "0"),
        ("second", "1", "1", "0", "1"),
    ]
    volume = brick[1].sum() * np.prod(first.scale) / 1000
    assert float(rows[4]["volume_ml"]) == pytest.approx(volume)
    assert float(rows[2]["volume_ml"]) == pytest.approx(volume)
    assert float(rows[3]["dice"]) == 0
    dock.mask.setValue(viewer.add_labels(np.zeros((4, 5), int), name="drawn"))
    account.table.click()
    assert "no file yet" in account.message.text()


def test_a_record_that_is_damaged_is_said(viewer: Any, scan: Path, mask: Path) -> None:
    mask.with_name(f".{mask.name}.medcl.json").write_text("{", "utf-8")
    viewer.open(scan, plugin="medcl")
    dock = open_dock(viewer)
    viewer.open(mask, plugin="medcl")
    dock.mask.setValue(viewer.layers["mask"])
    assert "is damaged" in dock.account.message.text()


def test_what_was_done_in_words() -> None:
    version = Version(time="2026-11-25", seconds=0, edits=0, volumes_ml={n: n / 3 for n in range(1, 9)})
    record = Record(origin="empty", seconds=100, edits=12, versions=(version, version))
    told = "12 edits in 2 min, not saved yet. Version 2: 1: 0.333 ml, 2: 0.667 ml, 3: 1 ml, 4: 1.33 ml, 5: 1.67 ml"
    assert in_words(record, unsaved=True) == f"{told}, 6: 2 ml"
    empty = version.model_copy(update={"volumes_ml": {}})
    assert in_words(Record(origin="x", versions=(empty,)), unsaved=False) == "0 edits in 0 min. Version 1: empty"


def test_time_counts_while_one_works(viewer: Any, scan: Path, mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("napari_medcl.gui.keeping.time.monotonic", lambda: clock[0])
    dock = opened(viewer, scan, mask)
    for passed in (10, 30, 900):
        clock[0] += passed
        paint(viewer.layers["mask"], 6, 15, passed % 32)
    assert dock.keeper.record.seconds == 10 + 30 + 60
    assert dock.account.told.text() == "3 edits in 2 min, not saved yet"
