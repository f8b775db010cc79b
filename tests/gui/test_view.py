from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from napari.components import ViewerModel

from napari_medcl.errors import UserError
from napari_medcl.gui.upright import keep_upright
from napari_medcl.gui.view import (
    CHOSEN,
    POSITIVE,
    SAMPLED,
    Overlay,
    Shown,
    cut,
    middle,
    near,
    outline,
    over_scan,
    over_slice,
    positives_of,
    shown_slice,
    shown_step,
    voxel_at,
)
from napari_medcl.methods.losses.contrast import by_position

RANDOM = np.random.default_rng(0)
SCALE, TRANSLATE = (3.0, 1.5, 0.5), (10.0, -20.0, 30.0)


def cell(overlay: Overlay, position: Any) -> tuple[int, ...] | None:
    """The cell of a map at a position in the world, None outside."""
    index = np.rint((np.asarray(position) - overlay.translate) / overlay.scale).astype(int)
    return tuple(index.tolist()) if all(0 <= i < n for i, n in zip(index, overlay.array.shape, strict=True)) else None


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
        found = cell(overlay, layer.data_to_world(point))
        assert found is not None
        assert overlay.array[found] == layer.data[point]
    assert cell(overlay, layer.data_to_world((6, 4, 0))) is None


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


def test_coarse_map_of_a_part_lies_over_its_voxels(viewer: ViewerModel) -> None:
    layer = add(viewer, (6, 7, 8))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 4)
    shown = shown_slice(layer, viewer.dims)
    flat = over_slice(layer, shown, RANDOM.random((2, 3)), first=(1, 2), cell=(2, 1.5))
    whole = over_scan(layer, RANDOM.random((1, 2, 3)), first=(0, 1, 2), cell=(5, 2, 1.5))
    for voxel, wanted in {
        (1, 4, 2): (0, 0, 0),
        (2, 4, 3): (0, 0, 0),
        (3, 4, 4): (1, 0, 1),
        (4, 4, 6): (1, 0, 2),
    }.items():
        assert cell(flat, layer.data_to_world(voxel)) == wanted
    assert cell(flat, layer.data_to_world((0, 4, 2))) is None
    assert cell(whole, layer.data_to_world((4, 1, 6))) == (0, 0, 2)
    picture = viewer.add_image(RANDOM.random((7, 8)))
    assert over_slice(picture, Shown(None), RANDOM.random((2, 2)), cell=(4, 4)).translate == (1.5, 1.5)


def test_voxel_under_the_mouse(viewer: ViewerModel) -> None:
    layer = add(viewer, (6, 7, 8))
    shown = Shown(1, 4)
    place = tuple(layer.data_to_world((2, 4, 5)))
    assert voxel_at(layer, shown, place, flat=True) == pytest.approx((2, 5))
    assert voxel_at(layer, shown, place, flat=False) == pytest.approx((2, 4, 5))
    assert voxel_at(layer, shown, tuple(layer.data_to_world((2, 4, 8))), flat=True) is None
    assert middle(layer, shown) == pytest.approx(layer.data_to_world((3, 4, 4)))
    series = viewer.add_image(RANDOM.random((9, 6, 7, 8)), scale=(1, *SCALE), translate=(0, *TRANSLATE), units="mm")
    assert voxel_at(series, shown, middle(series, shown), flat=False) == pytest.approx((3, 4, 4))


def test_outline_is_one_voxel_thick() -> None:
    assert outline((4, 3)).tolist() == [[1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert outline((1, 2)).all()
    assert outline((5, 5, 5)).sum() == 125 - 27


@pytest.mark.parametrize("count", [1, 7, 10, 95])
@pytest.mark.parametrize("threshold", [0.05, 0.1, 1.0])
def test_near_slices_are_those_of_training(count: int, threshold: float) -> None:
    places = torch.tensor([(index + 1) / count for index in range(count)])
    alike = by_position(places, threshold)[:count, :count].numpy()
    for index in range(count):
        assert np.array_equal(near(count, index, threshold), alike[index])


def test_positives_are_the_cells_of_the_same_superpixel() -> None:
    found = positives_of(np.array([[1, 1, 2], [1, 2, 2], [3, 1, 2]]), (0, 1), stride=2)
    expected = [[SAMPLED, CHOSEN, 0], [POSITIVE, 0, 0], [0, POSITIVE, 0]]
    assert found.tolist() == expected


def test_patients_stand_upright(viewer: ViewerModel) -> None:
    add(viewer, (6, 7, 8), axis_labels=("z", "y", "x"))
    keep_upright(viewer)
    keep_upright(viewer)
    viewer.dims.order = (1, 0, 2)
    assert tuple(map(str, getattr(viewer, "scene", viewer).camera.orientation2d)) == ("up", "right")
    viewer.dims.order = (0, 1, 2)
    assert tuple(map(str, getattr(viewer, "scene", viewer).camera.orientation2d)) == ("down", "right")
