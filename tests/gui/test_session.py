"""The whole way at the screen: open, superpixels, pre-train, fine-tune, apply, save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from napari_medcl.training.run import ALIVE
from tests.gui.conftest import same_geometry

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

TINY = {"steps": 4, "width": 4, "depth": 2, "batch": 2, "dims": "2d", "device": "cpu", "precision": "float32"}
LONG_MS = 60_000


def train(dock: Any, stage: str, qtbot: QtBot, **how: Any) -> Any:
    """Starts a run in the dock and waits for its end."""
    pane = dock.stages[stage]
    pane.form.setValue({**TINY, **how})
    with qtbot.waitSignal(pane.started, timeout=LONG_MS) as started:
        pane.start.click()
    (run,) = started.args
    qtbot.waitUntil(lambda: run.state not in ALIVE, timeout=LONG_MS)
    assert run.state == "finished", run.message or run.log_tail()
    return run


def test_whole_way(make_napari_viewer: Any, scan: Path, mask: Path, tmp_path: Path, qtbot: QtBot) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.open([scan, mask], plugin="medcl")

    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Superpixels")
    with qtbot.waitSignal(dock._scan_task.done, timeout=LONG_MS):
        dock.compute.click()
    assert viewer.layers["scan superpixels"].data.shape == viewer.layers["scan"].data.shape
    viewer.window.remove_dock_widget(dock)

    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Train")
    qtbot.waitUntil(dock.stages["pretrain"].form.isVisible, timeout=LONG_MS)
    ((_, _, choice),) = dock.stages["finetune"].source.layers._rows
    assert [choice.itemText(index) for index in range(choice.count())] == ["no mask", "mask"]
    pretrained = train(dock, "pretrain", qtbot)
    runs = viewer.window._wrapped_dock_widgets["Runs (medcl)"].widget()
    qtbot.waitUntil(lambda: set(runs.monitor.losses._curves) == {"instance", "dense", "equivariance"})
    start = dock.stages["finetune"].form.editors["start"]
    start.setValue(pretrained.folder)
    tuned = train(dock, "finetune", qtbot)
    assert tuned.config["start"] == str(pretrained.folder)
    qtbot.waitUntil(lambda: runs.monitor.run == tuned and bool(runs.monitor.dice._curves))
    qtbot.waitUntil(runs.actions.buttons["apply"].isEnabled)

    runs.actions.buttons["apply"].click()
    apply = viewer.window._wrapped_dock_widgets["Apply (medcl)"].widget()
    assert apply.model.value() == tuned.folder
    apply.scan.setValue(viewer.layers["scan"])
    apply.uncertainty.setValue(True)
    apply.probabilities.setValue(True)
    with qtbot.waitSignal(apply._task.done, timeout=LONG_MS):
        apply.run.click()
    found = viewer.layers["scan mask"]
    assert np.allclose(found.data_to_world((3, 4, 5)), viewer.layers["scan"].data_to_world((3, 4, 5)))
    uncertainty = viewer.layers["scan uncertainty"]
    assert 0 <= uncertainty.data.min() <= uncertainty.data.max() <= 1
    assert "scan background" in viewer.layers

    found.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    apply.save_to(tmp_path / "found.nii.gz")
    assert same_geometry(scan, tmp_path / "found.nii.gz")
    stored = np.asarray(nib.load(tmp_path / "found.nii.gz").dataobj)
    assert np.count_nonzero(stored) == np.count_nonzero(found.data) >= 1
