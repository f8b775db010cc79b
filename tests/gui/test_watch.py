from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

LONG_MS = 3_600_000


@pytest.fixture
def widget(qtbot: QtBot) -> QWidget:
    widget = QWidget()
    qtbot.addWidget(widget)
    return widget


def watch(widget: QWidget, function: Callable[..., Any] | None, every_ms: int = LONG_MS) -> Watch:
    return Watch(widget, every_ms, lambda: function)


def test_looks_when_it_is_shown_and_at_intervals(widget: QWidget, qtbot: QtBot) -> None:
    looks: list[int] = []
    watching = watch(widget, lambda **_: looks.append(1), every_ms=5)
    watching.now()
    assert not watching._task.running
    with qtbot.waitSignal(watching.looked):
        widget.show()
    qtbot.waitUntil(lambda: len(looks) > 3)


def test_nothing_is_looked_at_while_it_is_hidden(widget: QWidget, qtbot: QtBot) -> None:
    watching = watch(widget, lambda **_: None, every_ms=5)
    with qtbot.waitSignal(watching.looked):
        widget.show()
    widget.hide()
    qtbot.waitUntil(lambda: not watching._task.running)
    with qtbot.assertNotEmitted(watching.looked, wait=100):
        watching.now()


def test_one_look_at_a_time_and_one_more_where_somebody_asked(widget: QWidget, qtbot: QtBot) -> None:
    go, under_way, most = threading.Semaphore(0), [0], [0]

    def look(**_: Any) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        go.acquire()
        under_way[0] -= 1

    watching = watch(widget, look)
    widget.show()
    watching.now()
    watching.now()
    go.release()
    with qtbot.waitSignal(watching.looked):
        pass
    assert watching._task.running
    go.release()
    with qtbot.waitSignal(watching.looked):
        pass
    assert not watching._task.running
    assert most == [1]


def test_what_went_wrong_is_said_and_it_looks_on(widget: QWidget, qtbot: QtBot) -> None:
    def look(**_: Any) -> None:
        raise UserError("The folder is gone.")

    watching = watch(widget, look, every_ms=5)
    with qtbot.waitSignals([watching.failed, watching.failed]) as told:
        widget.show()
    assert told.all_signals_and_args[0].args == ("The folder is gone.",)


def test_nothing_to_look_at_is_fine(widget: QWidget) -> None:
    watching = watch(widget, None)
    widget.show()
    assert not watching._task.running


def test_nothing_is_looked_at_in_a_dock_behind_another_one(qtbot: QtBot) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    docks = [QDockWidget(name) for name in ("one", "two")]
    for dock in docks:
        dock.setWidget(QWidget())
        window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    window.tabifyDockWidget(*docks)
    looks: list[int] = []
    watching = watch(docks[0].widget(), lambda **_: looks.append(1))
    window.show()
    docks[1].raise_()
    qtbot.waitUntil(lambda: docks[0].visibleRegion().isEmpty() and not watching._task.running)
    looks.clear()
    with qtbot.assertNotEmitted(watching.looked, wait=100):
        watching.now()
    with qtbot.waitSignal(watching.looked):
        docks[0].raise_()
    assert looks == [1]
