"""Made-up runs, and the dock that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QItemSelectionModel, Qt

from napari_medcl.training.events import Evaluated, Finished, Started, Stepped

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

DONE = Finished(step=8, reason="done", message="Done.")
ABOUT: Any = {"stage": "finetune", "device": "cpu", "precision": "float32", "minutes": None, "cases": 3}


def started(run: str, steps: int = 8) -> Started:
    return Started(run=run, steps=steps, message="3 scans, 2D", **ABOUT)


def step(number: int, at: float = 10.0, **terms: float) -> Stepped:
    return Stepped(time=at, step=number, progress=number / 8, terms=terms or {"dice": 0.9}, rate=0.1, remaining_s=600)


def score(number: int, mean: float) -> Evaluated:
    return Evaluated(step=number, dice={"liver": mean}, mean=mean, best=True)


def looked(dock: Any, qtbot: QtBot) -> None:
    """Waits until the dock has looked once more, and the run monitor too where it is in front."""
    with qtbot.waitSignal(dock._watch.looked):
        dock._watch.now()
    if dock.monitor.isVisible() and dock.monitor.run is not None:
        monitor = dock.monitor
        with qtbot.waitSignal(monitor._watch.looked, check_params_cb=lambda look: look.follower is monitor._follower):
            monitor.look()


def names(dock: Any) -> list[str]:
    model = dock.table.model()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def cells(dock: Any, name: str) -> dict[str, str]:
    """What the table tells of a run."""
    model = dock.table.model()
    titles = [model.headerData(column, Qt.Orientation.Horizontal) for column in range(model.columnCount())]
    row = names(dock).index(name)
    return {title: model.index(row, column).data() for column, title in enumerate(titles)}


def choose(dock: Any, *chosen: str) -> None:
    flags = QItemSelectionModel.SelectionFlag
    dock.table.clearSelection()
    for name in chosen:
        index = dock.table.model().index(names(dock).index(name), 0)
        dock.table.selectionModel().select(index, flags.Select | flags.Rows)


def enabled(dock: Any) -> set[str]:
    return {name for name, button in dock.actions.buttons.items() if button.isEnabled()}


def press(dock: Any, name: str, qtbot: QtBot) -> None:
    """Presses a button and waits for what comes of it."""
    with qtbot.waitSignal(dock.actions._task.ended):
        dock.actions.buttons[name].click()
    looked(dock, qtbot)
