from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.data.superpixels import SuperpixelSettings, superpixel_slice, superpixels
from napari_medcl.gui import brush as brush_module
from napari_medcl.gui.docks import masks_of
from napari_medcl.gui.layers import to_volume
from napari_medcl.gui.superpixels import slice_map
from tests.gui.test_correct import Event, callbacks, drag, names, open_dock, opened, settle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

HOW = {"segments": 20, "compactness": 0.3}
BORDERS, HIGHLIGHT = "superpixels of the brush", "superpixel under the mouse"
MIDDLE = (6, 15, 16)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def dock(viewer: Any, scan: Path, mask: Path, qtbot: QtBot) -> Any:
    """The dock with the brush in the hand and label 2 chosen."""
    dock = opened(viewer, scan, mask)
    viewer.layers["mask"].selected_label = 2
    take_up(dock, qtbot)
    return dock


def take_up(dock: Any, qtbot: QtBot, **how: Any) -> None:
    dock.tools.form.setValue({**HOW, **how})
    dock.tools.buttons["superpixels"].click()
    settle(dock.tools.brush, qtbot)


def ids_of(viewer: Any, axis: int = 0, index: int = 6, **how: Any) -> NDArray[np.int32]:
    return divided(viewer.layers["scan"].data.take(index, axis), **how)


def divided(image: NDArray[Any], **how: Any) -> NDArray[np.int32]:
    return superpixel_slice(image, SuperpixelSettings(**{**HOW, **how}), brush_module._ROUNDS)


def click(dock: Any, voxel: Any, *modifiers: str) -> None:
    drag(dock.tools.brush, [dock.work.layer.data_to_world(voxel)], *modifiers)


def test_a_click_labels_the_superpixel_under_it(viewer: Any, dock: Any) -> None:
    mask = viewer.layers["mask"]
    expected, ids = mask.data.copy(), ids_of(viewer)
    expected[6][ids == ids[8, 12]] = 2
    click(dock, (6, 8, 12))
    assert np.array_equal(mask.data, expected)
    assert viewer.layers.selection.active is mask
    assert masks_of(viewer) == [mask]
    assert dock.mask.count() == 2
    assert np.array_equal(viewer.layers[BORDERS].data[0], ids)
    click(dock, (6, 8, 12), "Control")
    click(dock, (6, -9, 12))
    expected[6][ids == ids[8, 12]] = 0
    assert np.array_equal(mask.data, expected)


def test_a_drag_is_one_step_to_undo(viewer: Any, dock: Any) -> None:
    mask, ids = viewer.layers["mask"], ids_of(viewer)
    before = mask.data.copy()
    touched = np.isin(ids, ids[4, 3:30])
    assert len(np.unique(ids[4, 3:30])) > 2
    drag(dock.tools.brush, [mask.data_to_world((6, 4, x)) for x in (3, 14, 29)])
    expected = before.copy()
    expected[6][touched] = 2
    assert np.array_equal(mask.data, expected)
    assert len(mask._undo_history) == 1
    mask.undo()
    assert np.array_equal(mask.data, before)
    mask.redo()
    assert np.array_equal(mask.data, expected)


def test_control_erases_the_chosen_label_only(viewer: Any, dock: Any) -> None:
    mask, ids = viewer.layers["mask"], ids_of(viewer)
    under = ids == ids[15, 16]
    mask.data[6][under] = np.resize([1, 2, 3], np.count_nonzero(under))
    expected = mask.data.copy()
    expected[6][under & (expected[6] == 2)] = 0
    click(dock, MIDDLE, "Control")
    assert np.array_equal(mask.data, expected)
    mask.selected_label = 0
    click(dock, MIDDLE, "Control")
    expected[6][under] = 0
    assert np.array_equal(mask.data, expected)


def test_intensity_limits_are_kept(viewer: Any, dock: Any) -> None:
    mask, ids, image = viewer.layers["mask"], ids_of(viewer), viewer.layers["scan"].data[6]
    expected, under = mask.data.copy(), ids == ids[15, 16]
    dock.tools.low.setValue(30)
    dock.tools.high.setValue(60)
    inside = under & (image >= 30) & (image <= 60)
    assert 0 < np.count_nonzero(inside) < np.count_nonzero(under)
    expected[6][inside] = 2
    click(dock, MIDDLE)
    assert np.array_equal(mask.data, expected)
    dock.tools.high.setValue(20)
    click(dock, MIDDLE)
    assert "low must not be above high" in dock.tools.message.text()
    assert np.array_equal(mask.data, expected)
    click(dock, MIDDLE, "Control")
    expected[6][inside] = 0
    assert np.array_equal(mask.data, expected), "erasing knows no limits"


@pytest.mark.filterwarnings("ignore:Contours are not displayed")
def test_what_cannot_be_painted_is_said(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask = viewer.layers["mask"]
    before = mask.data.copy()
    mask.selected_label = 255
    click(dock, MIDDLE, "Control")
    assert "255 is no label" in dock.tools.message.text()
    list(dock.tools.brush.dragged(mask, Event(mask.data_to_world(MIDDLE), button=2)))
    viewer.dims.ndisplay = 3
    list(dock.tools.brush.dragged(mask, Event(mask.data_to_world(MIDDLE))))
    assert np.array_equal(mask.data, before)
    settle(dock.tools.brush, qtbot)
    assert "in 3D" in dock.tools.message.text()


def test_shift_and_wheel_set_the_number(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, brush = viewer.layers["mask"], dock.tools.brush
    brush.wheeled(mask, Event((0, 0, 0), delta=(0.0, 1.0)))
    assert dock.tools.form.values()["segments"] == 20
    for delta, count in ((1.0, 16), (-1.0, 20), (-3.0, 25)):
        brush.wheeled(mask, Event((0, 0, 0), "Shift", delta=(0.0, delta)))
        assert dock.tools.form.values()["segments"] == count
    settle(brush, qtbot)
    ids = ids_of(viewer, segments=25)
    assert not np.array_equal(ids, ids_of(viewer))
    assert np.array_equal(viewer.layers[BORDERS].data[0], ids)
    click(dock, (6, 8, 12))
    assert np.array_equal(mask.data[6] == 2, ids == ids[8, 12])


def test_the_superpixel_under_the_mouse_is_highlighted(viewer: Any, dock: Any) -> None:
    mask, ids, brush = viewer.layers["mask"], ids_of(viewer), dock.tools.brush
    for y, x in ((8, 12), (20, 25)):
        brush.moved(mask, Event(mask.data_to_world((6, y, x))))
        layer = viewer.layers[HIGHLIGHT]
        found = np.argwhere(layer.data)
        shift = np.rint(mask.world_to_data(layer.data_to_world((0, 0, 0)))).astype(int)
        assert {tuple(one) for one in (found + shift).tolist()} == {
            (6, *one) for one in np.argwhere(ids == ids[y, x]).tolist()
        }
    assert viewer.layers.selection.active is mask
    assert names(viewer) == ["scan", "mask", BORDERS, HIGHLIGHT]
    brush.moved(mask, Event((0, 1e5, 0)))
    assert not viewer.layers[HIGHLIGHT].visible
    brush.moved(mask, Event(mask.data_to_world(MIDDLE)))
    assert viewer.layers[HIGHLIGHT].visible


def test_other_slices_have_other_superpixels(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, brush = viewer.layers["mask"], dock.tools.brush
    brush.moved(mask, Event(mask.data_to_world(MIDDLE)))
    borders = viewer.layers[BORDERS]
    viewer.dims.order = (2, 0, 1)
    viewer.dims.set_current_step(2, 9)
    click(dock, (5, 8, 9))
    assert "not there yet" in dock.tools.message.text()
    assert not (mask.data == 2).any()
    settle(brush, qtbot)
    ids = ids_of(viewer, 2, 9)
    assert viewer.layers[BORDERS] is borders
    assert np.array_equal(borders.data[:, :, 0], ids)
    assert np.allclose(borders.data_to_world((5, 8, 0)), mask.data_to_world((5, 8, 9)))
    assert not viewer.layers[HIGHLIGHT].visible
    click(dock, (5, 8, 9))
    assert np.array_equal(mask.data[:, :, 9] == 2, ids == ids[5, 8])
    assert np.count_nonzero(mask.data == 2) == np.count_nonzero(ids == ids[5, 8])


def test_there_and_back(viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(*args: Any, **how: Any) -> Any:
        gate.wait(5)
        return slice_map(*args, **how)

    monkeypatch.setattr(brush_module, "slice_map", slow)
    viewer.dims.set_current_step(0, 7)
    qtbot.waitUntil(lambda: dock.tools.brush._task.running)
    viewer.dims.set_current_step(0, 6)
    qtbot.wait(100)
    gate.set()
    settle(dock.tools.brush, qtbot)
    qtbot.wait(50)
    click(dock, (6, 8, 12))
    assert (viewer.layers["mask"].data[6] == 2).any()


def test_another_scan_has_other_superpixels(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    scan = viewer.layers["scan"]
    place = {"scale": scan.scale, "translate": scan.translate, "units": scan.units}
    other = viewer.add_image(np.ascontiguousarray(scan.data[:, ::-1]), name="other", **place)
    dock.scan.setValue(other)
    settle(dock.tools.brush, qtbot)
    assert dock.tools.brush.on
    expected = divided(other.data[6])
    assert np.array_equal(viewer.layers[BORDERS].data[0], expected)


def test_napari_s_own_tools_put_it_away(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, brush = viewer.layers["mask"], dock.tools.brush
    assert not mask.mouse_pan
    brush.moved(mask, Event(mask.data_to_world(MIDDLE)))
    mask.mode = "paint"
    assert not brush.on
    assert not dock.tools.buttons["superpixels"].isChecked()
    assert names(viewer) == ["scan", "mask"]
    assert str(mask.mode) == "paint"
    dock.tools.buttons["superpixels"].click()
    assert str(mask.mode) == "pan_zoom"
    assert not mask.mouse_pan
    in_hand = callbacks(mask)
    dock.tools.buttons["superpixels"].click()
    assert mask.mouse_pan
    assert [len(one) - 1 for one in in_hand] == [len(one) for one in callbacks(mask)]
    viewer.dims.set_current_step(0, 3)
    settle(brush, qtbot)
    assert names(viewer) == ["scan", "mask"]


def test_superpixels_of_the_volume_reach_into_other_slices(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, brush = viewer.layers["mask"], dock.tools.brush
    dock.tools.per.setValue("volume")
    settle(brush, qtbot)
    volume = to_volume([viewer.layers["scan"]])
    ids = superpixels(volume.array, SuperpixelSettings(**HOW, per="volume"), volume.spacing)
    expected = mask.data.copy()
    expected[ids == ids[MIDDLE]] = 2
    assert np.ptp(np.nonzero(ids == ids[MIDDLE])[0]) > 0
    click(dock, MIDDLE)
    assert np.array_equal(mask.data, expected)
    viewer.dims.set_current_step(0, 3)
    assert brush.settled or brush._wait.isActive()
    click(dock, (3, 15, 16))
    expected[ids == ids[3, 15, 16]] = 2
    assert np.array_equal(mask.data, expected)
    assert len(mask._undo_history) == 2


def test_a_picture(viewer: Any, qtbot: QtBot) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    viewer.add_image(colours, rgb=True, name="photo")
    mask = viewer.add_labels(np.zeros((40, 50), int))
    dock = open_dock(viewer)
    take_up(dock, qtbot)
    click(dock, (7, 9))
    ids = divided(np.moveaxis(colours, -1, 0))
    assert np.array_equal(mask.data == 1, ids == ids[7, 9])


def test_without_its_scan_it_says_what_to_do(viewer: Any, qtbot: QtBot) -> None:
    viewer.add_labels(np.zeros((4, 20, 30), int))
    dock = open_dock(viewer)
    take_up(dock, qtbot)
    assert "no scan open" in dock.tools.message.text()
    viewer.add_image(np.zeros((4, 20, 31)))
    settle(dock.tools.brush, qtbot)
    assert "does not lie on the voxels" in dock.tools.message.text()
