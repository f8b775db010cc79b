from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.compat import isalive

from napari_medcl.errors import UserError
from napari_medcl.gui import runs as dock_module
from napari_medcl.training.events import Failed, Finished, Saved
from tests.gui.conftest import a_run
from tests.gui.listed import DONE, cells, choose, enabled, looked, names, press, score, started, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_medcl.training.run import Run


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


def test_run_started_elsewhere_is_chosen_and_followed(
    viewer: Any, open_runs: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    going = alive(a_run(runs, "1", "finetune", started("1")))
    a_run(runs, "2", "pretrain", DONE)
    dock = open_runs()
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
    qtbot.waitUntil(lambda: {"apply", "resume", "extend", "delete"} <= enabled(dock))
    choose(dock, "2")
    looked(dock, qtbot)
    assert "Pre-training has finished" in monitor.state.text()
    assert monitor.losses._curves == {}
    assert not monitor.losses.isVisible()
    assert "apply" not in enabled(dock)


def test_monitor_tells_others_which_run_it_shows(viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot) -> None:
    first = a_run(runs, "1", "finetune", step(1), DONE)
    a_run(runs, "2", "finetune", step(1, 20), DONE)
    dock = open_runs()
    assert dock.monitor.run.name == "2"
    with qtbot.waitSignals([dock.monitor.runChanged, dock.monitor._watch.looked]) as told:
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
def test_what_went_wrong_is_said(viewer: Any, open_runs: Any, runs: Path, events: Any, said: str) -> None:
    run = a_run(runs, "1", "finetune", *events)
    (run.folder / "log.txt").write_text("loading\nKilled\n")
    monitor = open_runs().monitor
    assert monitor.message.text().startswith(said)
    if not events:
        assert "has ended without a word" in monitor.state.text()
        assert monitor.message.text().endswith("Killed")


def test_folder_without_runs_says_how_to_begin(viewer: Any, open_runs: Any) -> None:
    dock = open_runs()
    assert "No run yet" in dock.monitor.state.text()
    assert not dock.monitor.losses.isVisible()
    assert enabled(dock) == set()


def test_nothing_chosen_says_what_to_do(viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot) -> None:
    run = a_run(runs, "1", "finetune", DONE)
    dock = open_runs()
    dock.table.clearSelection()
    assert dock.monitor.state.text() == "Choose a run in the table."
    shutil.rmtree(run.folder)
    looked(dock, qtbot)
    assert "No run yet" in dock.monitor.state.text()


def test_unreadable_settings_harm_nothing(viewer: Any, open_runs: Any, runs: Path) -> None:
    (runs / "1").mkdir(parents=True)
    (runs / "1" / "config.json").write_text("{")
    a_run(runs, "2", "finetune", step(1), DONE)
    dock = open_runs()
    assert cells(dock, "1")["Method"] == "unreadable settings"
    assert dock.monitor.run.name == "1"
    assert enabled(dock) == {"folder", "delete"}


def test_run_that_vanishes_while_it_is_shown(viewer: Any, open_runs: Any, runs: Path, qtbot: QtBot) -> None:
    kept = a_run(runs, "1", "finetune", step(1), DONE)
    gone = a_run(runs, "2", "finetune", step(1, 20), DONE)
    dock = open_runs()
    assert dock.monitor.run == gone
    shutil.rmtree(gone.folder)
    dock.monitor.look()
    qtbot.waitUntil(lambda: names(dock) == ["1"])
    assert dock.monitor.run == kept
    looked(dock, qtbot)
    assert "has finished" in dock.monitor.state.text()


def test_another_folder_can_be_named(viewer: Any, open_runs: Any, runs: Path, tmp_path: Path, qtbot: QtBot) -> None:
    a_run(runs, "1", "finetune", DONE)
    a_run(tmp_path / "share", "2", "finetune", DONE)
    dock = open_runs()
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


def test_warnings_of_a_look_go_with_the_next_good_one(
    viewer: Any, open_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    dock = open_runs()
    dock.folder.setValue(tmp_path / "share")
    qtbot.waitUntil(lambda: "There is no folder" in dock.message.text())
    a_run(tmp_path / "share", "1", "finetune", DONE)
    qtbot.waitUntil(lambda: names(dock) == ["1"])
    assert not dock.message.isVisible()

    def fail(*_: Any, **__: Any) -> None:
        raise UserError("The share is away.")

    with monkeypatch.context() as broken:
        broken.setattr(dock_module, "look_over", fail)
        dock._watch.now()
        qtbot.waitUntil(lambda: "The share is away." in dock.message.text())
    looked(dock, qtbot)
    assert not dock.message.isVisible()
    dock.actions.failed.emit("It was not deleted.")
    looked(dock, qtbot)
    assert dock.message.text() == "⚠ It was not deleted."


def test_folder_that_may_not_be_entered_hides_no_other(
    viewer: Any, open_runs: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(runs, "1", "finetune", DONE)
    locked, stat = runs / "locked", os.stat
    locked.mkdir()

    def refuse(path: Any, *more: Any, **how: Any) -> os.stat_result:
        if isinstance(path, Path) and path.parent == locked:
            raise PermissionError(errno.EACCES, "no", str(path))
        return stat(path, *more, **how)

    monkeypatch.setattr(os, "stat", refuse)
    assert names(open_runs()) == ["1"]


def test_nothing_is_read_while_the_dock_is_hidden(
    viewer: Any, open_runs: Any, runs: Path, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    a_run(runs, "1", "finetune", step(1))
    dock = open_runs()
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
    viewer: Any, open_runs: Any, runs: Path, alive: Callable[[Run], Run], qtbot: QtBot
) -> None:
    run = alive(a_run(runs, "1", "finetune", started("1")))
    dock = open_runs()
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not isalive(dock))
    viewer.theme = "light"
    assert run.asked() is None
    assert json.loads((run.folder / "config.json").read_text())["stage"] == "finetune"


def test_colours_follow_the_theme(viewer: Any, open_runs: Any) -> None:
    dock = open_runs()
    plots = [dock.monitor.losses, dock.comparison.plot]
    before = [plot.backgroundBrush().color().name() for plot in plots]
    viewer.theme = "light"
    assert all(plot.backgroundBrush().color().name() != old for plot, old in zip(plots, before, strict=True))
