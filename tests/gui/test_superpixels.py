from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.compat import isalive

from napari_medcl.data.superpixels import SuperpixelSettings, superpixel_slice
from napari_medcl.errors import Stopped
from napari_medcl.gui import superpixels as dock_module

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

PREVIEW = "superpixels (preview)"
HOW = {"segments": 20, "compactness": 0.3}


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


def open_dock(viewer: Any) -> Any:
    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Superpixels")
    dock.form.setValue(HOW)
    return dock


@pytest.fixture
def dock(viewer: Any, scan: Path, qtbot: QtBot) -> Any:
    viewer.open(scan, plugin="medcl")
    dock = open_dock(viewer)
    qtbot.waitUntil(lambda: settled(dock) and PREVIEW in viewer.layers)
    return dock


def settled(dock: Any) -> bool:
    return not (dock._wait.isActive() or dock._preview_task.running or dock._scan_task.running)


def test_preview_is_that_of_the_slice_in_view(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    scan = viewer.layers["scan"]
    viewer.dims.set_current_step(0, 3)
    qtbot.waitUntil(lambda: settled(dock))
    preview = viewer.layers[PREVIEW]
    assert np.array_equal(preview.data[0], superpixel_slice(scan.data[3], SuperpixelSettings(**HOW)))
    assert np.allclose(preview.data_to_world((0, 5, 6)), scan.data_to_world((3, 5, 6)))
    viewer.dims.order = (2, 0, 1)
    viewer.dims.set_current_step(2, 9)
    qtbot.waitUntil(lambda: settled(dock))
    assert np.array_equal(preview.data[:, :, 0], superpixel_slice(scan.data[:, :, 9], SuperpixelSettings(**HOW)))


def test_preview_disturbs_no_work(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    assert viewer.layers.selection.active is viewer.layers["scan"]
    preview = viewer.layers[PREVIEW]
    dock.form.setValue({"segments": 50})
    qtbot.waitUntil(lambda: settled(dock))
    assert viewer.layers[PREVIEW] is preview
    dock.preview.setValue(False)
    qtbot.waitUntil(lambda: PREVIEW not in viewer.layers)


def test_only_what_was_asked_last_is_shown(
    viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(image: Any, how: SuperpixelSettings, _: int) -> Any:
        if how.segments == 30:
            gate.wait(5)
        return np.full(image.shape[1:], how.segments, np.int32)

    monkeypatch.setattr(dock_module, "superpixel_slice", slow)
    dock.form.setValue({"segments": 30})
    qtbot.waitUntil(lambda: dock._preview_task.running)
    dock.form.setValue({"segments": 40})
    qtbot.waitUntil(lambda: viewer.layers[PREVIEW].data.max() == 40)
    gate.set()
    qtbot.wait(100)
    assert viewer.layers[PREVIEW].data.max() == 40


@pytest.mark.parametrize("plane", [(0, 1, 2), (1, 0, 2)])
def test_volume_is_divided_along_the_slices_in_view(
    viewer: Any, dock: Any, qtbot: QtBot, plane: tuple[int, ...]
) -> None:
    scan = viewer.layers["scan"]
    viewer.dims.order = plane
    with qtbot.waitSignal(dock._scan_task.done):
        dock.compute.click()
        assert dock.progress.isVisibleTo(dock)
    result = viewer.layers["scan superpixels"]
    assert result.data.shape == scan.data.shape
    assert np.array_equal(result.scale, scan.scale)
    assert np.array_equal(result.translate, scan.translate)
    expected = superpixel_slice(scan.data.take(4, plane[0]), SuperpixelSettings(**HOW))
    assert np.array_equal(result.data.take(4, plane[0]), expected)
    qtbot.waitUntil(lambda: not dock.progress.isVisibleTo(dock))


def test_volume_in_3d(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    dock.form.setValue({"per": "volume"})
    qtbot.waitUntil(lambda: PREVIEW not in viewer.layers)
    assert "no preview" in dock.message.text()
    viewer.dims.ndisplay = 3
    with qtbot.waitSignal(dock._scan_task.done):
        dock.compute.click()
    ids = viewer.layers["scan superpixels"].data
    assert all(np.ptp(ids[index]) > 0 for index in (0, 6))
    assert np.intersect1d(ids[0], ids[1]).size > 0


def test_stop_leaves_nothing(viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()

    def endless(*_: Any, progress: Any, stop: Any) -> None:
        progress(0.25)
        while not stop():
            pass
        left.set()
        raise Stopped

    monkeypatch.setattr(dock_module, "cached_superpixels", endless)
    dock.compute.click()
    qtbot.waitUntil(lambda: dock.progress._bar.value() == 250)
    dock.progress._stop.click()
    qtbot.waitUntil(left.is_set)
    assert dock.compute.isEnabled()
    assert "scan superpixels" not in viewer.layers


def test_picture_in_colour(viewer: Any, qtbot: QtBot) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    viewer.add_image(colours, rgb=True, name="photo")
    dock = open_dock(viewer)
    qtbot.waitUntil(lambda: PREVIEW in viewer.layers)
    assert viewer.layers[PREVIEW].data.shape == (40, 50)
    with qtbot.waitSignal(dock._scan_task.done):
        dock.compute.click()
    assert viewer.layers["photo superpixels"].data.shape == (40, 50)


def test_without_a_scan_it_says_what_to_do(viewer: Any, qtbot: QtBot, scan: Path) -> None:
    dock = open_dock(viewer)
    dock.compute.click()
    assert "no scan open" in dock.message.text()
    viewer.open(scan, plugin="medcl")
    assert dock.scan.value() is viewer.layers["scan"]
    qtbot.waitUntil(lambda: PREVIEW in viewer.layers)
    viewer.layers.remove("scan")
    qtbot.waitUntil(lambda: PREVIEW not in viewer.layers)


def test_closed_dock_leaves_no_helper_and_listens_no_more(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    viewer.window.remove_dock_widget(dock)
    assert [layer.name for layer in viewer.layers] == ["scan"]
    viewer.dims.set_current_step(0, 1)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not isalive(dock))
