from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.gui import edits as tab_module
from napari_medcl.gui.differences import ADDED, OTHER, REMOVED, differences
from napari_medcl.gui.edits import edited
from napari_medcl.inference.edits import EDITS, On
from tests.gui.test_correct import LONG_MS, names, open_dock, opened, windowless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

PREVIEW = "what the edit changes"


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def dock(viewer: Any, scan: Path, mask: Path) -> Any:
    """The dock over a mask in which every edit finds something to do; label 1 is chosen."""
    dock = opened(viewer, scan, mask)
    data = viewer.layers["mask"].data
    data[6, 13:16, 18] = 0
    data[:, 25:28, 2:5] = 1
    data[[3, 8], 12:16, 24:28] = 1
    data[4:7, 14, 14], data[6, 2:6, 20:30], data[6, 2:6, 5] = 2, 2, 1
    viewer.layers["mask"].selected_label = 1
    return dock


def apply(dock: Any, qtbot: QtBot) -> int:
    """Presses Apply, and gives how many voxels have changed."""
    with qtbot.waitSignal(dock.edits.edited, timeout=LONG_MS) as told:
        dock.edits.apply.click()
    return int(told.args[0])


def look(dock: Any, qtbot: QtBot) -> str:
    """Presses Preview, and gives what the dock says."""
    dock.edits.preview.click()
    qtbot.waitUntil(lambda: not dock.edits._look.running, timeout=LONG_MS)
    return str(dock.edits.message.text())


@pytest.mark.parametrize("everything", [False, True])
def test_every_edit_is_its_function(viewer: Any, dock: Any, qtbot: QtBot, everything: bool) -> None:
    mask, edits = viewer.layers["mask"], dock.edits
    before = mask.data.copy()
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 14)
    spacing, ml = mask.scale.tolist(), float(np.prod(mask.scale)) / 1000
    edits.labels.setValue(everything)
    assert {edits.kind.itemData(row) for row in range(edits.kind.count())} == set(EDITS)
    for name, kind in EDITS.items():
        edits.kind.setValue(name)
        assert [form.isVisibleTo(edits) for form in edits.forms.values()] == [
            other == name and bool(kind.model_fields) for other in EDITS
        ]
        edits.forms[name].setValue({"below": 0.1, "radius": 2.0, "distance": 2.0})
        for whole in (True,) if kind.whole else (False, True):
            edits.where.setValue(whole)
            count = apply(dock, qtbot)
            where: Any = ... if whole else (slice(None), 14)
            on = On(spacing if whole else [spacing[0], spacing[2]], ml, None if everything else 1, axis=1)
            expected = before.copy()
            expected[where] = edits.forms[name].value()(before[where], on)
            np.testing.assert_array_equal(mask.data, expected, err_msg=f"{name} {whole}")
            assert count == np.count_nonzero(expected != before) > 0, (name, whole)
            assert edits.message.text() == f"{count} voxels have changed."
            mask.undo()
            np.testing.assert_array_equal(mask.data, before)
    assert names(viewer) == ["scan", "mask"]


def test_what_has_no_choice_offers_none(dock: Any) -> None:
    edits = dock.edits
    for name, whole, labels in (("interpolate", True, False), ("swap", False, True), ("grow", False, False)):
        edits.kind.setValue(name)
        assert (not edits.where.isEnabled(), not edits.labels.isEnabled()) == (whole, labels)
        assert edits.about.text() == (EDITS[name].__doc__ or "").splitlines()[0]


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_are_interpolated_along_the_axis_in_view(viewer: Any, dock: Any, qtbot: QtBot, axis: int) -> None:
    mask = viewer.layers["mask"]
    mask.data[:] = 0
    slices = np.moveaxis(mask.data, axis, 0)
    slices[2, 4:8, 4:8] = slices[6, 4:8, 4:8] = 1
    viewer.dims.order = (axis, *({0, 1, 2} - {axis}))
    viewer.dims.set_current_step(axis, 4)
    dock.edits.run("interpolate")
    qtbot.waitUntil(lambda: not dock.edits._make.running, timeout=LONG_MS)
    assert [plane.sum() for plane in slices] == [16 * (2 <= index <= 6) for index in range(len(slices))]


def test_a_preview_changes_nothing_and_goes_with_the_slice(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, edits = viewer.layers["mask"], dock.edits
    viewer.layers.selection.active = mask
    before = mask.data.copy()
    edits.kind.setValue("grow")
    edits.forms["grow"].setValue({"distance": 2.0})
    said = look(dock, qtbot)
    layer = viewer.layers[PREVIEW]
    grown = edits.forms["grow"].value()(before[6], On(mask.scale[1:].tolist(), 1, 1))
    assert np.array_equal(layer.data[0] == ADDED, (grown == 1) & (before[6] == 0))
    assert set(np.unique(layer.data).tolist()) == {0, ADDED}
    assert np.allclose(layer.data_to_world((0, 3, 4)), mask.data_to_world((6, 3, 4)))
    assert layer.colormap.map(ADDED)[1] > layer.colormap.map(ADDED)[0], "green"
    assert layer.colormap.map(REMOVED)[0] > layer.colormap.map(REMOVED)[1], "red"
    count = np.count_nonzero(layer.data)
    assert said == f"Would be changed: {count} voxels ({count * np.prod(mask.scale) / 1000:.3g} ml) added."
    assert viewer.layers.selection.active is mask
    assert dock.mask.count() == 2
    assert np.array_equal(mask.data, before)
    assert not mask._undo_history
    viewer.dims.set_current_step(0, 5)
    assert PREVIEW not in viewer.layers
    edits.where.setValue(True)
    edits.kind.setValue("keep-largest")
    assert "removed" in look(dock, qtbot)
    assert viewer.layers[PREVIEW].data.shape == mask.data.shape
    assert set(np.unique(viewer.layers[PREVIEW].data).tolist()) == {0, REMOVED}
    apply(dock, qtbot)
    assert PREVIEW not in viewer.layers
    assert "nothing" in look(dock, qtbot)
    mask.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    mask.undo()
    assert PREVIEW not in viewer.layers


def test_differences_are_told_apart() -> None:
    before, after = np.array([[0, 0, 1, 1, 2, 0]]), np.array([[0, 1, 1, 0, 1, 2]])
    assert differences(before, after).tolist() == [[0, ADDED, 0, REMOVED, OTHER, ADDED]]


def test_what_cannot_be_done_is_said(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, edits = viewer.layers["mask"], dock.edits
    before = mask.data.copy()
    edits.kind.setValue("grow")
    for label, words in ((0, "background is chosen"), (255, "255 is no label")):
        mask.selected_label = label
        edits.apply.click()
        qtbot.waitUntil(lambda: not edits._make.running, timeout=LONG_MS)
        assert words in edits.message.text()
    mask.selected_label = 1
    viewer.dims.ndisplay = 3
    edits.apply.click()
    assert "in 3D" in edits.message.text()
    edits.kind.setValue("merge")
    edits.where.setValue(True)
    edits.forms["merge"].setValue({"others": (2,), "into": 300})
    edits.apply.click()
    qtbot.waitUntil(lambda: not edits._make.running, timeout=LONG_MS)
    assert "cannot hold the label 300" in edits.message.text()
    edits.forms["merge"].editors["others"].setText("two")
    edits.apply.click()
    assert "“two” are not whole numbers" in edits.message.text()
    edits.kind.setValue("grow")
    assert np.array_equal(mask.data, before)
    dock.mask.setValue(None)
    edits.apply.click()
    assert "no mask to correct" in edits.message.text()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """An edit waits until this is called."""
    gate = threading.Event()

    def slow(*args: Any, **how: Any) -> Any:
        gate.wait(5)
        return edited(*args, **how)

    monkeypatch.setattr(tab_module, "edited", slow)
    return gate.set


def test_a_mask_that_was_changed_meanwhile_is_not_overwritten(
    viewer: Any, dock: Any, qtbot: QtBot, held: Callable[[], None]
) -> None:
    mask, edits = viewer.layers["mask"], dock.edits
    edits.run("fill-holes")
    mask.data_setitem((np.array([6]), np.array([15]), np.array([15])), 3)
    painted = mask.data.copy()
    held()
    qtbot.waitUntil(lambda: not edits._make.running, timeout=LONG_MS)
    assert "has changed meanwhile" in edits.message.text()
    assert np.array_equal(mask.data, painted)


def test_a_preview_does_not_come_between(viewer: Any, dock: Any, qtbot: QtBot, held: Callable[[], None]) -> None:
    """What is applied goes where it was asked for, whatever is looked at meanwhile."""
    mask, edits = viewer.layers["mask"], dock.edits
    expected = mask.data.copy()
    expected[6] = EDITS["fill-holes"]()(expected[6], On((1, 1), 1, 1))
    edits.run("fill-holes")
    viewer.dims.set_current_step(0, 5)
    edits.preview.click()
    held()
    qtbot.waitUntil(lambda: not edits._make.running, timeout=LONG_MS)
    assert np.array_equal(mask.data, expected)


def test_a_picture(viewer: Any, qtbot: QtBot) -> None:
    drawn: NDArray[Any] = np.zeros((20, 30), int)
    drawn[3:9, 3:9] = 1
    drawn[5, 5] = 0
    mask = viewer.add_labels(drawn)
    dock = open_dock(viewer)
    dock.edits.kind.setValue("fill-holes")
    assert apply(dock, qtbot) == 1
    assert mask.data[5, 5] == 1
    dock.edits.run("interpolate")
    assert "no slices to interpolate between" in dock.edits.message.text()
