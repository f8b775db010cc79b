from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from app_model.types import KeyBinding
from napari.components import ViewerModel
from npe2 import PluginManager
from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QEvent

from napari_medcl.gui.correct import CorrectDock
from napari_medcl.gui.docks import masks_of
from tests.gui.conftest import same_geometry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pytestqt.qtbot import QtBot

LONG_MS = 60_000
_OPEN: list[Any] = []
KEYS = {"S", "G", "N", "R", "I"}


class Event:
    """What napari tells a tool of the mouse."""

    def __init__(self, position: Any, *modifiers: str, button: int = 1, delta: Sequence[float] = (0.0, 0.0)) -> None:
        self.type, self.position, self.modifiers = "mouse_press", position, modifiers
        self.button, self.delta = button, delta


def drag(tool: Any, positions: Sequence[Any], *modifiers: str, between: Callable[[], None] = lambda: None) -> None:
    """Presses the mouse over the mask, moves it on, and lets it go."""
    event = Event(positions[0], *modifiers)
    steps = tool.dragged(tool.work.layer, event)
    next(steps, None)
    event.type = "mouse_move"
    for event.position in positions[1:]:
        next(steps)
        between()
    event.type = "mouse_release"
    list(steps)


def windowless() -> Iterator[Any]:
    """A viewer without a window, which takes no time to open; docks that are opened over it are closed in the end."""
    if "medcl" not in (plugins := PluginManager.instance()):
        plugins.discover()
    viewer = ViewerModel()
    yield viewer
    for dock in [*_OPEN]:
        close_dock(viewer, dock)
    viewer.layers.clear()


def open_dock(viewer: Any) -> Any:
    if hasattr(viewer, "window"):
        return viewer.window.add_plugin_dock_widget("medcl", "Correct")[1]
    _OPEN.append(CorrectDock(viewer))
    return _OPEN[-1]


def close_dock(viewer: Any, dock: Any) -> None:
    if hasattr(viewer, "window"):
        viewer.window.remove_dock_widget(dock)
        return
    _OPEN.remove(dock)
    dock.closed.emit()
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(dock, QEvent.Type.DeferredDelete)


def opened(viewer: Any, *files: Path) -> Any:
    """Opens files, and the dock, with the slice in view in the middle of the ball."""
    viewer.open([*files], plugin="medcl")
    viewer.dims.set_current_step(0, 6)
    return open_dock(viewer)


def settle(tool: Any, qtbot: QtBot) -> None:
    qtbot.wait(1)  # the timer starts with the event that the viewer sends later
    qtbot.waitUntil(lambda: tool.settled, timeout=LONG_MS)


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


def press(viewer: Any, key: str) -> None:
    viewer.window._qt_viewer._key_map_handler.press_key(key)


def callbacks(layer: Any) -> list[list[Any]]:
    return [[*layer.mouse_drag_callbacks], [*layer.mouse_move_callbacks], [*layer.mouse_wheel_callbacks]]


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def dock(viewer: Any, scan: Path, mask: Path) -> Any:
    return opened(viewer, scan, mask)


def test_the_mask_that_is_selected_is_corrected_else_the_topmost(viewer: Any, dock: Any) -> None:
    mask = viewer.layers["mask"]
    assert (dock.mask.value(), dock.scan.value()) == (mask, viewer.layers["scan"])
    above = viewer.add_labels(np.zeros_like(mask.data), name="above")
    for active, expected in ((mask, mask), (viewer.layers["scan"], above)):
        viewer.window.remove_dock_widget(dock)
        viewer.layers.selection.active = active
        dock = open_dock(viewer)
        assert dock.mask.value() is expected


def test_a_new_mask_lies_on_the_voxels_of_the_scan(viewer: Any, scan: Path) -> None:
    dock = open_dock(viewer)
    dock.new.click()
    assert "no scan open" in dock.message.text()
    viewer.open(scan, plugin="medcl")
    dock.new.click()
    assert not dock.message.text(), "that is over"
    new, layer = viewer.layers["scan mask"], viewer.layers["scan"]
    assert dock.mask.value() is new
    assert masks_of(viewer) == [new]
    assert new.data.shape == layer.data.shape
    assert not new.data.any()
    for attribute in ("scale", "translate", "units", "axis_labels"):
        assert list(getattr(new, attribute)) == list(getattr(layer, attribute))
    dock.account.save_to(scan.parent / "new.nii.gz")
    assert same_geometry(scan, scan.parent / "new.nii.gz")


def test_a_new_mask_of_a_picture_and_of_a_series(viewer: Any) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    viewer.add_image(colours, rgb=True, name="photo")
    dock = open_dock(viewer)
    dock.new.click()
    assert viewer.layers["photo mask"].data.shape == (20, 30)
    series = viewer.add_image(np.zeros((5, 4, 20, 30)), name="series", scale=(1, 2, 3, 4))
    dock.scan.setValue(series)
    dock.new.click()
    new = viewer.layers["series mask"]
    assert new.data.shape == (4, 20, 30)
    assert list(new.scale) == [2, 3, 4]
    dock.work.volume()


def test_keys_are_free_in_napari(viewer: Any, scan: Path, mask: Path) -> None:
    viewer.open([scan, mask], plugin="medcl")
    viewer.layers.selection.active = viewer.layers["mask"]
    taken = {str(key) for key in viewer.window._qt_viewer._key_map_handler.active_keymap}
    assert {"M", "V"} <= taken
    ours = {str(KeyBinding.from_str(key)) for key in open_dock(viewer).keys()}  # noqa: SIM118 - no mapping
    assert ours == KEYS
    assert not taken & ours


def test_keys_do_what_the_buttons_do(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask = viewer.layers["mask"]
    viewer.layers.selection.active = mask
    brush, grower = dock.tools.brush, dock.tools.grower
    press(viewer, "S")
    assert (brush.on, grower.on) == (True, False)
    assert dock.tools.buttons["superpixels"].isChecked()
    press(viewer, "G")
    assert (brush.on, grower.on) == (False, True)
    assert not dock.tools.buttons["superpixels"].isChecked()
    press(viewer, "G")
    assert not grower.on
    press(viewer, "R")
    assert dock.keeper.record.reviewed == ((0, 6),)
    press(viewer, "R")
    assert dock.keeper.record.reviewed == ()
    qtbot.waitUntil(lambda: dock.review._scores is not None, timeout=LONG_MS)
    press(viewer, "N")
    assert viewer.dims.current_step[0] != 6
    mask.data[6] = 0
    with qtbot.waitSignal(dock.edits.edited, timeout=LONG_MS):
        press(viewer, "I")
    assert mask.data[6].any()


def test_keys_go_with_the_mask(viewer: Any, dock: Any) -> None:
    first = viewer.layers["mask"]
    second = viewer.add_labels(np.zeros((4, 5), int), name="second")
    assert {str(key) for key in first.keymap} == KEYS
    dock.mask.setValue(second)
    assert not first.keymap
    assert {str(key) for key in second.keymap} == KEYS
    dock.mask.setValue(None)
    assert not second.keymap


def test_a_tool_goes_with_the_mask(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    first = viewer.layers["mask"]
    before = callbacks(first)
    dock.tools.buttons["superpixels"].click()
    settle(dock.tools.brush, qtbot)
    dock.mask.setValue(viewer.add_labels(np.zeros((12, 30, 32), int), name="second"))
    assert not dock.tools.brush.on
    assert not dock.tools.buttons["superpixels"].isChecked()
    assert callbacks(first) == before
    assert names(viewer) == ["scan", "mask", "second"]


@pytest.mark.parametrize("name", ["superpixels", "edge"])
def test_a_tool_without_a_mask_says_what_to_do(viewer: Any, scan: Path, name: str) -> None:
    dock = opened(viewer, scan)
    dock.tools.buttons[name].click()
    assert "no mask to correct" in dock.tools.message.text()
    assert not dock.tools.buttons[name].isChecked()


def test_a_closed_dock_gives_everything_back(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask = viewer.layers["mask"]
    before, untouched = mask.data.copy(), callbacks(mask)
    dock.tools.buttons["superpixels"].click()
    settle(dock.tools.brush, qtbot)
    dock.tools.brush.hover(mask.data_to_world((6, 15, 16)))
    dock.edits.kind.setValue("grow")
    dock.edits.preview.click()
    qtbot.waitUntil(lambda: "what the edit changes" in viewer.layers, timeout=LONG_MS)
    viewer.window.remove_dock_widget(dock)
    assert names(viewer) == ["scan", "mask"]
    assert mask.mouse_pan
    assert callbacks(mask) == untouched
    assert not mask.keymap
    mask.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    viewer.dims.set_current_step(0, 1)
    mask.undo()
    assert np.array_equal(mask.data, before)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not isalive(dock))
