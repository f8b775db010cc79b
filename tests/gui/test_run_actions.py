from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtWidgets import QMessageBox

from napari_medcl.gui.extension import ExtensionDialog
from napari_medcl.training import launch
from napari_medcl.training.delete import delete
from napari_medcl.training.events import Paused
from napari_medcl.training.run import Run
from tests.gui.conftest import a_run, answer
from tests.gui.listed import DONE, cells, choose, enabled, looked, names, press, started, step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were to be started; none is."""
    begun: list[list[str]] = []
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **_: begun.append(command[3:]))
    return begun


def test_buttons_start_what_the_command_line_does(
    viewer: Any, open_runs: Any, runs: Path, commands: list[list[str]], qtbot: QtBot
) -> None:
    run = a_run(runs, "1", "finetune", started("1"), step(4), Paused(step=4, message="rests"), steps=8)
    dock = open_runs()
    press(dock, "resume", qtbot)
    assert commands.pop() == ["runs", "resume", str(run.folder)]
    assert cells(dock, "1")["State"] == "starting"
    assert not enabled(dock) & {"resume", "extend", "delete"}
    run.answer()
    looked(dock, qtbot)
    press(dock, "repeat", qtbot)
    command = commands.pop()
    assert command[:4] == ["runs", "repeat", str(run.folder), "--run"]
    qtbot.waitUntil(lambda: dock.monitor.run is not None and str(dock.monitor.run.folder) == command[4])
    assert cells(dock, dock.monitor.run.name)["State"] == "starting"


@pytest.mark.parametrize(
    ("asked", "more", "told"),
    [
        ({"steps": 8}, {"steps": 100}, ["--steps", "100"]),
        ({"minutes": 3.0}, {"minutes": 2.5}, ["--minutes", "2.5"]),
        ({"steps": 8, "minutes": 3.0}, {"steps": 4, "minutes": 1.0}, ["--steps", "4", "--minutes", "1.0"]),
    ],
)
def test_extension_is_asked_for_in_what_the_run_is_counted_in(
    viewer: Any, open_runs: Any, runs: Path, commands: list[list[str]], asked: Any, more: Any, told: Any, qtbot: QtBot
) -> None:
    run = a_run(runs, "1", "finetune", step(8), DONE, **asked)
    dock = open_runs()

    def fill(dialog: Any) -> None:
        assert {name for name in ("steps", "minutes") if getattr(dialog, name) is not None} == set(more)
        for name, value in more.items():
            getattr(dialog, name).setValue(value)
        dialog.accept()

    waiting = answer(ExtensionDialog, fill)
    press(dock, "extend", qtbot)
    assert not waiting.isActive()
    assert commands == [["runs", "extend", str(run.folder), *told]]


def test_runs_that_were_chosen_are_extended(
    viewer: Any, open_runs: Any, runs: Path, commands: list[list[str]], qtbot: QtBot
) -> None:
    """The table may change while the dialog is open."""
    run = a_run(runs, "1", "finetune", step(8), DONE, steps=8)
    dock = open_runs()

    def change(dialog: Any) -> None:
        dock.actions.show_briefs([], runs)
        dialog.accept()

    waiting = answer(ExtensionDialog, change)
    press(dock, "extend", qtbot)
    assert not waiting.isActive()
    assert [command[2] for command in commands] == [str(run.folder)]
    qtbot.waitUntil(lambda: dock.actions.findChild(ExtensionDialog) is None)


def test_nothing_else_is_begun_while_the_size_is_computed(
    viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot
) -> None:
    a_run(runs, "1", "finetune", DONE)
    dock = open_runs()
    waiting = answer(QMessageBox, QMessageBox.reject)
    with qtbot.waitSignal(dock.actions._sizing.ended):
        dock.actions.buttons["delete"].click()
        assert enabled(dock) == set()
    assert not waiting.isActive()
    assert "delete" in enabled(dock)
    qtbot.waitUntil(lambda: dock.actions.findChild(QMessageBox) is None)


def test_runs_that_are_counted_otherwise_are_not_extended_together(
    viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot
) -> None:
    a_run(runs, "1", "finetune", DONE, steps=8)
    a_run(runs, "2", "finetune", DONE, minutes=8.0)
    a_run(runs, "3", "pretrain", DONE, steps=9)
    dock = open_runs()
    choose(dock, "1", "2")
    assert "extend" not in enabled(dock)
    choose(dock, "1", "3")
    assert "extend" in enabled(dock)


def test_deleting_is_confirmed_and_live_runs_are_kept(
    viewer: Any, open_runs: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    for name in ("1", "2", "3"):
        a_run(runs, name, "finetune", DONE)
    (runs / "1" / "checkpoints" / "last.safetensors").write_bytes(b"x" * 2_000_000)
    alive(a_run(runs, "4", "finetune", step(1)))
    dock = open_runs()
    choose(dock, "1", "4")
    assert "delete" not in enabled(dock)
    choose(dock, "1", "2")
    texts: list[str] = []

    def say(button: str, box: QMessageBox) -> None:
        texts.append(box.text())
        next(one for one in box.buttons() if one.text().replace("&", "") == button).click()

    waiting = answer(QMessageBox, partial(say, "Cancel"))
    dock.actions.buttons["delete"].click()
    qtbot.waitUntil(lambda: len(texts) == 1 and not waiting.isActive())
    assert texts[0] == "Delete these 2 runs with models and curves, 2.0 MB? There is no way back.\n\n• 2\n• 1"
    assert len(list(runs.iterdir())) == 4
    waiting = answer(QMessageBox, partial(say, "Delete"))
    press(dock, "delete", qtbot)
    looked(dock, qtbot)
    assert not waiting.isActive()
    assert sorted(path.name for path in runs.iterdir()) == ["3", "4"]
    assert set(names(dock)) == {"3", "4"}
    assert dock.message.text() == "2 runs were deleted."


def test_what_is_wrong_with_one_run_keeps_no_other_from_its_action(
    viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot
) -> None:
    for name in ("1", "2", "3"):
        a_run(runs, name, "finetune", DONE)
    dock = open_runs()
    choose(dock, "1", "2", "3")
    Run(runs / "2").call()
    waiting = answer(QMessageBox, lambda box: next(one for one in box.buttons() if "Delete" in one.text()).click())
    with qtbot.waitSignals([dock.actions.acted, dock.actions.failed]):
        dock.actions.buttons["delete"].click()
    assert not waiting.isActive()
    assert dock.message.text() == "⚠ 2 was not deleted: it goes on. Stop it first. 2 runs were deleted."
    qtbot.waitUntil(lambda: names(dock) == ["2"])


def test_the_table_is_looked_at_again_where_nothing_could_be_done(
    viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot
) -> None:
    run = a_run(runs, "1", "finetune", DONE)
    dock = open_runs()
    dock._watch._timer.setInterval(60_000)
    run.call()
    dock.actions._do(partial(delete, root=runs), [run], "deleted")
    qtbot.waitUntil(lambda: "it goes on" in dock.message.text())
    qtbot.waitUntil(lambda: cells(dock, "1")["State"] == "starting")
    assert run.folder.is_dir()


def test_model_of_a_run_is_applied(viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot) -> None:
    run = a_run(runs, "1", "finetune", DONE)
    (run.folder / "checkpoints" / "best.safetensors").touch()
    dock = open_runs()
    dock.actions.buttons["apply"].click()
    apply = viewer.window._wrapped_dock_widgets["Apply (medcl)"].widget()
    assert apply.model.value() == run.folder
    qtbot.waitUntil(lambda: not apply._look.running, timeout=60_000)
