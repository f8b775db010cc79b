from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.compat import isalive

from napari_medcl.data.superpixels import SuperpixelSettings, superpixel_slice, superpixels
from napari_medcl.errors import Stopped
from napari_medcl.gui import patches as patches_module
from napari_medcl.gui import slices as slices_module
from napari_medcl.gui.layers import to_volume
from napari_medcl.gui.superpixels import scan_map
from napari_medcl.inference.pairs import new_network, slice_groups
from napari_medcl.inference.patches import patches
from tests.gui.test_apply import model

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

LONG_MS = 60_000
"""Torch may have to be loaded first."""
HOW = {"segments": 20, "compactness": 0.3}
GRID, POSITIVES, POOLED, AFFINITY, PATCH = "pseudo masks", "positives", "pooled superpixels (ASP)", "affinity", "patch"


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


def open_dock(viewer: Any) -> Any:
    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Pairs")
    dock.subject.form.setValue(HOW)
    dock.pixels.depth.setValue(2)
    return dock


@pytest.fixture
def dock(viewer: Any, scan: Path) -> Any:
    viewer.open(scan, plugin="medcl")
    return open_dock(viewer)


def settle(tab: Any, qtbot: QtBot) -> str:
    """Waits until nothing runs, and gives what the tab says."""
    qtbot.wait(1)  # the timer starts with the event that the viewer sends later
    qtbot.waitUntil(lambda: not (tab._wait.isActive() or tab._task.running), timeout=LONG_MS)
    return str(tab.message.text())


def turn(dock: Any, tab: Any, qtbot: QtBot) -> str:
    """Brings a tab to the front."""
    dock.tabs.setCurrentWidget(tab)
    return settle(tab, qtbot)


def names(viewer: Any) -> set[str]:
    return {layer.name for layer in viewer.layers}


def click(viewer: Any, position: Any, kinds: tuple[str, ...] = ("mouse_release",)) -> None:
    event = SimpleNamespace(type="mouse_press", position=position)
    for callback in [one for one in viewer.mouse_drag_callbacks if "Picker" in repr(one)]:
        steps = callback(viewer, event)
        for kind in kinds:
            next(steps, None)
            event.type = kind
        list(steps)


class TestPixels:
    def test_it_shows_the_slice_in_view_at_once(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        said = settle(dock.pixels, qtbot)
        scan, grid, positives = viewer.layers["scan"], viewer.layers[GRID], viewer.layers[POSITIVES]
        ids = superpixel_slice(scan.data[viewer.dims.current_step[0]], SuperpixelSettings(**HOW))
        assert np.array_equal(grid.data[0], ids[::4, ::4])
        middle = ids.shape[0] // 2 // 4, ids.shape[1] // 2 // 4
        assert positives.data[0][middle] == 3
        assert f"Superpixel {grid.data[0][middle]} (yellow) on the grid of 8 × 8 cells" in said
        viewer.dims.order = (2, 0, 1)
        settle(dock.pixels, qtbot)
        assert grid.data.shape == (3, 8, 1)

    def test_positives_of_a_picked_pixel(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        settle(dock.pixels, qtbot)
        grid = viewer.layers[GRID]
        click(viewer, grid.data_to_world((0, 4, 5)))
        positives = viewer.layers[POSITIVES]
        assert np.array_equal(positives.data > 0, grid.data == grid.data[0, 4, 5])
        assert positives.data[0, 4, 5] == 3
        assert np.array_equal(positives.scale, grid.scale)
        click(viewer, grid.data_to_world((0, 1, 1)), ("mouse_move", "mouse_release"))
        viewer.layers.selection.active = viewer.add_labels(
            np.zeros((12, 30, 32), int),
            scale=viewer.layers["scan"].scale,
            translate=viewer.layers["scan"].translate,
            units="mm",
        )
        viewer.layers.selection.active.mode = "paint"
        click(viewer, grid.data_to_world((0, 1, 1)))
        assert positives.data[0, 4, 5] == 3
        viewer.layers.selection.active = viewer.layers["scan"]
        viewer.dims.set_current_step(0, 2)
        settle(dock.pixels, qtbot)
        assert viewer.layers[POSITIVES].data[0, 4, 5] == 3
        click(viewer, (0, 1e6, 0))
        assert "outside" in dock.pixels.message.text()

    def test_volume(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        settle(dock.pixels, qtbot)
        dock.subject.per.setValue("volume")
        assert "press the button" in settle(dock.pixels, qtbot)
        assert names(viewer) == {"scan"}
        dock.pixels.compute.click()
        assert dock.pixels.progress.isVisibleTo(dock)
        settle(dock.pixels, qtbot)
        volume = to_volume([viewer.layers["scan"]])
        ids = superpixels(volume.array, SuperpixelSettings(**HOW, per="volume"), volume.spacing)
        assert np.array_equal(viewer.layers[GRID].data, ids[::4, ::4, ::4])
        assert not dock.pixels.progress.isVisibleTo(dock)
        viewer.dims.ndisplay = 3
        viewer.dims.ndisplay = 2
        viewer.dims.set_current_step(0, 1)
        settle(dock.pixels, qtbot)
        assert viewer.layers[POSITIVES].data[0].any()

    def test_picture_in_colour(self, viewer: Any, qtbot: QtBot) -> None:
        viewer.add_image(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8), rgb=True, name="photo")
        dock = open_dock(viewer)
        dock.subject.per.setValue("volume")
        settle(dock.pixels, qtbot)
        assert viewer.layers[GRID].data.shape == (10, 13)
        assert not dock.pixels.compute.isVisibleTo(dock)


class TestSlices:
    def test_near_slices_need_no_network(self, dock: Any, qtbot: QtBot) -> None:
        said = turn(dock, dock.slices, qtbot)
        assert said == (
            "Slice 5: by position alike to 4 to 6. Press Find groups to see which are alike by superpixels."
        )
        dock.slices.threshold.setValue(0.3)
        assert "alike to 2 to 8" in settle(dock.slices, qtbot)
        dock.slices.bar.jumped.emit(0)
        assert "Slice 0: by position alike to 0 to 3" in settle(dock.slices, qtbot)

    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
    def test_groups_of_a_new_network(self, viewer: Any, dock: Any, qtbot: QtBot, order: tuple[int, ...]) -> None:
        viewer.dims.order = order
        axis = order[0]
        turn(dock, dock.slices, qtbot)
        dock.slices.count.setValue(6)
        dock.slices.find.click()
        assert dock.slices.progress.isVisibleTo(dock)
        said = settle(dock.slices, qtbot)
        scan, index = viewer.layers["scan"], viewer.dims.current_step[axis]
        volume = to_volume([scan])
        found = slice_groups(volume, *new_network(volume, 2, axis), SuperpixelSettings(**HOW), 6, index)
        assert f"Slice {index}: by position" in said
        assert f"most like {found.slices[found.nearest(found.at(index))]}" in said
        listed = dock.slices.list.text()
        assert all(f'<a href="{number}"' in listed for number in found.slices)
        assert listed.count("■") == len(found.shared) + bool(found.alone)
        pooled = viewer.layers[POOLED]
        assert np.allclose(pooled.data, found.pooled[found.at(index)], rtol=1e-4, atol=1e-6)
        corner = np.zeros(3)
        corner[axis] = index
        first_cell = np.array(pooled.data_to_world((0, 0, 0))) - np.where(np.arange(3) == axis, 0, 0.5) * pooled.scale
        first_voxel = np.array(scan.data_to_world(corner)) - np.where(np.arange(3) == axis, 0, 0.5) * scan.scale
        assert np.allclose(first_cell, first_voxel)

    def test_a_click_goes_to_a_slice(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        turn(dock, dock.slices, qtbot)
        dock.slices.count.setValue(3)
        dock.slices.find.click()
        settle(dock.slices, qtbot)
        dock.slices.list.linkActivated.emit("11")
        settle(dock.slices, qtbot)
        assert viewer.dims.current_step[0] == 11
        assert POOLED in names(viewer)
        dock.slices.jump(3)
        assert "not among the 3 whose superpixels were compared" in settle(dock.slices, qtbot)
        assert POOLED not in names(viewer)

    def test_what_is_found_is_kept_until_something_else_is_asked(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        turn(dock, dock.slices, qtbot)
        dock.slices.find.click()
        settle(dock.slices, qtbot)
        turn(dock, dock.pixels, qtbot)
        assert POOLED not in names(viewer)
        turn(dock, dock.slices, qtbot)
        assert POOLED in names(viewer)
        viewer.dims.order = (1, 0, 2)
        assert "Press Find groups" in settle(dock.slices, qtbot)
        viewer.dims.order = (0, 1, 2)
        settle(dock.slices, qtbot)
        assert POOLED in names(viewer)
        dock.subject.form.setValue({"segments": 30})
        assert "Press Find groups" in settle(dock.slices, qtbot)
        assert names(viewer) == {"scan"}
        assert dock.slices.list.text() == ""

    def test_it_follows_the_theme(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        turn(dock, dock.slices, qtbot)
        dock.slices.find.click()
        settle(dock.slices, qtbot)
        before = dock.slices.list.text()
        viewer.theme = "light"
        assert dock.slices.list.text() != before
        assert dock.slices.bar.backgroundBrush().color().lightness() > 128

    def test_models_and_what_does_not_fit(self, dock: Any, qtbot: QtBot, tmp_path: Path) -> None:
        turn(dock, dock.slices, qtbot)
        dock.slices.model.setValue(model(tmp_path / "one.safetensors", classes=()))
        dock.slices.find.click()
        assert "superpixels" in settle(dock.slices, qtbot)
        dock.slices.model.setValue(model(tmp_path / "two.safetensors", channels=2, classes=()))
        dock.slices.find.click()
        assert "1 channel(s), the model was made for 2" in settle(dock.slices, qtbot)
        dock.subject.per.setValue("volume")
        dock.slices.find.click()
        assert "The model is 2D" in settle(dock.slices, qtbot)
        assert dock.slices._what.text() == "Crops"
        dock.slices.model.setValue(None)
        dock.slices.find.click()
        assert "holds all slices" in settle(dock.slices, qtbot)
        assert dock.slices.find.isEnabled()

    def test_channels_of_one_file_go_together(self, viewer: Any, qtbot: QtBot, tmp_path: Path) -> None:
        import nibabel as nib

        array = np.random.default_rng(0).normal(size=(20, 18, 6, 2)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "pair.nii.gz")
        viewer.open(tmp_path / "pair.nii.gz", plugin="medcl")
        dock = open_dock(viewer)
        turn(dock, dock.slices, qtbot)
        dock.slices.model.setValue(model(tmp_path / "two.safetensors", channels=2, classes=()))
        dock.slices.find.click()
        assert "by superpixels" in settle(dock.slices, qtbot)
        assert POOLED in names(viewer)

    def test_stop(self, viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
        left = threading.Event()
        monkeypatch.setattr(slices_module, "find_groups", endless(left))
        turn(dock, dock.slices, qtbot)
        dock.slices.find.click()
        qtbot.waitUntil(lambda: dock.slices.progress._bar.value() == 250)
        dock.slices.progress._stop.click()
        qtbot.waitUntil(left.is_set)
        assert dock.slices.find.isEnabled()
        assert POOLED not in names(viewer)

    def test_one_slice_is_said(self, viewer: Any, qtbot: QtBot) -> None:
        viewer.add_image(np.random.default_rng(0).random((40, 50)), name="photo")
        dock = open_dock(viewer)
        assert "alike to no other" in turn(dock, dock.slices, qtbot)
        dock.slices.find.click()
        assert "There is one slice" in settle(dock.slices, qtbot)


class TestPatches:
    def test_by_superpixels_at_once(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        assert "Patch (cyan)" in turn(dock, dock.patches, qtbot)
        scan = viewer.layers["scan"]
        click(viewer, scan.data_to_world((5, 14, 16)))
        said = dock.patches.message.text()
        ids = superpixel_slice(scan.data[5], SuperpixelSettings(**HOW))
        found = patches(ids, "enc2", 4)
        patch = found.nearest((14, 16))
        heat, box = viewer.layers[AFFINITY], viewer.layers[PATCH]
        assert np.allclose(heat.data[0], found.affinity_to(patch))
        assert heat.contrast_limits == [0, 1]
        assert np.allclose(heat.scale[1:], found.cell * scan.scale[1:])
        (top, _), (left, _) = found.window(patch)
        assert np.allclose(box.data_to_world((0, 0, 0)), scan.data_to_world((5, top, left)))
        assert "14 × 14 voxels" in said
        best = int(found.values[found.composition[patch].argmax()])
        assert f"superpixel {best}: {found.composition[patch].max():.0%}" in said

    def test_by_the_classes_of_a_mask(self, viewer: Any, scan: Path, mask: Path, qtbot: QtBot) -> None:
        viewer.open(scan, plugin="medcl")
        viewer.open(mask, plugin="medcl", layer_type="labels")
        dock = open_dock(viewer)
        assert dock.patches.classes.value() is viewer.layers[1]
        dock.patches.side.setValue(5)
        said = turn(dock, dock.patches, qtbot)
        assert "5 × 5 voxels" in said
        assert "made of class 1: 100%" in said
        click(viewer, viewer.layers["scan"].data_to_world((6, 0, 0)))
        assert "made of background: 100%" in dock.patches.message.text()
        dock.subject.per.setValue("volume")
        said = settle(dock.patches, qtbot)
        assert "5 × 5 × 5 voxels about slice" in said
        assert viewer.layers[AFFINITY].data.ndim == 3
        click(viewer, (1e6, 0, 0))
        assert "outside" in dock.patches.message.text()
        viewer.layers.remove(viewer.layers[1])
        assert "superpixel" in settle(dock.patches, qtbot)

    def test_superpixels_of_a_volume_are_made_once(
        self, viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []
        monkeypatch.setattr(
            patches_module, "scan_map", lambda *given, **more: made.append(given) or scan_map(*given, **more)
        )
        dock.subject.per.setValue("volume")
        assert "about slice" in turn(dock, dock.patches, qtbot)
        first = viewer.layers[AFFINITY].data
        viewer.dims.set_current_step(0, 11)
        assert "about slice 9," in settle(dock.patches, qtbot)
        assert len(made) == 1
        assert not np.array_equal(viewer.layers[AFFINITY].data, first)
        monkeypatch.setattr(patches_module, "find_patches", endless(threading.Event()))
        dock.patches.map.setValue("enc1")
        qtbot.waitUntil(lambda: dock.patches.progress._bar.value() == 250)
        dock.patches.progress._stop.click()
        assert "Stopped" in dock.patches.message.text()
        assert not dock.patches.progress.isVisibleTo(dock)

    def test_patch_larger_than_the_slice(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        turn(dock, dock.patches, qtbot)
        dock.patches.map.setValue("enc4")
        assert "A patch of map enc4 is 68 voxels wide, the image 30 × 32" in settle(dock.patches, qtbot)
        assert names(viewer) == {"scan"}
        dock.patches.side.setValue(9)
        assert "Patch (cyan)" in settle(dock.patches, qtbot)

    def test_mask_of_another_scan(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        other = viewer.add_labels(np.ones((3, 4, 5), int), name="other")
        turn(dock, dock.patches, qtbot)
        dock.patches.classes.setValue(other)
        assert "The mask chosen for “scan” has 3 × 4 × 5 voxels" in settle(dock.patches, qtbot)
        assert AFFINITY not in names(viewer)

    def test_slice_that_nobody_annotated(self, viewer: Any, dock: Any, qtbot: QtBot) -> None:
        scan = viewer.layers["scan"]
        array = np.zeros(scan.data.shape, np.uint8)
        array[:, 10:], array[3] = 255, 255
        place = {"scale": scan.scale, "translate": scan.translate, "units": "mm"}
        dock.patches.classes.setValue(viewer.add_labels(array, name="part", **place))
        dock.patches.side.setValue(3)
        assert "is not annotated, and compared with nothing" in turn(dock, dock.patches, qtbot)
        click(viewer, scan.data_to_world((6, 2, 2)))
        assert "made of background: 100%" in dock.patches.message.text()
        viewer.dims.set_current_step(0, 3)
        assert "Nothing is annotated here" in settle(dock.patches, qtbot)


def endless(left: threading.Event) -> Any:
    def function(*_: Any, progress: Any, stop: Any) -> None:
        progress(0.25)
        while not stop():
            pass
        left.set()
        raise Stopped

    return function


def test_without_a_scan_it_says_what_to_do(viewer: Any, scan: Path, qtbot: QtBot) -> None:
    dock = open_dock(viewer)
    for tab in (dock.pixels, dock.slices, dock.patches):
        turn(dock, tab, qtbot)
        assert "no scan open" in dock.message.text()
    dock.slices.find.click()
    dock.slices.jump(3)
    viewer.open(scan, plugin="medcl")
    assert "Patch (cyan)" in settle(dock.patches, qtbot)
    assert dock.message.text() == ""
    viewer.layers.remove("scan")
    settle(dock.patches, qtbot)
    assert "no scan open" in dock.message.text()
    assert names(viewer) == set()


def test_3d_view_is_said(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    settle(dock.pixels, qtbot)
    viewer.dims.ndisplay = 3
    for tab in (dock.pixels, dock.slices, dock.patches):
        turn(dock, tab, qtbot)
        assert "Switch to 2D" in dock.message.text()
        assert names(viewer) == {"scan"}
    click(viewer, (0, 0, 0))


def test_slices_of_a_time_series(viewer: Any, qtbot: QtBot) -> None:
    viewer.add_image(np.random.default_rng(0).random((9, 6, 20, 18)), name="series")
    dock = open_dock(viewer)
    viewer.dims.set_current_step(0, 5)
    for tab, layer in ((dock.pixels, GRID), (dock.patches, AFFINITY)):
        turn(dock, tab, qtbot)
        assert layer in names(viewer)
    turn(dock, dock.slices, qtbot)
    dock.slices.find.click()
    settle(dock.slices, qtbot)
    assert POOLED in names(viewer)
    viewer.dims.set_current_step(0, 6)
    assert "Press Find groups" in settle(dock.slices, qtbot)


def test_the_users_layer_stays_selected(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    for tab in (dock.pixels, dock.patches):
        turn(dock, tab, qtbot)
        assert viewer.layers.selection.active is viewer.layers["scan"]
        assert dock.subject.scan.count() == 1


@pytest.mark.parametrize("tab", ["slices", "patches"])
def test_closed_dock_stops_its_work_and_leaves_nothing(
    viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tab: str
) -> None:
    left = threading.Event()
    monkeypatch.setattr(slices_module, "find_groups", endless(left))
    monkeypatch.setattr(patches_module, "find_patches", endless(left))
    settle(dock.pixels, qtbot)
    before = dock.pixels
    dock.tabs.setCurrentWidget(getattr(dock, tab))
    dock.slices.find.click()
    qtbot.waitUntil(lambda: getattr(dock, tab)._task.running)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(left.is_set)
    assert names(viewer) == {"scan"}
    assert not [one for one in viewer.mouse_drag_callbacks if "Picker" in repr(one)]
    viewer.dims.set_current_step(0, 1)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not isalive(before))
