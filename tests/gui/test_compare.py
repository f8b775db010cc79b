from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QItemSelectionModel

from napari_medcl.errors import UserError
from napari_medcl.gui import compare
from tests.gui.conftest import a_run
from tests.gui.listed import DONE, choose, looked, score, step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_medcl.training.run import Run


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


def test_several_runs_are_compared(
    viewer: Any, open_runs: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    a_run(runs, "first", "finetune", step(1, dice=3.0), step(2, dice=2.0), score(2, 0.5), DONE)
    second = alive(a_run(runs, "second", "finetune", step(1, dice=1.0, entropy=5.0), score(1, 0.25)))
    a_run(runs, "third", "pretrain", step(1, instance=4.0), DONE)
    dock = open_runs()
    choose(dock, "first", "second", "third")
    compared = dock.comparison
    qtbot.waitUntil(lambda: set(compared.plot._curves) == {"first", "second"})
    assert compared.isVisible()
    assert not dock.monitor.isVisible()
    offered = [compared.curve.itemText(index) for index in range(compared.curve.count())]
    assert offered == ["Dice: mean", "Dice: liver", "loss: dice", "loss: entropy", "loss: instance"]
    assert compared.curve.value() == "Dice: mean"
    assert "first" in compared.legend.text()
    assert "1 of the runs do not have this curve" in compared.legend.text()
    compared.curve.setValue("loss: dice")
    qtbot.waitUntil(lambda: compared.plot._curves["first"].getOriginalDataset()[1].tolist() == [3.0, 2.0])
    second.append(step(2, dice=0.5))
    qtbot.waitUntil(lambda: compared.plot._curves["second"].getOriginalDataset()[1].tolist() == [1.0, 0.5])
    pens = [compared.plot.pen(name) for name in ("first", "second")]
    assert pens[0].color() != pens[1].color()
    assert pens[0].style() != pens[1].style()
    choose(dock, "third")
    assert dock.monitor.isVisible()
    assert not compared.isVisible()


def test_nothing_is_drawn_where_nothing_has_changed(
    viewer: Any, open_runs: Any, runs: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    for name in ("1", "2"):
        a_run(runs, name, "finetune", step(1), score(1, 0.5), DONE)
    dock = open_runs()
    drawn: dict[Any, int] = {}
    for plot in (dock.monitor.losses, dock.comparison.plot):
        draw, drawn[plot] = plot.draw, 0

        def count(lines: Any, plot: Any = plot, draw: Any = draw) -> None:
            drawn[plot] += 1
            draw(lines)

        monkeypatch.setattr(plot, "draw", count)
    looked(dock, qtbot)
    assert drawn[dock.monitor.losses] == 0
    choose(dock, "1", "2")
    qtbot.waitUntil(lambda: drawn[dock.comparison.plot] > 0)
    with qtbot.waitSignal(dock.comparison._watch.looked):
        dock.comparison._watch.now()
    assert drawn[dock.comparison.plot] == 1


def test_more_runs_than_can_be_told_apart_are_not_drawn(viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot) -> None:
    for number in range(14):
        a_run(runs, f"{number}", "finetune", step(1))
    dock = open_runs()
    dock.table.selectAll()
    qtbot.waitUntil(lambda: len(dock.comparison.plot._curves) == 12)
    assert "2 more are not drawn" in dock.comparison.legend.text()
    flags = QItemSelectionModel.SelectionFlag
    dock.table.selectionModel().select(dock.table.model().index(13, 0), flags.Deselect | flags.Rows)
    qtbot.waitUntil(lambda: "1 more are not drawn" in dock.comparison.legend.text())


def test_runs_that_cannot_be_read_are_told_of(
    viewer: Any, open_runs: Any, runs: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    for name in ("1", "2"):
        a_run(runs, name, "finetune", step(1))
    dock = open_runs()

    def fail(*_: Any, **__: Any) -> None:
        raise UserError("The share is away.")

    with monkeypatch.context() as broken:
        broken.setattr(compare, "compare", fail)
        choose(dock, "1", "2")
        qtbot.waitUntil(lambda: dock.comparison.message.text() == "⚠ The share is away.")
    qtbot.waitUntil(lambda: not dock.comparison.message.isVisible())
