from __future__ import annotations

from itertools import permutations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from napari_medcl.data.volume import IGNORE
from napari_medcl.inference.interpolate import interpolate
from tests.inference.test_correct import (
    ONE_MM,
    SPACING,
    depth_by_pairs,
    disc,
    spacings,
)


def test_halfway_between_a_small_and_a_large_disc_lies_one_between() -> None:
    labels = np.zeros((5, 31, 31), np.uint8)
    labels[0], labels[4] = disc(4), disc(8)
    result = interpolate(labels, 0, ONE_MM)
    assert [np.sqrt(np.count_nonzero(s) / np.pi) for s in result] == pytest.approx([4, 5, 6, 7, 8], abs=0.3)
    np.testing.assert_array_equal(result[[0, 4]], labels[[0, 4]])


def test_a_disc_that_moves_stays_a_disc() -> None:
    labels = np.zeros((6, 31, 31), np.int16)
    labels[0], labels[5] = disc(4, 6, 5), disc(4, 21, 25)
    result = interpolate(labels, 0, SPACING)
    for index in range(6):
        np.testing.assert_array_equal(result[index] == 1, disc(4, 6 + 3 * index, 5 + 4 * index))


def test_a_cone_is_filled_in_from_a_few_of_its_slices() -> None:
    cone = np.stack([disc(12 - index, 15, 15) for index in range(11)]).astype(np.uint8)
    labels = cone.copy()
    labels[[1, 2, 3, 5, 6, 7, 8, 9]] = 0
    result = interpolate(labels, 0, ONE_MM)
    assert np.count_nonzero(result != cone) < 0.05 * np.count_nonzero(cone)


def test_two_that_touch_still_touch_in_between() -> None:
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[0, 5:15, 2:10], labels[0, 5:15, 10:18] = 1, 2
    labels[2, 5:15, 2:6], labels[2, 5:15, 6:18] = 1, 2
    middle = interpolate(labels, 0, ONE_MM)[1, 7:13]  # the blend is narrower where three outlines meet
    np.testing.assert_array_equal(middle, [[0] * 2 + [1] * 6 + [2] * 10 + [0] * 2] * 6)


@pytest.mark.parametrize(("small", "large"), [(1, 2), (2, 1)])
def test_where_two_meet_the_one_that_lies_deeper_wins(small: int, large: int) -> None:
    labels = np.zeros((3, 31, 31), np.uint8)
    labels[0, disc(3, 15, 5)] = labels[2, disc(3, 15, 25)] = small
    labels[0, disc(6, 15, 23)] = labels[2, disc(6, 15, 7)] = large
    np.testing.assert_array_equal(interpolate(labels, 0, ONE_MM)[1], large * disc(6, 15, 15))


def test_a_piece_that_ends_does_not_move_the_one_beside_it() -> None:
    labels = np.zeros((5, 31, 31), np.uint8)
    labels[0], labels[4] = disc(4, 15, 6) | disc(4, 15, 24), disc(4, 15, 6)
    result = interpolate(labels, 0, ONE_MM)
    for between in result[1:4]:
        np.testing.assert_array_equal(between[:, :14], disc(4, 15, 6)[:, :14])


def test_only_background_is_filled_and_only_between() -> None:
    labels = np.zeros((6, 9, 9), np.uint8)
    labels[1, 2:7, 2:7] = labels[4, 2:7, 2:7] = 1
    labels[2] = IGNORE
    labels[3, 2:4, 2:7], labels[3, 4, 2:7] = 2, IGNORE
    result = interpolate(labels, 0, ONE_MM, 1)
    assert set(result[3, 5:7, 2:7].ravel().tolist()) == {1}
    result[3, 5:7, 2:7] = 0
    np.testing.assert_array_equal(result, labels)


@settings(deadline=None, max_examples=40)
@given(
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=5),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    spacings,
)
def test_slices_between_are_what_the_definition_says(
    shape: tuple[int, int], seed: int, gap: int, spacing: tuple[float, ...]
) -> None:
    ends = np.random.default_rng(seed).random((2, *shape)) < 0.5
    assume(ends.any(axis=(1, 2)).all())
    labels = np.zeros((gap + 2, *shape), np.uint8)
    labels[0], labels[-1] = ends
    centre = [np.argwhere(end).mean(axis=0) for end in ends]
    shift = np.rint(centre[1] - centre[0]).astype(int)
    wide = 2 * max(shape)
    start, end = (np.pad(e, wide) for e in ends)
    if np.count_nonzero(start & np.roll(end, -shift, (0, 1))) <= np.count_nonzero(start & end):
        shift[:] = 0
    near = depth_by_pairs(ends[0], wide, spacing[1:])
    far = np.roll(depth_by_pairs(ends[1], wide, spacing[1:]), -shift, (0, 1))
    result = interpolate(labels, 0, spacing)
    for index in range(1, gap + 1):
        part = index / (gap + 1)
        depth = np.roll((1 - part) * near + part * far, np.rint(part * shift).astype(int), (0, 1))
        depth = depth[wide:-wide, wide:-wide]
        clear = abs(depth) > 1e-5
        np.testing.assert_array_equal((result[index] == 1)[clear], (depth > 0)[clear])


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_slices_can_lie_across_any_axis(order: tuple[int, ...]) -> None:
    labels = np.zeros((6, 9, 9), np.uint8)
    labels[[0, 5]] = np.random.default_rng(1).random((2, 9, 9)) < 0.6
    result, spacing = interpolate(labels, 0, SPACING), [SPACING[axis] for axis in order]
    axis = order.index(0)
    for counted in (axis, axis - 3):
        turned = interpolate(labels.transpose(order), counted, spacing)
        np.testing.assert_array_equal(turned, result.transpose(order))
    assert (interpolate(labels, 0, ONE_MM) != result).any(), "the spacing matters here"


def test_interpolation_takes_volumes_and_their_axes_only() -> None:
    with pytest.raises(ValueError, match="in a volume"):
        interpolate(np.zeros((3, 3), np.uint8), 0, (1, 1))
    with pytest.raises(ValueError, match="spacing must be 3"):
        interpolate(np.zeros((3, 3, 3), np.uint8), 0, (1, 1))
    with pytest.raises(ValueError, match="axis 3"):
        interpolate(np.zeros((3, 3, 3), np.uint8), 3, ONE_MM)
    with pytest.raises(ValueError, match="is no label"):
        interpolate(np.zeros((3, 3, 3), np.uint8), 0, ONE_MM, 0)


def test_fifty_large_slices_are_interpolated() -> None:
    labels = np.zeros((50, 512, 512), np.uint8)
    for index in (1, 12, 25, 36, 48):
        labels[index] = disc(60 + index, 240, 250, 512)
        labels[index, 20:80, 30 + index : 90] = 2
    result = interpolate(labels, 0, (5, 0.8, 0.8))
    assert all(set(np.unique(s).tolist()) == {0, 1, 2} for s in result[1:49])
