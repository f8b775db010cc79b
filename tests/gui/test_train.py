from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.gui import train as dock_module
from napari_medcl.training.run import Run, create
from tests.gui.conftest import a_run, save

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

LONG_MS = 60_000


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

    def start(stage: Any, config: Any, folder: Path, *, now: bool) -> Run:
        calls.append((stage, config, folder, now))
        return create(stage, config, folder)

    monkeypatch.setattr(dock_module, "start", start)
    return calls


def runs_dock(viewer: Any) -> Any:
    """The dock Runs, which somebody has opened."""
    return viewer.window._wrapped_dock_widgets["Runs (medcl)"].widget()


def said(dock: Any, stage: str, qtbot: QtBot) -> str:
    """Presses start and gives what the dock answers."""
    pane = dock.stages[stage]
    pane.start.click()
    qtbot.waitUntil(lambda: not pane._task.running, timeout=LONG_MS)
    return str(pane.message.text())


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
    with qtbot.waitSignal(dock.stages["finetune"].started, timeout=LONG_MS):
        dock.stages["finetune"].start.click()
    ((stage, config, folder, _),) = asked
    assert stage == "finetune"
    assert config["folder"] == str(folder / "inputs")
    assert (folder / "inputs" / "imagesTr" / "scan.nii.gz").is_file()
    assert (folder / "inputs" / "labelsTr" / "scan.nii.gz").is_file()
    assert dock.stages["finetune"].message.text() == f"{folder.name} has started; see the dock Runs."
    opened = runs_dock(viewer)
    qtbot.waitUntil(lambda: opened.monitor.run == Run(folder))
    assert not opened.visibleRegion().isEmpty()
    assert dock.visibleRegion().isEmpty(), "the dock Runs is in front"


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
    with qtbot.waitSignal(dock.stages["finetune"].started, timeout=LONG_MS):
        dock.stages["finetune"].start.click()
    ((_, config, folder, _),) = asked
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
    with qtbot.waitSignal(pane.started, timeout=LONG_MS):
        pane.start.click()
    ((_, config, _, _),) = asked
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
    with qtbot.waitSignal(dock.stages["finetune"].started, timeout=LONG_MS):
        dock.stages["finetune"].start.click()
    monitor = runs_dock(viewer).monitor
    qtbot.waitUntil(lambda: "has failed" in monitor.state.text(), timeout=LONG_MS)
    assert "no MPS device" in monitor.message.text()
    assert "Traceback" not in monitor.message.text()


@pytest.mark.parametrize("at_once", [False, True])
def test_run_waits_for_its_turn_unless_told_otherwise(
    viewer: Any, open_dock: Any, scan: Path, asked: list[Any], at_once: bool, qtbot: QtBot
) -> None:
    viewer.open(scan, plugin="medcl")
    pane = open_dock(tab=0).stages["pretrain"]
    assert not pane.at_once.isChecked()
    pane.at_once.setChecked(at_once)
    with qtbot.waitSignal(pane.started, timeout=LONG_MS):
        pane.start.click()
    assert asked[0][3] is at_once


def test_runs_that_go_on_are_counted_and_shown(viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot) -> None:
    """In a new viewer, too: whoever opens the dock sees that there are some."""
    with a_run(runs, "1").locked():
        a_run(runs, "2")
        dock = open_dock()
        qtbot.waitUntil(lambda: dock.runs.text() == "Show runs (1 going on)")
        dock.runs.click()
        opened = runs_dock(viewer)
        qtbot.waitUntil(lambda: opened.monitor.run == Run(runs / "1"))
        assert not opened.visibleRegion().isEmpty()


def test_fine_tuning_starts_from_runs_of_both_stages_that_have_a_model(
    viewer: Any, open_dock: Any, runs: Path, qtbot: QtBot
) -> None:
    for name, stage in (("1", "pretrain"), ("2", "finetune")):
        (a_run(runs, name, stage).folder / "checkpoints" / "last.safetensors").touch()
    a_run(runs, "3", "pretrain")
    (a_run(runs, "4", "pretrain").folder / "checkpoints" / "last.safetensors").touch()
    (runs / "4" / "config.json").write_text("{")
    start = open_dock().stages["finetune"].form.editors["start"]
    offered = ["from scratch", "2 (fine-tuned)", "1 (pre-trained)", "Model file…"]
    qtbot.waitUntil(lambda: [start.itemText(index) for index in range(start.count())] == offered)
    assert start.value() is None
    start.setValue(runs / "2")
    start.refresh()
    qtbot.waitUntil(lambda: not start._task.running)
    assert start.value() == runs / "2"
    assert start.count() == len(offered)


def test_channels_of_one_file_are_one_scan(viewer: Any, open_dock: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "two.nii.gz", np.random.default_rng(0).random((8, 9, 5, 2), np.float32))
    viewer.open(path, plugin="medcl")
    table = open_dock(tab=0).stages["pretrain"].source.layers
    (pair,) = table.value()
    assert pair.name == "two"
    assert pair.volume.channels == 2
