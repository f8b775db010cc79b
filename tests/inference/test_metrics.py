from __future__ import annotations

import math
import time
import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from napari_medcl.data.volume import IGNORE
from napari_medcl.inference.metrics import asd, dice, hd95, jaccard, score, surface, surface_distances

SPACING = (3.0, 0.5, 1.25)
Pair = tuple[np.ndarray, np.ndarray]

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6))
pairs = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
spacings = st.tuples(*[st.floats(0.1, 10)] * 3)


def box(shape: tuple[int, ...], *corners: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*c) for c in corners)] = True
    return mask


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius_mm: float, spacing: tuple[float, ...]):
    grid = np.indices(shape).reshape(3, -1).T * spacing
    return (np.linalg.norm(grid - np.asarray(centre), axis=1) <= radius_mm).reshape(shape)


def surface_by_loop(mask: np.ndarray) -> set[tuple[int, ...]]:
    """Literal: a voxel of the mask with at least one face neighbour that is outside."""
    found = set()
    for voxel in map(tuple, np.argwhere(mask)):
        for axis in range(3):
            if mask.shape[axis] == 1 and mask.size > 1:
                continue
            for step in (-1, 1):
                other = list(voxel)
                other[axis] += step
                if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                    found.add(voxel)
    return found


def test_cubes_one_inside_the_other_have_known_overlap() -> None:
    large, small = box((8, 8, 8), (1, 5), (1, 5), (1, 5)), box((8, 8, 8), (1, 5), (1, 5), (1, 3))
    assert dice(small, large) == pytest.approx(2 * 32 / (32 + 64))
    assert jaccard(small, large) == pytest.approx(0.5)


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (1, 3), (2, 4)])
def test_a_plane_moved_along_an_axis_is_that_many_millimetres_away(axis: int, voxels: int) -> None:
    shape = [7, 7, 7]
    shape[axis] = 20
    corners = [(0, 7)] * 3
    corners[axis] = (5, 6)
    plane = box(tuple(shape), *corners)
    distances = surface_distances(plane, np.roll(plane, voxels, axis), SPACING)
    assert hd95(distances) == pytest.approx(voxels * SPACING[axis])
    assert asd(distances) == pytest.approx(voxels * SPACING[axis])


def test_a_ball_in_a_larger_one_is_the_difference_of_the_radii_away() -> None:
    spacing = (1.0, 0.5, 0.5)
    shape = (40, 80, 80)
    inner = ball(shape, (20, 20, 20), 8, spacing)
    outer = ball(shape, (20, 20, 20), 14, spacing)
    distances = surface_distances(inner, outer, spacing)
    assert asd(distances) == pytest.approx(6, abs=0.3)
    assert hd95(distances) == pytest.approx(6, abs=0.8)


def test_the_percentile_is_taken_in_each_direction_and_the_larger_one_counts() -> None:
    truth = box((1, 1, 200), (0, 1), (0, 1), (0, 1)) | box((1, 1, 200), (0, 1), (0, 1), (100, 101))
    prediction = box((1, 1, 200), (0, 1), (0, 1), (0, 1))
    # To the prediction: 0 and 100 mm, of which the 95th percentile is 95; from it: 0. Pooled it would be 90.
    assert hd95(surface_distances(prediction, truth, (1, 1, 1))) == pytest.approx(95)


@settings(deadline=None, max_examples=60)
@given(masks)
def test_surface_is_what_the_definition_says(mask: np.ndarray) -> None:
    assert set(map(tuple, np.argwhere(surface(mask)))) == surface_by_loop(mask)


@settings(deadline=None, max_examples=60)
@given(pairs, spacings)
def test_distances_are_those_of_all_pairs(pair: Pair, spacing: tuple[float, ...]) -> None:
    a, b = (np.array(sorted(surface_by_loop(m))).reshape(-1, 3) * spacing for m in pair)
    distances = surface_distances(*pair, spacing)
    if not (len(a) and len(b)):
        assert math.isnan(hd95(distances))
        assert math.isnan(asd(distances))
        return
    table = cdist(a, b)
    np.testing.assert_allclose(np.sort(distances[0]), np.sort(table.min(1)), atol=1e-9)
    np.testing.assert_allclose(np.sort(distances[1]), np.sort(table.min(0)), atol=1e-9)
    directed = np.percentile(table.min(1), 95), np.percentile(table.min(0), 95)
    assert hd95(distances) == pytest.approx(max(directed))
    assert asd(distances) == pytest.approx(np.concatenate([table.min(1), table.min(0)]).mean())


@settings(deadline=None, max_examples=60)
@given(pairs, spacings)
def test_metrics_are_symmetric_and_dice_follows_from_jaccard(pair: Pair, spacing: tuple[float, ...]) -> None:
    a, b = pair
    there, back = surface_distances(a, b, spacing), surface_distances(b, a, spacing)
    for left, right in [
        (dice(a, b), dice(b, a)),
        (jaccard(a, b), jaccard(b, a)),
        (hd95(there), hd95(back)),
        (asd(there), asd(back)),
        (dice(a, b), 2 * jaccard(a, b) / (1 + jaccard(a, b))),
    ]:
        assert left == pytest.approx(right, nan_ok=True)


@settings(deadline=None, max_examples=40)
@given(masks)
def test_a_mask_agrees_with_itself(mask: np.ndarray) -> None:
    result = score(mask.astype(np.uint8), mask.astype(np.uint8), SPACING, [1])[1]
    if mask.any():
        assert (result.status, result.dice, result.jaccard) == ("ok", 1, 1)
        assert (result.hd95_mm, result.asd_mm) == (0, 0)
    else:
        assert result.status == "absent in both"
        assert math.isnan(result.dice)


@settings(deadline=None, max_examples=40)
@given(pairs, st.tuples(*[st.integers(1, 4)] * 6))
def test_nothing_changes_when_both_move_within_a_larger_array(pair: Pair, pads: tuple[int, ...]) -> None:
    around = [(1, 1)] * 3
    wide = list(zip(pads[:3], pads[3:], strict=True))
    results = []
    for widths in (around, wide):
        a, b = (np.pad(m, widths).astype(np.int16) for m in pair)
        results.append(score(a, b, SPACING, [1])[1])
    assert str(results[0]) == str(results[1])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
def test_agrees_with_monai(spacing: tuple[float, ...]) -> None:
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    rng = np.random.default_rng(0)
    shape = (12, 20, 18)
    a, b = (ball(shape, rng.uniform(8, 12, 3), r, spacing) for r in (6, 7.5))
    a |= rng.random(shape) > 0.98
    one_hot = [torch.from_numpy(np.stack([~m, m])[None]).float() for m in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected_hd = compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing).item()
        expected_asd = compute_average_surface_distance(*one_hot, symmetric=True, spacing=spacing).item()
    distances = surface_distances(a, b, spacing)
    assert hd95(distances) == pytest.approx(expected_hd, rel=1e-5)
    assert asd(distances) == pytest.approx(expected_asd, rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_has_an_outline_only(axis: int) -> None:
    a = np.expand_dims(box((20, 20), (4, 12), (4, 12)), axis)
    b = np.expand_dims(box((20, 20), (4, 12), (6, 14)), axis)
    assert np.count_nonzero(surface(a)) == 8 * 8 - 6 * 6
    inner = score(a.astype(int), b.astype(int), (1, 1, 1), [1])[1]
    assert inner.hd95_mm == pytest.approx(2)
    assert 0 < inner.asd_mm < 2


def test_an_empty_prediction_is_said_to_be_empty_and_has_no_distance() -> None:
    truth = box((6, 6, 6), (2, 4), (2, 4), (2, 4)).astype(np.uint8)
    result = score(np.zeros_like(truth), truth, (1, 1, 1), [1])[1]
    assert (result.status, result.dice, result.jaccard) == ("empty prediction", 0, 0)
    assert math.isnan(result.hd95_mm)
    assert math.isnan(result.asd_mm)
    assert result.prediction_ml == 0


def test_a_class_that_only_the_prediction_has_is_a_false_positive() -> None:
    prediction = np.full((3, 3, 3), 2)
    result = score(prediction, np.zeros_like(prediction), (10, 10, 10), [1, 2])
    assert result[1].status == "absent in both"
    assert (result[2].status, result[2].dice, result[2].prediction_ml) == ("false positive", 0, 27)
    assert math.isnan(result[2].hd95_mm)


def test_volumes_are_in_millilitres() -> None:
    truth = np.zeros((4, 10, 10), np.uint8)
    truth[1:3, :5, :5] = 3
    result = score(truth, truth, (5, 2, 2), [3])[3]
    assert result.truth_ml == pytest.approx(50 * 20 / 1000)
    assert result.prediction_ml == pytest.approx(1)


def test_voxels_that_were_not_annotated_are_left_out() -> None:
    truth = np.full((5, 12, 12), IGNORE, np.uint8)
    truth[2] = box((12, 12), (3, 9), (3, 9))
    prediction = np.zeros_like(truth)
    prediction[:, 3:9, 4:10] = 1
    result = score(prediction, truth, (4, 1, 1), [1])[1]
    assert result.dice == pytest.approx(5 / 6)
    assert result.truth_ml == result.prediction_ml == pytest.approx(36 * 4 / 1000)
    flat = score(prediction[2:3], truth[2:3], (4, 1, 1), [1])[1]
    assert result.asd_mm == pytest.approx(flat.asd_mm), "unannotated neighbours are no surface"
    assert result.hd95_mm == pytest.approx(flat.hd95_mm)


def test_distances_leave_out_what_was_not_annotated_in_either_mask() -> None:
    where = np.ones((1, 20, 20), bool)
    where[..., 12:] = False
    truth = box((1, 20, 20), (0, 1), (4, 8), (4, 8))
    prediction = truth | box((1, 20, 20), (0, 1), (4, 8), (16, 20))
    assert hd95(surface_distances(prediction, truth, (1, 1, 1), where)) == 0
    assert hd95(surface_distances(truth, prediction, (1, 1, 1), where)) == 0
    assert hd95(surface_distances(prediction, truth, (1, 1, 1))) > 5


def test_a_mask_among_unannotated_voxels_has_no_surface() -> None:
    truth = np.full((5, 5, 5), IGNORE)
    truth[2, 2, 2] = 1
    result = score(np.ones_like(truth), truth, (1, 1, 1), [1])[1]
    assert (result.status, result.dice) == ("ok", 1)
    assert math.isnan(result.hd95_mm)


def test_a_large_ct_is_compared_in_seconds() -> None:
    z, y, x = np.ogrid[:100, :512, :512]
    truth = (((z - 50) / 30) ** 2 + ((y - 256) / 120) ** 2 + ((x - 256) / 150) ** 2 < 1).astype(np.uint8)
    start = time.perf_counter()
    result = score(np.roll(truth, 5, 2), truth, (3, 0.8, 0.8), [1])[1]
    assert time.perf_counter() - start < 20
    assert 0 < result.asd_mm < result.hd95_mm <= 4 + 1e-9
