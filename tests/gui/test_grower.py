from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.gui import grower as grower_module
from napari_medcl.gui.grower import region_of
from tests.gui.conftest import save
from tests.gui.test_correct import Event, drag, opened, settle, windowless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

MIDDLE = (6, 15, 16)


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def dock(viewer: Any, tmp_path: Path, brick: Any) -> Any:
    """The dock with an empty mask over a scan of a bright ball, and the tool in the hand."""
    noise = np.random.default_rng(0).normal(0, 20, brick[1].shape)
    dock = opened(viewer, save(tmp_path / "scan.nii.gz", (100 + 200.0 * brick[1] + noise).astype(np.int16)))
    dock.new.click()
    viewer.layers["scan mask"].selected_label = 2
    dock.tools.buttons["edge"].click()
    return dock


@pytest.fixture
def ball(brick: Any) -> NDArray[np.bool_]:
    """The ball in the slice in its middle."""
    return np.asarray(brick[1].T[6] > 0)


def click(dock: Any, voxel: Any, *modifiers: str) -> None:
    drag(dock.tools.grower, [dock.work.layer.data_to_world(voxel)], *modifiers)


def test_a_click_fills_the_ball(viewer: Any, dock: Any, ball: Any, qtbot: QtBot) -> None:
    mask = viewer.layers["scan mask"]
    click(dock, MIDDLE)
    assert "Growing" in dock.tools.message.text()
    settle(dock.tools.grower, qtbot)
    found = mask.data[6] == 2
    assert 2 * np.count_nonzero(found & ball) / (np.count_nonzero(found) + np.count_nonzero(ball)) > 0.9
    assert dock.tools.message.text() == f"{np.count_nonzero(found)} voxels labelled."
    assert not np.delete(mask.data, 6, 0).any(), "only the slice in view"
    y, x = np.nonzero(found)
    assert (np.hypot(y - 15, x - 16) < 12).all()
    mask.selected_label = 3
    click(dock, MIDDLE, "Control")
    settle(dock.tools.grower, qtbot)
    assert np.array_equal(mask.data[6] == 2, found), "another label is not erased"
    mask.selected_label = 2
    click(dock, MIDDLE, "Control")
    settle(dock.tools.grower, qtbot)
    assert np.count_nonzero(mask.data) < np.count_nonzero(found) / 10
    assert "voxels erased." in dock.tools.message.text()
    for _ in range(2):
        mask.undo()
    assert not mask.data.any()


def test_it_looks_no_further_than_its_reach(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, grower = viewer.layers["scan mask"], dock.tools.grower
    dock.tools.reach.setValue(4)
    assert grower._reach_mm == 4
    click(dock, MIDDLE)
    settle(grower, qtbot)
    y, x = np.nonzero(mask.data[6])
    assert len(y)
    assert (np.abs(y - 15) * mask.scale[1]).max() < 4 + mask.scale[1]
    assert (np.abs(x - 16) * mask.scale[2]).max() < 4 + mask.scale[2]
    grower.wheeled(mask, Event((0, 0, 0), "Shift", delta=(0.0, 1.0)))
    assert (dock.tools.reach.value(), grower._reach_mm) == (5, 5)


def test_a_scribble_is_all_of_it_and_spares_other_labels(viewer: Any, dock: Any, ball: Any, qtbot: QtBot) -> None:
    mask = viewer.layers["scan mask"]
    mask.data[6, 14:17, 20:23] = 1
    before = mask.data.copy()
    drag(dock.tools.grower, [mask.data_to_world((6, 10, x)) for x in (10, 15, 20)])
    settle(dock.tools.grower, qtbot)
    assert (mask.data[6, 10, 10:21] == 2).all()
    assert (mask.data[6, 14:17, 20:23] == 1).all()
    assert len(mask._undo_history) == 1
    mask.undo()
    assert np.array_equal(mask.data, before)


def test_limits_and_a_wrong_scan(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, scan = viewer.layers["scan mask"], viewer.layers["scan"]
    dock.tools.low.setValue(300)
    click(dock, MIDDLE)
    settle(dock.tools.grower, qtbot)
    assert mask.data.any()
    assert scan.data[mask.data > 0].min() >= 300
    dock.tools.high.setValue(200)
    click(dock, MIDDLE)
    settle(dock.tools.grower, qtbot)
    assert "low must not be above high" in dock.tools.message.text()
    dock.scan.setValue(viewer.add_image(np.zeros((2, 3, 4)), name="other"))
    click(dock, MIDDLE)
    assert "does not lie on the voxels of “other”" in dock.tools.message.text()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Growing waits until this is called."""
    gate = threading.Event()

    def slow(*args: Any, **how: Any) -> Any:
        gate.wait(5)
        return region_of(*args, **how)

    monkeypatch.setattr(grower_module, "region_of", slow)
    return gate.set


def test_it_grows_where_it_was_asked_for(
    viewer: Any, dock: Any, qtbot: QtBot, held: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, grower = viewer.layers["scan mask"], dock.tools.grower
    click(dock, MIDDLE)
    viewer.dims.set_current_step(0, 2)
    stroke = grower.dragged(mask, Event(mask.data_to_world((2, 3, 3)), "Control"))
    next(stroke)
    held()
    settle(grower, qtbot)
    assert set(np.nonzero(mask.data)[0].tolist()) == {6}


def test_put_away_it_grows_no_more(viewer: Any, dock: Any, qtbot: QtBot, held: Callable[[], None]) -> None:
    click(dock, MIDDLE)
    dock.tools.buttons["edge"].click()
    held()
    qtbot.wait(200)
    assert not viewer.layers["scan mask"].data.any()
