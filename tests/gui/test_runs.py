from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.compat import isalive
from qtpy.QtCore import QItemSelectionModel, Qt
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_medcl.gui import runs as dock_module
from napari_medcl.gui.extension import ExtensionDialog
from napari_medcl.gui.run_actions import delete_all
from napari_medcl.training import launch
from napari_medcl.training.events import Evaluated, Failed, Finished, Paused, Saved, Started, Stepped, Waiting
from tests.gui.conftest import a_run, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_medcl.training.run import Run

DONE = Finished(step=8, reason="done", message="Done.")
ABOUT: Any = {"stage": "finetune", "device": "cpu", "precision": "float32", "minutes": None, "cases": 3}


def started(run: str, steps: int = 8) -> Started:
    return Started(run=run, steps=steps, message="3 scans, 2D", **ABOUT)


def step(number: int, at: float = 10.0, **terms: float) -> Stepped:
    return Stepped(time=at, step=number, progress=number / 8, terms=terms or {"dice": 0.9}, rate=0.1, remaining_s=600)


def score(number: int, mean: float) -> Evaluated:
    return Evaluated(step=number, dice={"liver": mean}, mean=mean, best=True)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def open_dock(viewer: Any, qtbot: QtBot) -> Callable[[], Any]:
    """Opens the dock and waits until it has looked."""

    def opened() -> Any:
        _, dock = viewer.window.add_plugin_dock_widget("medcl", "Runs")
        looked(dock, qtbot)
        return dock

    return opened


@pytest.fixture
def alive() -> Iterator[Callable[[Run], Run]]:
    """Lets runs go on: this process holds their locks."""
    with ExitStack() as locks:

        def hold(run: Run) -> Run:
            locks.enter_context(run.locked())
            return run

        yield hold


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were to be started; none is."""
    begun: list[list[str]] = []
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **_: begun.append(command[3:]))
    return begun


def looked(dock: Any, qtbot: QtBot) -> None:
    """Waits until the dock has looked once more, and the run monitor too where it is in front."""
    with qtbot.waitSignal(dock._watch.looked):
        dock._watch.now()
    if dock.monitor.isVisible() and dock.monitor.run is not None:
        with qtbot.waitSignal(dock.monitor.looked):
            dock.monitor.look()


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


def test_what_the_table_tells(viewer: Any, open_dock: Any, runs: Path, alive: Callable[[Run], Run]) -> None:
    method = {"name": "supercl", "positives": "position", "intra": 0.0, "inter": 0.0}
    a_run(runs, "1", "finetune", step(4), score(4, 0.75), Paused(step=4, message="rests"))
    alive(a_run(runs, "2", "pretrain", step(2, 20), method=method))
    alive(a_run(runs, "3", "finetune", Waiting(time=30, ahead=("2", "x"), message="waits")))
    dock = open_dock()
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


def test_run_started_elsewhere_is_chosen_and_followed(
    viewer: Any, open_dock: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    going = alive(a_run(runs, "1", "finetune", started("1")))
    a_run(runs, "2", "pretrain", DONE)
    dock = open_dock()
    monitor = dock.monitor
    assert monitor.run == going
    assert "Fine-tuning is running, on cpu." in monitor.state.text()
    going.append(step(2, dice=0.9, entropy=2.0))
    going.append(score(2, 0.5))
    qtbot.waitUntil(lambda: "step 2 of 8, 10 min left" in monitor.state.text())
    assert monitor.bar.value() == 250
    assert set(monitor.losses._curves) == {"dice", "entropy"}
    assert monitor.losses._curves["entropy"].getOriginalDataset()[1].tolist() == [2.0]
    assert set(monitor.dice._curves) == {"liver", "mean"}
    assert monitor.dice.isVisible()
    assert "validation Dice 0.500" in monitor.message.text()
    press(dock, "stop", qtbot)
    assert going.asked() == "stop"
    assert "asked to stop" in dock.message.text()
    assert not enabled(dock) & {"pause", "stop", "delete", "resume", "extend"}
    (going.folder / "checkpoints" / "last.safetensors").touch()
    going.append(Saved(step=3, path="checkpoints/last.safetensors", best=False))
    going.append(Finished(step=3, reason="stopped", message="Stopped after step 3."))
    (going.folder / "owner.json").unlink()
    qtbot.waitUntil(lambda: "was stopped" in monitor.state.text())
    looked(dock, qtbot)
    assert {"apply", "resume", "extend", "delete"} <= enabled(dock)
    choose(dock, "2")
    looked(dock, qtbot)
    assert "Pre-training has finished" in monitor.state.text()
    assert monitor.losses._curves == {}
    assert not monitor.losses.isVisible()
    assert "apply" not in enabled(dock)


def test_monitor_tells_others_which_run_it_shows(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    first = a_run(runs, "1", "finetune", step(1), DONE)
    a_run(runs, "2", "finetune", step(1, 20), DONE)
    dock = open_dock()
    assert dock.monitor.run.name == "2"
    with qtbot.waitSignals([dock.monitor.runChanged, dock.monitor.looked]) as told:
        choose(dock, "1")
    assert first in [one.args[0] for one in told.all_signals_and_args if one.args]
    assert dock.preview._run == first


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ((Failed(step=0, message="No scan.", hint="Choose another folder."),), "⚠ No scan. Choose another folder."),
        ((), "⚠ The process that trained is gone"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_said(viewer: Any, open_dock: Any, runs: Path, events: Any, said: str) -> None:
    run = a_run(runs, "1", "finetune", *events)
    (run.folder / "log.txt").write_text("loading\nKilled\n")
    monitor = open_dock().monitor
    assert monitor.message.text().startswith(said)
    if not events:
        assert "has ended without a word" in monitor.state.text()
        assert monitor.message.text().endswith("Killed")


def test_folder_without_runs_says_how_to_begin(viewer: Any, open_dock: Any) -> None:
    dock = open_dock()
    assert "No run yet" in dock.monitor.state.text()
    assert not dock.monitor.losses.isVisible()
    assert enabled(dock) == set()


def test_unreadable_settings_harm_nothing(viewer: Any, open_dock: Any, runs: Path) -> None:
    (runs / "1").mkdir(parents=True)
    (runs / "1" / "config.json").write_text("{")
    a_run(runs, "2", "finetune", step(1), DONE)
    dock = open_dock()
    assert cells(dock, "1")["Method"] == "unreadable settings"
    assert dock.monitor.run.name == "1"
    assert enabled(dock) == {"folder", "delete"}


def test_run_that_vanishes_while_it_is_shown(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    kept = a_run(runs, "1", "finetune", step(1), DONE)
    gone = a_run(runs, "2", "finetune", step(1, 20), DONE)
    dock = open_dock()
    assert dock.monitor.run == gone
    shutil.rmtree(gone.folder)
    dock.monitor.look()
    qtbot.waitUntil(lambda: names(dock) == ["1"])
    assert dock.monitor.run == kept
    looked(dock, qtbot)
    assert "has finished" in dock.monitor.state.text()


def test_what_is_chosen_stays_chosen(
    viewer: Any, open_dock: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    made = [a_run(runs, f"{number}", "finetune", step(1, number)) for number in range(60)]
    dock = open_dock()
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


def test_rows_are_sorted_by_what_they_mean(viewer: Any, open_dock: Any, runs: Path) -> None:
    for name, dice in (("a", 0.5), ("b", None), ("c", 0.75)):
        a_run(runs, name, "finetune", *([] if dice is None else [score(1, dice)]), DONE)
    dock = open_dock()
    dock.table.sortByColumn(4, Qt.SortOrder.DescendingOrder)
    assert names(dock) == ["c", "a", "b"]


def test_columns_give_way_where_there_is_no_room(viewer: Any, open_dock: Any, runs: Path) -> None:
    a_run(runs, "1")
    table = open_dock().table
    shown = []
    for width in (330, 500, 1200):
        table.setFixedWidth(width)
        QApplication.processEvents()
        shown.append([not table.isColumnHidden(column) for column in range(table.model().columnCount())])
    assert shown[0] == [True, True, False, False, True, True, False]
    assert sum(shown[0]) < sum(shown[1]) < sum(shown[2])
    assert all(shown[2])


def test_several_runs_are_compared(
    viewer: Any, open_dock: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    a_run(runs, "first", "finetune", step(1, dice=3.0), step(2, dice=2.0), score(2, 0.5), DONE)
    second = alive(a_run(runs, "second", "finetune", step(1, dice=1.0, entropy=5.0), score(1, 0.25)))
    a_run(runs, "third", "pretrain", step(1, instance=4.0), DONE)
    dock = open_dock()
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
    viewer: Any, open_dock: Any, runs: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    for name in ("1", "2"):
        a_run(runs, name, "finetune", step(1), score(1, 0.5), DONE)
    dock = open_dock()
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


def test_more_runs_than_can_be_told_apart_are_not_drawn(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    for number in range(14):
        a_run(runs, f"{number}", "finetune", step(1))
    dock = open_dock()
    dock.table.selectAll()
    qtbot.waitUntil(lambda: len(dock.comparison.plot._curves) == 12)
    assert "2 more are not drawn" in dock.comparison.legend.text()


def test_buttons_start_what_the_command_line_does(
    viewer: Any, open_dock: Any, runs: Path, commands: list[list[str]], qtbot: QtBot
) -> None:
    run = a_run(runs, "1", "finetune", started("1"), step(4), Paused(step=4, message="rests"), steps=8)
    dock = open_dock()
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
    viewer: Any, open_dock: Any, runs: Path, commands: list[list[str]], asked: Any, more: Any, told: Any, qtbot: QtBot
) -> None:
    run = a_run(runs, "1", "finetune", step(8), DONE, **asked)
    dock = open_dock()

    def fill(dialog: Any) -> None:
        assert {name for name in ("steps", "minutes") if getattr(dialog, name) is not None} == set(more)
        for name, value in more.items():
            getattr(dialog, name).setValue(value)
        dialog.accept()

    waiting = answer(ExtensionDialog, fill)
    press(dock, "extend", qtbot)
    assert not waiting.isActive()
    assert commands == [["runs", "extend", str(run.folder), *told]]


def test_runs_that_are_counted_otherwise_are_not_extended_together(
    viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot
) -> None:
    a_run(runs, "1", "finetune", DONE, steps=8)
    a_run(runs, "2", "finetune", DONE, minutes=8.0)
    a_run(runs, "3", "pretrain", DONE, steps=9)
    dock = open_dock()
    choose(dock, "1", "2")
    assert "extend" not in enabled(dock)
    choose(dock, "1", "3")
    assert "extend" in enabled(dock)


def test_deleting_is_confirmed_and_live_runs_are_kept(
    viewer: Any, open_dock: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    for name in ("1", "2", "3"):
        a_run(runs, name, "finetune", DONE)
    (runs / "1" / "checkpoints" / "last.safetensors").write_bytes(b"x" * 2_000_000)
    alive(a_run(runs, "4", "finetune", step(1)))
    dock = open_dock()
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


def test_what_cannot_be_done_is_said(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    run = a_run(runs, "1", "finetune", DONE)
    dock = open_dock()
    run.call()
    dock.actions._do(delete_all, [run], runs)
    qtbot.waitUntil(lambda: "it goes on" in dock.message.text())
    assert run.folder.is_dir()


def test_another_folder_can_be_named(viewer: Any, open_dock: Any, runs: Path, tmp_path: Path, qtbot: QtBot) -> None:
    a_run(runs, "1", "finetune", DONE)
    a_run(tmp_path / "share", "2", "finetune", DONE)
    dock = open_dock()
    dock.folder.setValue(tmp_path / "share")
    qtbot.waitUntil(lambda: names(dock) == ["2"])
    assert dock.monitor.run.folder == tmp_path / "share" / "2"
    dock.folder.setValue(tmp_path / "nowhere")
    qtbot.waitUntil(lambda: "There is no folder" in dock.message.text())
    assert names(dock) == []
    assert dock.monitor.run is None
    dock.folder.setValue(None)
    qtbot.waitUntil(lambda: names(dock) == ["1"])
    assert not dock.message.isVisible()


def test_nothing_is_read_while_the_dock_is_hidden(
    viewer: Any, open_dock: Any, runs: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    a_run(runs, "1", "finetune", step(1))
    dock = open_dock()
    dock.parent().hide()
    qtbot.waitUntil(lambda: not dock._watch._task.running and not dock.monitor._watch._task.running)
    read: list[Any] = []
    monkeypatch.setattr(dock_module, "look_over", lambda *_, **__: read.append(1))
    monkeypatch.setattr("napari_medcl.gui.monitor.look_at", lambda *_, **__: read.append(1))
    dock._watch._timer.setInterval(1)
    qtbot.wait(100)
    assert read == []
    assert not dock._watch._timer.isActive()


def test_new_viewer_finds_the_run_again(
    make_napari_viewer: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    going = alive(a_run(runs, "1", "finetune", step(1)))
    a_run(runs, "2", "finetune", step(1, 20), DONE)
    for _ in range(2):
        viewer = make_napari_viewer(show=True)
        _, dock = viewer.window.add_plugin_dock_widget("medcl", "Runs")
        looked(dock, qtbot)
        assert dock.monitor.run == going
        assert "is running" in dock.monitor.state.text()
        viewer.close()
        going.append(step(2, time.time()))
    assert going.asked() is None


def test_runs_go_on_when_the_dock_is_closed(
    viewer: Any, open_dock: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    run = alive(a_run(runs, "1", "finetune", started("1")))
    dock = open_dock()
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not isalive(dock))
    viewer.theme = "light"
    assert run.asked() is None
    assert json.loads((run.folder / "config.json").read_text())["stage"] == "finetune"


def test_colours_follow_the_theme(viewer: Any, open_dock: Any) -> None:
    dock = open_dock()
    plots = [dock.monitor.losses, dock.comparison.plot]
    before = [plot.backgroundBrush().color().name() for plot in plots]
    viewer.theme = "light"
    assert all(plot.backgroundBrush().color().name() != old for plot, old in zip(plots, before, strict=True))


def test_model_of_a_run_is_applied(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    run = a_run(runs, "1", "finetune", DONE)
    (run.folder / "checkpoints" / "best.safetensors").touch()
    dock = open_dock()
    dock.actions.buttons["apply"].click()
    apply = viewer.window._wrapped_dock_widgets["Apply (medcl)"].widget()
    assert apply.model.value() == run.folder
    qtbot.waitUntil(lambda: not apply._look.running, timeout=60_000)
