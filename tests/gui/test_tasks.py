from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import QThread
from qtpy.QtWidgets import QWidget
from superqt.utils import WorkerBase

from napari_medcl.errors import Stopped, UserError
from napari_medcl.gui.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot


@pytest.fixture
def task(qtbot: QtBot) -> Task:
    owner = QWidget()
    qtbot.addWidget(owner)
    task = Task(owner)
    task.owner = owner  # type: ignore[attr-defined]
    return task


def waiting(gate: threading.Event, answer: Any, *, progress: Callable[[float], None], stop: Callable[[], bool]) -> Any:
    progress(0.5)
    while not gate.wait(0.005):
        if stop():
            raise Stopped
    return answer


def raising(error: Exception, **_: Any) -> None:
    raise error


def test_answer_and_progress_arrive_in_the_thread_of_the_screen(task: Task, qtbot: QtBot) -> None:
    gate, heard, threads = threading.Event(), [], []
    task.progressed.connect(lambda fraction: (heard.append(fraction), threads.append(QThread.currentThread())))
    task.start(waiting, gate, "answer")
    qtbot.waitUntil(lambda: heard == [0.5])
    assert threads == [task.thread()]
    with qtbot.waitSignal(task.done) as answered, qtbot.waitSignal(task.ended):
        gate.set()
    assert answered.args == ["answer"]
    assert not task.running


def test_only_the_last_answer_counts(task: Task, qtbot: QtBot) -> None:
    gates, answers = [threading.Event(), threading.Event()], []
    task.done.connect(answers.append)
    task.start(waiting, gates[0], "stale")
    task.start(waiting, gates[1], "fresh")
    gates[0].set()
    gates[1].set()
    qtbot.waitUntil(lambda: bool(answers))
    qtbot.wait(50)
    assert answers == ["fresh"]


def test_stop_reaches_the_function_and_nothing_is_answered(task: Task, qtbot: QtBot) -> None:
    left = threading.Event()

    def function(*, stop: Callable[[], bool], **_: Any) -> None:
        while not stop():
            time.sleep(0.005)
        left.set()

    with qtbot.assertNotEmitted(task.done, wait=50), qtbot.waitSignal(task.ended):
        task.start(function)
        task.stop()
    assert left.wait(2)
    assert not task.running


def test_function_gives_up_when_the_widget_is_gone(qtbot: QtBot) -> None:
    left, owner = threading.Event(), QWidget()
    task = Task(owner)

    def function(*, stop: Callable[[], bool], **_: Any) -> None:
        while not stop():
            time.sleep(0.005)
        left.set()

    task.start(function)
    owner.deleteLater()
    qtbot.waitUntil(left.is_set)


def test_the_viewer_ends_without_waiting_for_the_answer(task: Task, qtbot: QtBot) -> None:
    """napari asks all workers to quit when it ends, and then waits for them without a limit."""
    heard: list[float] = []
    task.progressed.connect(heard.append)
    task.start(waiting, threading.Event(), "never")
    qtbot.waitUntil(lambda: heard == [0.5])
    WorkerBase.await_workers(2000)


def test_what_the_user_can_mend_is_said_as_it_is(task: Task, qtbot: QtBot) -> None:
    with qtbot.waitSignal(task.failed) as failed, qtbot.waitSignal(task.ended):
        task.start(raising, UserError("The folder is empty."))
    assert failed.args == ["The folder is empty."]


def test_a_fault_of_ours_is_said_without_a_traceback_and_logged(
    task: Task, qtbot: QtBot, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL), qtbot.waitSignal(task.failed) as failed:
        task.start(raising, KeyError("x"))
    assert "Traceback" not in failed.args[0]
    assert "KeyError" in failed.args[0]
