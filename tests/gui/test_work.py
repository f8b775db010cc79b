from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.errors import UserError
from tests.gui.test_correct import open_dock, opened, windowless

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

ORDERS = [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
INDEX = (7, 12, 13)
"""Of a slice along each axis that holds some of the ball, but is not in its middle."""
SHAPE = (12, 30, 32)


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def work(viewer: Any, scan: Path, mask: Path) -> Any:
    return opened(viewer, scan, mask).work


def turn(viewer: Any, order: tuple[int, ...]) -> int:
    viewer.dims.order = order
    viewer.dims.set_current_step(order[0], INDEX[order[0]])
    return INDEX[order[0]]


@pytest.mark.parametrize("order", ORDERS)
def test_a_slice_is_that_in_view(viewer: Any, work: Any, order: tuple[int, ...]) -> None:
    index = turn(viewer, order)
    mask, scan, axis = viewer.layers["mask"], viewer.layers["scan"], order[0]
    part = work.part(whole=False)
    assert np.array_equal(part.labels, mask.data.take(index, axis))
    assert np.array_equal(work.image(part)[0], scan.data.take(index, axis))
    assert part.spacing == tuple(np.delete(mask.scale, axis).tolist())
    assert part.voxel_ml == pytest.approx(float(np.prod(mask.scale)) / 1000)
    found = part.at(np.nonzero(part.labels))
    assert np.array_equal(mask.data[found], part.labels[part.labels > 0])
    assert set(found[axis].tolist()) == {index}
    inside = (4, 9)
    position = mask.data_to_world(tuple(np.insert(inside, axis, index)))
    assert part.voxel(position) == inside
    assert part.voxel(np.add(position, 1e4)) is None

    overlay = part.over(np.ones((2, 2), np.uint8), inside)
    over = viewer.add_labels(overlay.array, scale=overlay.scale, translate=overlay.translate)
    assert np.allclose(over.data_to_world((0, 0, 0)), position)


def test_a_volume(viewer: Any, work: Any) -> None:
    mask = viewer.layers["mask"]
    part = work.part(whole=True)
    assert part.labels.shape == SHAPE
    assert part.spacing == tuple(mask.scale.tolist())
    assert np.array_equal(mask.data[part.at(np.nonzero(part.labels))], part.labels[part.labels > 0])
    assert work.image(part).shape == (1, *SHAPE)
    position = mask.data_to_world((2, 3, 4))
    assert part.voxel(position) == (2, 3, 4)
    assert np.allclose(part.over(np.ones((2, 2, 2)), (2, 3, 4)).translate, position)


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_put_is_one_step_to_undo(viewer: Any, work: Any, order: tuple[int, ...]) -> None:
    index = turn(viewer, order)
    mask = viewer.layers["mask"]
    before = mask.data.copy()
    for whole, where in ((False, (slice(None),) * order[0] + (index,)), (True, ...)):
        part = work.part(whole=whole)
        after = np.where(part.labels == 0, 2, part.labels)
        assert work.put(part, after) == np.count_nonzero(before[where] == 0) > 0
        expected = before.copy()
        expected[where] = after
        assert np.array_equal(mask.data, expected)
        assert np.array_equal(part.now.labels, after)
        assert work.put(part.now, after) == 0
        mask.undo()
        assert np.array_equal(mask.data, before)
        assert not mask._undo_history, "nothing changed the second time, so there is nothing to undo"


def test_a_box_is_put_where_it_is_from(viewer: Any, work: Any) -> None:
    index = turn(viewer, (1, 0, 2))
    mask = viewer.layers["mask"]
    before = mask.data.copy()
    part, box = work.part(whole=False), (slice(3, 5), slice(20, 24))
    assert work.put(part, np.full((2, 4), 3, np.uint8), box) == 8
    before[3:5, index, 20:24] = 3
    assert np.array_equal(mask.data, before)


def test_a_scan_on_another_grid_is_refused(viewer: Any) -> None:
    viewer.add_labels(np.zeros(SHAPE, int), name="drawn")
    dock = open_dock(viewer)
    others = [
        ((12, 30, 31), {}),
        (SHAPE, {"translate": (0, 0, 1)}),
        (SHAPE, {"scale": (1, 1, 1.1)}),
        (SHAPE[1:], {}),
        ((4, *SHAPE[1:]), {}),
    ]
    for shape, how in others:
        dock.scan.setValue(viewer.add_image(np.zeros(shape), name="photo", **how))
        with pytest.raises(UserError, match="“drawn” does not lie on the voxels of “photo"):
            dock.work.volume()
    dock.scan.setValue(viewer.add_image(np.zeros(SHAPE), translate=(1e-5, 0, 0), scale=(1, 1, 1.0000001)))
    assert dock.work.volume().shape == SHAPE
    dock.mask.setValue(viewer.add_labels(np.zeros(SHAPE[1:], int), name="flat"))
    with pytest.raises(UserError, match="“flat” does not lie on the voxels"):
        dock.work.volume()


def test_what_is_missing_is_said(viewer: Any) -> None:
    work = open_dock(viewer).work
    for ask in (work.chosen, lambda: work.part(whole=True), work.volume, lambda: work.label):
        with pytest.raises(UserError, match="no mask to correct"):
            ask()
    viewer.add_labels(np.zeros((2, *SHAPE), int), name="series")
    work._mask.setValue(viewer.layers["series"])
    with pytest.raises(UserError, match="“series” has 4 dimensions"):
        work.part(whole=True)
    viewer.layers.clear()
    drawn = viewer.add_labels(np.zeros(SHAPE, int))
    work._mask.setValue(drawn)
    with pytest.raises(UserError, match="no scan open"):
        work.volume()
    viewer.dims.ndisplay = 3
    with pytest.raises(UserError, match="in 3D"):
        work.part(whole=False)
    assert work.part(whole=True).labels.shape == SHAPE


def test_a_picture(viewer: Any) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    viewer.add_image(colours, rgb=True)
    mask = viewer.add_labels(np.zeros((20, 30), int), name="drawn")
    work = open_dock(viewer).work
    for whole in (False, True):
        part = work.part(whole=whole)
        assert part.labels.shape == (20, 30)
        assert np.array_equal(work.image(part), np.moveaxis(colours, -1, 0))
        assert part.voxel((3.4, 5)) == (3, 5)
        assert part.over(np.ones((2, 2)), (3, 4)).translate == (3, 4)
        work.put(part, np.full((2, 2), 4), (slice(5, 7), slice(8, 10)))
        assert mask.data[5:7, 8:10].tolist() == [[4, 4], [4, 4]]
        mask.undo()
        assert not mask.data.any()


def test_it_tells_what_happens_to_the_mask(viewer: Any, work: Any, qtbot: QtBot) -> None:
    mask = viewer.layers["mask"]
    with qtbot.waitSignal(work.moved):
        viewer.dims.set_current_step(0, 3)
    with qtbot.waitSignal(work.painted) as told:
        mask.data_setitem((np.array([1]), np.array([2]), np.array([3])), 2)
    ((atom,),) = told.args
    assert [axis.tolist() for axis in atom[0]] == [[1], [2], [3]]
    with qtbot.waitSignal(work.refreshed):
        mask.undo()
    with qtbot.waitSignal(work.changed):
        work._mask.setValue(None)
    with qtbot.assertNotEmitted(work.painted):
        mask.data_setitem((np.array([1]), np.array([2]), np.array([3])), 2)


def test_the_scan_is_read_once(viewer: Any, work: Any) -> None:
    assert work.volume() is work.volume()
    other = viewer.add_image(
        np.ones(SHAPE), scale=work.layer.scale, translate=work.layer.translate, units=["mm"] * 3, name="other"
    )
    work._scan.setValue(other)
    assert work.volume().array.max() == 1
