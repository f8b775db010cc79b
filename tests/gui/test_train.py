from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.compat import isalive

from napari_medcl.gui import train as dock_module
from napari_medcl.training.events import Evaluated, Failed, Finished, Saved, Started, Stepped
from napari_medcl.training.run import Run, create
from tests.gui.conftest import save

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

LONG_MS = 60_000
STARTED = {"device": "cpu", "precision": "float32", "steps": 8, "minutes": None, "cases": 3, "message": "3 scans, 2D"}


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


@pytest.fixture
def open_dock(viewer: Any) -> Any:
    def opened(tab: int = 1) -> Any:
        _, dock = viewer.window.add_plugin_dock_widget("medcl", "Train")
        dock.tabs.setCurrentIndex(tab)
        return dock

    return opened


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been started; nothing is."""
    calls: list[Any] = []

    def start(stage: Any, config: Any, folder: Path) -> Run:
        calls.append((stage, config, folder))
        return create(stage, config, folder)

    monkeypatch.setattr(dock_module, "start", start)
    return calls


def said(dock: Any, stage: str, qtbot: QtBot) -> str:
    """Presses start and gives what the dock answers."""
    pane = dock.stages[stage]
    pane.start.click()
    qtbot.waitUntil(lambda: not pane._task.running)
    return str(pane.message.text())


def a_run(root: Path, name: str, stage: Any, *events: Any, alive: bool = False) -> Run:
    run = create(stage, {"folder": "x"}, root / name)
    for event in events:
        run.append(event)
    if alive:
        (run.folder / "lock").write_text(str(os.getpid()))
    return run


def test_dock_can_be_used_at_once(open_dock: Any) -> None:
    for tab, stage in enumerate(("pretrain", "finetune")):
        pane = open_dock(tab).stages[stage]
        assert pane.form.isVisibleTo(pane)
        assert pane.start.isEnabled()


def test_open_layers_are_written_and_trained_on(
    viewer: Any, open_dock: Any, scan: Path, mask: Path, asked: list[Any], qtbot: QtBot
) -> None:
    viewer.open([scan, mask], plugin="medcl")
    dock = open_dock()
    with qtbot.waitSignal(dock.stages["finetune"].started):
        dock.stages["finetune"].start.click()
    ((stage, config, folder),) = asked
    assert stage == "finetune"
    assert config["folder"] == str(folder / "inputs")
    assert (folder / "inputs" / "imagesTr" / "scan.nii.gz").is_file()
    assert (folder / "inputs" / "labelsTr" / "scan.nii.gz").is_file()
    assert dock.monitor.runs.value() == folder
    assert dock.monitor.isVisible()


def test_scan_can_be_left_out_and_a_mask_chosen(viewer: Any, open_dock: Any, scan: Path, mask: Path) -> None:
    viewer.open([scan, mask], plugin="medcl")
    table = open_dock().stages["finetune"].source.layers
    drawn = viewer.add_labels(np.zeros((3, 4, 5), int), name="other")
    ((_, tick, choice),) = table._rows
    assert choice.value() is viewer.layers["mask"]
    choice.setValue(drawn)
    viewer.add_image(np.zeros((3, 4, 5)), name="second")
    assert [row[2].value() for row in table._rows] == [drawn, drawn]
    assert table._rows[0][1].text() == "scan"
    viewer.layers.remove("second")
    assert len(table._rows) == 1
    assert tick is not table._rows[0][1]


def test_empty_slices_of_a_drawn_mask_are_not_taken_for_annotated(
    viewer: Any, open_dock: Any, scan: Path, mask: Path
) -> None:
    viewer.open([scan, mask], plugin="medcl")
    pane = open_dock().stages["finetune"]
    annotated = pane.form.editors["annotated"]
    assert annotated.value() == "all"
    viewer.layers.selection.active = viewer.layers["scan"]
    viewer._new_labels()
    pane.source.layers._rows[0][2].setValue(viewer.layers[-1])
    assert annotated.value() == "nonempty"
    pane.source.kind.setValue("folder")
    assert annotated.value() == "all"


def test_folder_says_what_is_in_it(viewer: Any, open_dock: Any, shared: Path, asked: list[Any], qtbot: QtBot) -> None:
    dock = open_dock()
    source = dock.stages["finetune"].source
    source.folder.setValue(shared / "data" / "hippocampus")
    qtbot.waitUntil(lambda: source.found.text() != "", timeout=LONG_MS)
    assert "with a mask. Classes: " in source.found.text()
    dock.stages["finetune"].form.setValue({"labelled": 8})
    with qtbot.waitSignal(dock.stages["finetune"].started):
        dock.stages["finetune"].start.click()
    ((_, config, folder),) = asked
    assert config["folder"] == str(shared / "data" / "hippocampus")
    assert config["labelled"] == 8
    assert not (folder / "inputs").exists()


def test_what_is_missing_is_said(viewer: Any, open_dock: Any, asked: list[Any], tmp_path: Path, qtbot: QtBot) -> None:
    dock = open_dock()
    pane = dock.stages["finetune"]
    assert "Choose the folder" in said(dock, "finetune", qtbot)
    pane.source.folder.setValue(tmp_path / "nowhere")
    assert "nowhere" in said(dock, "finetune", qtbot)
    pane.source.kind.setValue("layers")
    assert "No open scan is ticked" in said(dock, "finetune", qtbot)
    viewer.add_image(np.random.default_rng(0).random((6, 16, 16)), name="scan")
    assert "No scan has a mask" in said(dock, "finetune", qtbot)
    viewer.add_labels(np.zeros((6, 16, 17), int), name="wrong")
    pane.source.layers._rows[0][2].setValue(viewer.layers["wrong"])
    assert "6 × 16 × 17 voxels" in said(dock, "finetune", qtbot)
    pane.form.editors["patch"].setText("a,b")
    pane.source.layers._rows[0][2].setValue(None)
    pane.source.kind.setValue("folder")
    assert "such as 64,64,64" in said(dock, "finetune", qtbot)
    assert asked == []
    assert pane.start.isEnabled()


def test_settings_that_make_no_run_are_refused_beside_the_button(
    viewer: Any, open_dock: Any, scan: Path, mask: Path, asked: list[Any], runs: Path, qtbot: QtBot
) -> None:
    viewer.open([scan, mask], plugin="medcl")
    dock = open_dock(tab=0)
    form = dock.stages["pretrain"].form
    form.editors["method"].choice.setValue("jcl")
    form.editors["method"].forms["jcl"].setValue({"blocks": 4})
    form.setValue({"depth": 2})
    assert "JCL cannot train 4 decoder blocks of a network with 2 poolings" in said(dock, "pretrain", qtbot)
    form.editors["method"].forms["jcl"].setValue({"blocks": 0, "instance": 0, "dense": 0})
    assert "instance and dense are both 0" in said(dock, "pretrain", qtbot)
    dock.tabs.setCurrentIndex(1)
    form = dock.stages["finetune"].form
    form.setValue({"uafs": True, "uafs_maps": ("dec9",)})
    assert "no map 'dec9'" in said(dock, "finetune", qtbot)
    assert dock.stages["finetune"].message.isVisible()
    form.setValue({"uafs": False, "uafs_maps": None, "groups": "("})
    assert "⚠" in said(dock, "finetune", qtbot)
    assert asked == []
    assert not runs.exists() or list(runs.iterdir()) == []
    assert dock.stages["finetune"].start.isEnabled()


def test_the_authors_weights_are_started_from(
    viewer: Any, open_dock: Any, scan: Path, mask: Path, asked: list[Any], shared: Path, qtbot: QtBot
) -> None:
    viewer.open([scan, mask], plugin="medcl")
    dock = open_dock()
    pane = dock.stages["finetune"]
    weights = shared / "reference" / "jcl_authors_checkpoint.pth"
    pane.form.setValue({"start": weights, "width": 8})
    pane.form.editors["method"].choice.setValue("pdcr")
    assert "trained with width 4" in said(dock, "finetune", qtbot)
    pane.form.setValue({"width": None})
    with qtbot.waitSignal(pane.started):
        pane.start.click()
    ((_, config, _),) = asked
    assert config["start"] == str(weights)
    assert config["method"]["name"] == "pdcr"


def test_folder_without_masks_is_said(
    viewer: Any, open_dock: Any, scan: Path, asked: list[Any], tmp_path: Path, qtbot: QtBot
) -> None:
    (tmp_path / "scans" / "imagesTr").mkdir(parents=True)
    scan.rename(tmp_path / "scans" / "imagesTr" / "a.nii.gz")
    dock = open_dock()
    dock.stages["finetune"].source.folder.setValue(tmp_path / "scans")
    assert "mask" in said(dock, "finetune", qtbot)
    assert asked == []


def test_run_that_fails_says_why(viewer: Any, open_dock: Any, scan: Path, mask: Path, qtbot: QtBot) -> None:
    """No GPU on this machine, or one that is then used: either way nobody sees a traceback."""
    torch = pytest.importorskip("torch")
    if torch.backends.mps.is_available():
        pytest.skip("this machine has what the test asks for in vain")
    viewer.open([scan, mask], plugin="medcl")
    dock = open_dock()
    dock.stages["finetune"].form.setValue({"device": "mps", "steps": 1})
    with qtbot.waitSignal(dock.stages["finetune"].started):
        dock.stages["finetune"].start.click()
    qtbot.waitUntil(lambda: "has failed" in dock.monitor.state.text(), timeout=LONG_MS)
    assert "no MPS device" in dock.monitor.message.text()
    assert "Traceback" not in dock.monitor.message.text()


def test_runs_started_elsewhere_are_found_and_followed(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    going = a_run(runs, "1-finetune", "finetune", Started(run="1", stage="finetune", **STARTED), alive=True)
    a_run(runs, "2-pretrain", "pretrain", Finished(step=8, reason="done", message="Done."))
    dock = open_dock(tab=2)
    monitor = dock.monitor
    assert monitor.runs.value() == going.folder
    assert "Fine-tuning is running, on cpu." in monitor.state.text()
    going.append(Stepped(step=2, progress=0.25, terms={"dice": 0.9, "entropy": 2.0}, rate=0.1, remaining_s=600))
    going.append(Evaluated(step=2, dice={"liver": 0.5}, mean=0.5, best=True))
    qtbot.waitUntil(lambda: "step 2 of 8, 10 min left" in monitor.state.text())
    assert monitor.bar.value() == 250
    assert set(monitor.losses._curves) == {"dice", "entropy"}
    assert monitor.losses._curves["entropy"].getData()[1].tolist() == [2.0]
    assert set(monitor.dice._curves) == {"liver", "mean"}
    assert monitor.dice.isVisible()
    assert "validation Dice 0.500" in monitor.message.text()
    monitor.stop.click()
    assert going.stop_asked()
    assert not monitor.stop.isEnabled()
    (going.folder / "checkpoints" / "last.safetensors").touch()
    going.append(Saved(step=3, path="checkpoints/last.safetensors", best=False))
    going.append(Finished(step=3, reason="stopped", message="Stopped after step 3."))
    qtbot.waitUntil(lambda: "was stopped" in monitor.state.text())
    assert monitor.apply.isVisible()
    assert not monitor.stop.isVisible()
    monitor.runs.setValue(runs / "2-pretrain")
    assert "Pre-training has finished" in monitor.state.text()
    assert monitor.losses._curves == {}
    assert not monitor.apply.isVisible()


def test_process_that_died_is_said_with_its_last_words(viewer: Any, open_dock: Any, runs: Path) -> None:
    run = a_run(runs, "1-finetune", "finetune")
    old = time.time() - 3600
    os.utime(run.folder / "config.json", (old, old))
    (run.folder / "log.txt").write_text("loading\nKilled\n")
    monitor = open_dock(tab=2).monitor
    assert "has ended without a word" in monitor.state.text()
    assert monitor.message.text().endswith("Killed")


def test_failure_is_shown_with_its_hint(viewer: Any, open_dock: Any, runs: Path) -> None:
    a_run(runs, "1-finetune", "finetune", Failed(step=0, message="The folder is empty.", hint="Choose another."))
    assert open_dock(tab=2).monitor.message.text() == "⚠ The folder is empty. Choose another."


def test_unreadable_run_folder_harms_nothing(viewer: Any, open_dock: Any, runs: Path) -> None:
    (runs / "1").mkdir(parents=True)
    (runs / "1" / "config.json").write_text("{")
    monitor = open_dock(tab=2).monitor
    assert monitor.state.text()
    assert not monitor.apply.isVisible()


def test_without_runs_it_says_how_to_begin(viewer: Any, open_dock: Any) -> None:
    monitor = open_dock(tab=2).monitor
    assert "No run yet" in monitor.state.text()
    assert not monitor.losses.isVisible()


def test_runs_go_on_when_the_dock_is_closed(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    run = a_run(runs, "1-finetune", "finetune", Started(run="1", stage="finetune", **STARTED), alive=True)
    dock = open_dock(tab=2)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not isalive(dock))
    viewer.add_image(np.zeros((3, 4, 5)))
    assert not run.stop_asked()
    assert json.loads((run.folder / "config.json").read_text())["stage"] == "finetune"


def test_colours_follow_the_theme(viewer: Any, open_dock: Any) -> None:
    dock = open_dock(tab=2)
    before = dock.monitor.losses.backgroundBrush().color().name()
    viewer.theme = "light"
    assert dock.monitor.losses.backgroundBrush().color().name() != before


def test_channels_of_one_file_are_one_scan(viewer: Any, open_dock: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "two.nii.gz", np.random.default_rng(0).random((8, 9, 5, 2), np.float32))
    viewer.open(path, plugin="medcl")
    table = open_dock(tab=0).stages["pretrain"].source.layers
    (pair,) = table.value()
    assert pair.name == "two"
    assert pair.volume.channels == 2


def test_monitor_tells_others_which_run_it_shows(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    first = a_run(runs, "1-finetune", "finetune", Finished(step=8, reason="done", message="Done."))
    second = a_run(runs, "2-finetune", "finetune", Finished(step=8, reason="done", message="Done."))
    monitor = open_dock(tab=2).monitor
    with qtbot.waitSignals([monitor.runChanged, monitor.looked]) as told:
        monitor.show_run(first)
    assert told.all_signals_and_args[0].args == (first,)
    assert first != second
