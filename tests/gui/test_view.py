from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medcl.errors import UserError
from napari_medcl.gui.upright import keep_upright
from napari_medcl.gui.view import (
    CHOSEN,
    POSITIVE,
    SAMPLED,
    Overlay,
    bottleneck,
    cut,
    over_scan,
    over_slice,
    positives_of,
    shown_slice,
    shown_step,
)

RANDOM = np.random.default_rng(0)
SCALE, TRANSLATE = (3.0, 1.5, 0.5), (10.0, -20.0, 30.0)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def add(viewer: ViewerModel, shape: tuple[int, ...], **how: Any) -> Any:
    place = {"scale": SCALE[-len(shape) :], "translate": TRANSLATE[-len(shape) :], "units": "mm"}
    return viewer.add_image(RANDOM.random(shape), **{**place, **how})


@pytest.mark.parametrize(("order", "axis"), [((0, 1, 2), 0), ((1, 0, 2), 1), ((2, 0, 1), 2), ((1, 2, 0), 1)])
def test_slice_in_view_in_every_plane(viewer: ViewerModel, order: tuple[int, ...], axis: int) -> None:
    layer = add(viewer, (6, 7, 8))
    viewer.dims.order = order
    viewer.dims.set_current_step(axis, 2)
    shown = shown_slice(layer, viewer.dims)
    assert (shown.axis, shown.index) == (axis, 2)
    assert np.array_equal(cut(layer.data[None], shown)[0], layer.data.take(2, axis))


def test_map_lies_over_the_slice_in_view(viewer: ViewerModel) -> None:
    layer = add(viewer, (6, 7, 8))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 4)
    shown = shown_slice(layer, viewer.dims)
    overlay = over_slice(layer, shown, layer.data[:, 4])
    assert overlay.array.shape == (6, 1, 8)
    for point in ((0, 4, 0), (5, 4, 7), (2, 4, 3)):
        cell = overlay.cell(tuple(layer.data_to_world(point)))
        assert cell is not None
        assert overlay.array[cell] == layer.data[point]
    assert overlay.cell(tuple(layer.data_to_world((6, 4, 0)))) is None


def test_picture_among_volumes(viewer: ViewerModel) -> None:
    picture = viewer.add_image(RANDOM.random((7, 8)), scale=(1, 1), units="mm")
    add(viewer, (6, 7, 8))
    assert shown_slice(picture, viewer.dims).axis is None
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(UserError, match="edge"):
        shown_slice(picture, viewer.dims)


def test_colours_are_no_axis(viewer: ViewerModel) -> None:
    picture = viewer.add_image(RANDOM.random((7, 8, 3)), rgb=True)
    assert shown_slice(picture, viewer.dims).axis is None
    assert over_scan(picture, RANDOM.random((1, 7, 8))).array.shape == (7, 8)


def test_slice_of_a_time_series(viewer: ViewerModel) -> None:
    layer = viewer.add_image(RANDOM.random((9, 6, 7, 8)), scale=(1, *SCALE), translate=(0, *TRANSLATE), units="mm")
    viewer.dims.set_current_step(0, 5)
    viewer.dims.set_current_step(1, 3)
    shown = shown_slice(layer, viewer.dims)
    assert (shown.step, shown.axis, shown.index) == (5, 0, 3)
    assert shown_step(layer, viewer.dims) == 5


def test_what_shows_no_slice_is_said(viewer: ViewerModel) -> None:
    near = add(viewer, (6, 7, 8))
    far = add(viewer, (6, 7, 8), translate=(100, 0, 0))
    viewer.dims.set_point(0, near.translate[0])
    with pytest.raises(UserError, match="outside"):
        shown_slice(far, viewer.dims)
    viewer.dims.ndisplay = 3
    with pytest.raises(UserError, match="Switch to 2D"):
        shown_slice(near, viewer.dims)


@pytest.mark.parametrize("shape", [(1, 64, 48), (1, 50, 37), (20, 64, 48), (33, 17)])
def test_bottleneck_grid_covers_the_same_place(shape: tuple[int, ...]) -> None:
    fine = Overlay(RANDOM.integers(1, 99, shape), SCALE[-len(shape) :], TRANSLATE[-len(shape) :])
    grid = bottleneck(fine, 4)
    assert grid.array.shape == tuple(-(-n // 16) for n in shape)
    for overlay_edge in (-0.5, None):
        edges = [
            np.array(o.translate)
            + (np.full(len(shape), -0.5) if overlay_edge else np.array(o.array.shape) - 0.5) * o.scale
            for o in (fine, grid)
        ]
        assert np.allclose(*edges)


def test_grid_takes_the_superpixel_at_the_same_place() -> None:
    array = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((16, 16), int))
    fine = Overlay(array, (1.0, 1.0), (0.0, 0.0))
    grid = bottleneck(fine, 4)
    assert np.array_equal(grid.array, np.arange(1, 13).reshape(3, 4))
    assert grid.cell((20, 40)) == (1, 2)


def test_positives_are_the_cells_of_the_same_superpixel() -> None:
    grid = Overlay(np.array([[1, 1, 2], [1, 2, 2], [3, 1, 2]]), (1.0, 1.0), (0.0, 0.0))
    found = positives_of(grid, (0, 1), stride=2)
    expected = [[SAMPLED, CHOSEN, 0], [POSITIVE, 0, 0], [0, POSITIVE, 0]]
    assert found.array.tolist() == expected


def test_patients_stand_upright(viewer: ViewerModel) -> None:
    add(viewer, (6, 7, 8), axis_labels=("z", "y", "x"))
    keep_upright(viewer)
    keep_upright(viewer)
    viewer.dims.order = (1, 0, 2)
    assert tuple(map(str, getattr(viewer, "scene", viewer).camera.orientation2d)) == ("up", "right")
    viewer.dims.order = (0, 1, 2)
    assert tuple(map(str, getattr(viewer, "scene", viewer).camera.orientation2d)) == ("down", "right")
