from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox, QWidget

from napari_medcl.gui import closing
from napari_medcl.gui.closing import ClosingGuard
from tests.gui.conftest import a_run, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_medcl.training.run import Run


class Cross(QCloseEvent):
    """What the window system sends when somebody clicks the cross of a window."""

    def spontaneous(self) -> bool:
        return True


@pytest.fixture
def going(runs: Path) -> Iterator[list[Run]]:
    """Two runs that go on."""
    with ExitStack() as locks:
        made = [a_run(runs, name) for name in ("1", "2")]
        for run in made:
            locks.enter_context(run.locked())
        yield made


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    """A viewer with a dock."""
    viewer = make_napari_viewer(show=True)
    viewer.window.add_plugin_dock_widget("medcl", "Runs")
    return viewer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs that were asked about; the viewer stays open."""
    names: list[list[str]] = []
    monkeypatch.setattr(closing, "ask", lambda _, runs: names.append([run.name for run in runs]) or "cancel")
    return names


def press(button: str, texts: list[str], box: QMessageBox) -> None:
    texts.append(box.text())
    assert all(one.toolTip() for one in box.buttons())
    assert box.defaultButton().text().replace("&", "") == "Leave running"
    next(one for one in box.buttons() if one.text().replace("&", "") == button).click()


def in_the_loop(act: Callable[[], Any], qtbot: QtBot) -> None:
    """Does something while the window waits for the user, as a menu or a key does."""
    done: list[bool] = []
    QTimer.singleShot(0, lambda: (act(), done.append(True)))
    while not done:
        qtbot.wait(10)


@pytest.mark.parametrize(
    ("button", "request_", "open_"),
    [("Leave running", None, False), ("Pause", "pause", False), ("Stop", "stop", False), ("Cancel", None, True)],
)
def test_the_cross_asks_what_becomes_of_the_runs(
    viewer: Any, going: list[Run], button: str, request_: str | None, open_: bool
) -> None:
    window, texts = viewer.window._qt_window, []
    waiting = answer(QMessageBox, partial(press, button, texts))
    event = Cross()
    QApplication.sendEvent(window, event)
    assert not waiting.isActive()
    assert texts == ["2 runs go on:\n• 2\n• 1"]
    assert event.isAccepted() is not open_
    if not open_:
        assert all(run.asked() is None for run in going), "not before the window has closed"
        window.hide()
    assert [run.asked() for run in going] == [request_, request_]
    assert all(run.is_alive() for run in going)


@pytest.mark.parametrize(("button", "request_"), [("Pause", "pause"), ("Leave running", None)])
def test_menu_and_keys_ask_too(viewer: Any, going: list[Run], button: str, request_: str | None, qtbot: QtBot) -> None:
    window, texts = viewer.window._qt_window, []
    waiting = answer(QMessageBox, partial(press, button, texts))
    in_the_loop(lambda: QApplication.sendEvent(window, QCloseEvent()), qtbot)
    assert len(texts) == 1
    assert not waiting.isActive()
    window.hide()
    assert [run.asked() for run in going] == [request_, request_]


def test_answer_does_not_count_where_the_window_stays_open_after_all(viewer: Any, going: list[Run]) -> None:
    """As when the user thinks better of it in the viewer's own question."""
    window = viewer.window._qt_window
    waiting = answer(QMessageBox, partial(press, "Stop", []))
    guard = window.findChild(ClosingGuard)
    assert not guard.eventFilter(window, Cross())
    waiting = answer(QMessageBox, partial(press, "Leave running", []))
    assert not guard.eventFilter(window, Cross())
    assert not waiting.isActive()
    window.hide()
    assert [run.asked() for run in going] == [None, None]


def test_answer_does_not_count_when_a_script_closes_the_window_later(
    viewer: Any, going: list[Run], qtbot: QtBot
) -> None:
    window = viewer.window._qt_window
    waiting = answer(QMessageBox, partial(press, "Stop", []))
    assert not window.findChild(ClosingGuard).eventFilter(window, Cross())
    assert not waiting.isActive()
    in_the_loop(viewer.close, qtbot)
    assert [run.asked() for run in going] == [None, None]


def test_script_that_closes_the_viewer_is_not_asked(
    viewer: Any, going: list[Run], asked: list[list[str]], qtbot: QtBot
) -> None:
    window = viewer.window._qt_window
    in_the_loop(viewer.close, qtbot)
    assert not window.isVisible()
    assert asked == []


def test_nobody_is_asked_while_no_event_loop_runs(viewer: Any, going: list[Run], asked: list[list[str]]) -> None:
    event = QCloseEvent()
    QApplication.sendEvent(viewer.window._qt_window, event)
    assert event.isAccepted()
    assert asked == []


def test_every_dock_guards_and_one_guard_is_enough(
    make_napari_viewer: Any, going: list[Run], asked: Any, qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    assert window.findChild(ClosingGuard) is None
    for name in ("Superpixels", "Train", "Runs"):
        _, dock = viewer.window.add_plugin_dock_widget("medcl", name)
        qtbot.waitUntil(dock.isVisible)
        assert len(window.findChildren(ClosingGuard)) == 1
    QApplication.sendEvent(window, Cross())
    assert asked == [["2", "1"]]


def test_guard_outlives_the_docks(viewer: Any, going: list[Run], asked: list[list[str]]) -> None:
    window = viewer.window._qt_window
    viewer.window.remove_dock_widget("all")
    QApplication.processEvents()
    QApplication.sendEvent(window, Cross())
    assert asked == [["2", "1"]]


def test_runs_that_end_anyway_or_elsewhere_are_not_asked_about(
    viewer: Any, runs: Path, going: list[Run], asked: list[list[str]]
) -> None:
    window = viewer.window._qt_window
    going[0].ask("pause")
    (going[1].folder / "owner.json").write_text(json.dumps({"host": "another-machine", "process": 1}))
    a_run(runs, "ended")
    QApplication.sendEvent(window, Cross())
    assert asked == []
    a_run(runs, "3").call()
    QApplication.sendEvent(window, Cross())
    assert asked == [["3"]]


def test_folder_that_was_named_counts_too(viewer: Any, tmp_path: Path, asked: list[list[str]], qtbot: QtBot) -> None:
    dock = viewer.window._wrapped_dock_widgets["Runs (medcl)"].widget()
    dock.folder.setValue(tmp_path / "share")
    dock._turn_to()
    with a_run(tmp_path / "share", "1").locked():
        QApplication.sendEvent(viewer.window._qt_window, Cross())
    assert asked == [["1"]]


def test_slow_share_does_not_hold_the_window(going: list[Run], runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then is asked about."""
    real, stuck = closing.list_runs, []

    def slow(folder: Path) -> list[Run]:
        if folder != runs:
            stuck.append(folder)
            time.sleep(3)
        return real(folder)

    monkeypatch.setattr(closing, "list_runs", slow)
    assert [run.name for run in closing.going_on([runs.parent / "share", runs])] == ["2", "1"]
    assert stuck == [runs.parent / "share"]


def test_all_of_many_runs_are_found(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked at together, as each takes its time."""
    names = [f"{number:02}" for number in range(14, 0, -1)]
    for name in names:
        a_run(runs, name)
    monkeypatch.setattr(closing, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(closing.Run, "goes_on_here", lambda _: time.sleep(0.1) or True)
    assert [run.name for run in closing.going_on([runs])] == names


def test_request_to_a_run_that_is_gone_does_not_keep_the_window_open(viewer: Any, runs: Path, going: list[Run]) -> None:
    window = viewer.window._qt_window
    waiting = answer(QMessageBox, partial(press, "Stop", []))
    QApplication.sendEvent(window, Cross())
    assert not waiting.isActive()
    going[0].folder.rename(runs.parent / "moved")
    window.hide()
    assert going[1].asked() == "stop"
    (runs.parent / "moved").rename(going[0].folder)


def test_many_runs_are_counted(viewer: Any, going: list[Run], qtbot: QtBot) -> None:
    texts: list[str] = []
    waiting = answer(QMessageBox, partial(press, "Cancel", texts))
    assert closing.ask(viewer.window._qt_window, going * 6) == "cancel"
    assert not waiting.isActive()
    assert texts[0].startswith("12 runs go on:")
    assert texts[0].endswith("• and 4 more")
    qtbot.waitUntil(lambda: viewer.window._qt_window.findChild(QMessageBox) is None)


def test_widget_outside_a_window_has_no_guard(qtbot: QtBot) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    window.setCentralWidget(QWidget())
    assert ClosingGuard.of(window) is ClosingGuard.of(window) is not None
    box = QMessageBox()
    qtbot.addWidget(box)
    assert ClosingGuard.of(box) is None
