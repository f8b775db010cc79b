from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_medcl.training.events import Paused, Waiting
from tests.gui.conftest import a_run
from tests.gui.listed import DONE, cells, choose, looked, names, score, step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_medcl.training.run import Run


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


def test_what_the_table_tells(viewer: Any, open_runs: Any, runs: Path, alive: Callable[[Run], Run]) -> None:
    method = {"name": "supercl", "positives": "position", "intra": 0.0, "inter": 0.0}
    a_run(runs, "1", "finetune", step(4), score(4, 0.75), Paused(step=4, message="rests"))
    alive(a_run(runs, "2", "pretrain", step(2, 20), method=method))
    alive(a_run(runs, "3", "finetune", Waiting(time=30, ahead=("2", "x"), message="waits")))
    dock = open_runs()
    assert names(dock) == ["3", "2", "1"]
    told = cells(dock, "1")
    assert told.pop("Began").startswith("1970")
    assert told == {
        "Run": "1", "State": "paused", "Method": "fine-tuning", "Data": "ACDC", "Dice": "0.750", "Progress": "50 %",
    }  # fmt: skip
    assert (cells(dock, "2")["Method"], cells(dock, "2")["Progress"]) == ("pre-training, PCL", "25 %, 10 min")
    assert (cells(dock, "3")["State"], cells(dock, "3")["Progress"]) == ("queued", "after 2")
    icon = dock.table.model().index(0, 1).data(Qt.ItemDataRole.DecorationRole)
    assert not icon.isNull()


def test_what_is_chosen_stays_chosen(
    viewer: Any, open_runs: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    made = [a_run(runs, f"{number}", "finetune", step(1, number)) for number in range(60)]
    dock = open_runs()
    choose(dock, "5", "40")
    bar = dock.table.verticalScrollBar()
    bar.setValue(bar.maximum() // 2)
    before = bar.value()
    alive(made[40]).append(step(3))
    made[5].append(DONE)
    looked(dock, qtbot)
    assert cells(dock, "40")["State"] == "running"
    assert {brief.run.name: brief.state for brief in dock.table.briefs()} == {"5": "finished", "40": "running"}
    assert bar.value() == before > 0
    dock.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
    assert names(dock)[:3] == ["0", "1", "10"]
    assert {brief.run.name for brief in dock.table.briefs()} == {"5", "40"}
    a_run(runs, "00", "finetune", step(1))
    shutil.rmtree(made[1].folder)
    looked(dock, qtbot)
    assert names(dock)[:3] == ["0", "00", "10"]
    assert {brief.run.name for brief in dock.table.briefs()} == {"5", "40"}


def test_rows_are_sorted_by_what_they_mean(viewer: Any, open_runs: Any, runs: Path) -> None:
    for name, dice in (("a", 0.5), ("b", None), ("c", 0.75)):
        a_run(runs, name, "finetune", *([] if dice is None else [score(1, dice)]), DONE)
    dock = open_runs()
    dock.table.sortByColumn(4, Qt.SortOrder.DescendingOrder)
    assert names(dock) == ["c", "a", "b"]


def test_columns_give_way_where_there_is_no_room(viewer: Any, open_runs: Any, runs: Path) -> None:
    a_run(runs, "1")
    table = open_runs().table
    shown = []
    for width in (330, 500, 1200):
        table.setFixedWidth(width)
        QApplication.processEvents()
        shown.append([not table.isColumnHidden(column) for column in range(table.model().columnCount())])
    assert shown[0] == [True, True, False, False, True, True, False]
    assert sum(shown[0]) < sum(shown[1]) < sum(shown[2])
    assert all(shown[2])
