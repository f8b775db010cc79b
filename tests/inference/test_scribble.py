from __future__ import annotations

from itertools import permutations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import random_walker

from napari_medcl.inference.scribble import grow_to_edge

numbers = st.sampled_from([0, 1, 2, 50, -1000, np.nan, np.inf, -np.inf])
images = hnp.array_shapes(min_dims=2, max_dims=3, max_side=7).flatmap(
    lambda shape: st.one_of(hnp.arrays(np.float32, shape, elements=numbers), hnp.arrays(np.int16, shape))
)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    grid = np.indices(shape).reshape(len(shape), -1).T * spacing
    return (np.linalg.norm(grid - np.asarray(centre), axis=1) <= radius_mm).reshape(shape)


def at(shape: tuple[int, ...], *voxels: tuple[int, ...]) -> np.ndarray:
    seeds = np.zeros(shape, bool)
    seeds[tuple(np.transpose(voxels))] = True
    return seeds


def noisy(truth: np.ndarray, noise: float = 0.1) -> np.ndarray:
    return truth + np.random.default_rng(0).normal(0, noise, truth.shape)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("invert", [1, -1])
def test_a_click_finds_the_disc_that_it_is_in(spacing: tuple[float, float], invert: int) -> None:
    shape = (60, 70)
    truth = ball(shape, (30 * spacing[0], 35 * spacing[1]), 12, spacing)
    found = grow_to_edge(invert * noisy(truth), at(shape, (28, 37)), spacing, reach_mm=25)
    assert overlap(found, truth) > 0.97


def test_a_click_finds_a_ball_in_thick_slices() -> None:
    shape, spacing = (14, 44, 44), (3.0, 1.0, 1.0)
    truth = ball(shape, (21, 22, 22), 12, spacing)
    found = grow_to_edge(noisy(truth, 0.05), at(shape, (7, 23, 21)), spacing, reach_mm=18)
    assert overlap(found, truth) > 0.95


def test_a_scribble_takes_both_sides_of_an_edge_that_it_crosses() -> None:
    shape = (50, 50)
    image = np.zeros(shape)
    image[15:35, 10:25], image[15:35, 25:40] = 1, 2
    click = grow_to_edge(image, at(shape, (25, 15)), (1, 1))
    assert click[15:35, 10:25].all()
    assert np.count_nonzero(click) == 20 * 15
    line = grow_to_edge(image, at(shape, *[(25, x) for x in range(14, 36)]), (1, 1))
    assert line[15:35, 10:40].all()
    assert np.count_nonzero(line) == 20 * 30


def test_background_keeps_it_out_and_the_seeds_stay_in() -> None:
    shape = (50, 50)
    truth = ball(shape, (25, 25), 12, (1, 1))
    background = np.zeros(shape, bool)
    background[:, 28:] = True
    found = grow_to_edge(noisy(truth, 0.05), at(shape, (25, 20)), (1, 1), background=background)
    assert not found[:, 28:].any()
    assert overlap(found, truth & ~background) > 0.75  # it ends before the background, for there is no edge
    seeds = at(shape, (25, 20), (25, 35))
    assert grow_to_edge(noisy(truth, 0.05), seeds, (1, 1), background=background)[25, 35]


def test_what_the_array_cuts_off_is_found_up_to_its_end() -> None:
    truth = ball((60, 60), (0, 30), 15, (1, 1))
    found = grow_to_edge(noisy(truth, 0.05), at((60, 60), (6, 30)), (1, 1), reach_mm=25)
    assert overlap(found, truth) > 0.97
    assert found[0, 20:41].all()
    thick = np.repeat(noisy(truth, 0.05)[None], 3, axis=0)
    assert grow_to_edge(thick, at(thick.shape, (1, 6, 30)), (5, 1, 1), reach_mm=25)[:, 0, 20:41].all()


def test_an_image_smaller_than_the_reach_has_background_round_it() -> None:
    truth = ball((30, 30), (15, 15), 8, (1, 1))
    assert overlap(grow_to_edge(noisy(truth), at((30, 30), (15, 15)), (1, 1), reach_mm=100), truth) > 0.95


def test_the_region_ends_at_the_reach_and_does_not_see_beyond() -> None:
    shape = (60, 60)
    image = noisy(ball(shape, (30, 30), 20, (1, 1)))
    found = grow_to_edge(image, at(shape, (30, 30)), (2, 1), reach_mm=10)
    assert not np.delete(found, range(26, 35), 0).any()
    assert not np.delete(found, range(21, 40), 1).any()
    image[:24], image[:, :19] = 1000, np.nan
    np.testing.assert_array_equal(grow_to_edge(image, at(shape, (30, 30)), (2, 1), reach_mm=10), found)


def test_only_relative_intensities_and_distances_count() -> None:
    shape = (48, 48)
    image = np.rint(100 * noisy(ball(shape, (24, 24), 10, (1, 1)))).astype(np.int16)
    found = grow_to_edge(image, at(shape, (24, 24)), (1, 2), reach_mm=20)
    for other in (image.astype(np.float64), 4 * image, image - 3000):
        np.testing.assert_array_equal(grow_to_edge(other, at(shape, (24, 24)), (1, 2), reach_mm=20), found)
    np.testing.assert_array_equal(grow_to_edge(image, at(shape, (24, 24)), (4, 8), reach_mm=80), found)


def test_voxels_without_a_number_are_as_dark_as_the_darkest() -> None:
    shape = (40, 40)
    truth = ball(shape, (20, 20), 9, (1, 1))
    image = np.where(truth, 5.0, 2.0)
    for value in (np.nan, np.inf, -np.inf):
        image[15:26, 27:35] = np.where(truth, 5.0, value)[15:26, 27:35]
        np.testing.assert_array_equal(grow_to_edge(image, at(shape, (20, 20)), (1, 1)), truth)


def test_a_speck_that_no_percentile_sees_is_found() -> None:
    image = np.zeros((41, 41), np.uint8)
    image[20:22, 20:22] = 9
    np.testing.assert_array_equal(grow_to_edge(image, at((41, 41), (20, 21)), (1, 1)), image == 9)


def test_without_any_edge_it_is_round_in_millimetres() -> None:
    found = grow_to_edge(np.zeros((41, 121)), at((41, 121), (20, 60)), (3, 1), reach_mm=40)
    tall, wide = np.count_nonzero(found.any(axis=1)), np.count_nonzero(found.any(axis=0))
    assert wide == pytest.approx(3 * tall, abs=3)
    assert tall > 1


@pytest.mark.parametrize("shape", [(41, 41), (9, 21, 21)])
def test_without_any_edge_it_stays_near_the_click(shape: tuple[int, ...]) -> None:
    seeds = at(shape, tuple(side // 2 for side in shape))
    found = grow_to_edge(np.full(shape, 7), seeds, (1.0,) * len(shape), reach_mm=8)
    assert found[seeds].all()
    assert np.count_nonzero(found) < 0.1 * found.size


def test_among_nothing_but_hard_edges_it_stays_near_the_click() -> None:
    seeds = at((21, 21), (10, 10))
    found = grow_to_edge(np.indices((21, 21)).sum(0) % 2, seeds, (1, 1), reach_mm=8)
    assert found[seeds].all()
    assert np.count_nonzero(found) < 0.1 * found.size


@settings(deadline=None, max_examples=60)
@given(images, st.data())
def test_any_image_gives_a_region_with_the_seeds(image: np.ndarray, data: st.DataObject) -> None:
    seeds, background = data.draw(hnp.arrays(bool, image.shape)), data.draw(hnp.arrays(bool, image.shape))
    seeds[(0,) * seeds.ndim] |= not seeds.any()
    spacing, reach = (3.0, 1.0, 0.5)[-image.ndim :], data.draw(st.sampled_from([0, 1, 40]))
    before = image.copy(), seeds.copy(), background.copy()
    found = grow_to_edge(image, seeds, spacing, background=background, reach_mm=reach)
    assert (found.shape, found.dtype) == (image.shape, bool)
    assert found[seeds].all()
    assert not found[background & ~seeds].any()
    np.testing.assert_array_equal(found, grow_to_edge(image, seeds, spacing, background=background, reach_mm=reach))
    for array, copy in zip((image, seeds, background), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_the_region_is_a_level_of_the_random_walker(noise: float) -> None:
    shape, beta = (33, 33), 40
    image = noisy(ball(shape, (16, 16), 9, (1, 1)), noise)
    seeds = at(shape, (16, 16), (16, 17), (14, 15))
    found = grow_to_edge(image, seeds, (1, 1), reach_mm=100, beta=beta)
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = (image.clip(low, high) - low) / (high - low)
    marks = np.ones(shape, int)
    marks[1:-1, 1:-1] = 0
    marks[seeds] = 2
    chance = random_walker(scaled, marks, beta=beta * 10 * scaled.std(), mode="bf", return_full_prob=True)[1]
    assert chance[~found].max() <= chance[found].min() + 5e-3
    assert 0 < chance[~found].max() <= 0.5 + 5e-3


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_it_does_not_matter_which_axis_is_which(order: tuple[int, ...]) -> None:
    shape, spacing = (15, 22, 26), (2.0, 1.0, 1.5)
    image = noisy(ball(shape, (15, 11, 20), 8, spacing))
    seeds = at(shape, (7, 11, 13))
    found = grow_to_edge(image, seeds, spacing, reach_mm=10)
    turned = [array.transpose(order) for array in (image, seeds)]
    again = grow_to_edge(*turned, [spacing[axis] for axis in order], reach_mm=10)
    assert overlap(again, found.transpose(order)) > 0.99


def test_a_slice_is_a_volume_of_one_slice() -> None:
    image = noisy(ball((40, 40), (20, 20), 9, (1, 1)))
    flat = grow_to_edge(image, at((40, 40), (19, 22)), (1, 1), reach_mm=16)
    deep = grow_to_edge(image[None], at((1, 40, 40), (0, 19, 22)), (7, 1, 1), reach_mm=16)
    np.testing.assert_array_equal(deep[0], flat)


def test_what_does_not_fit_is_an_error() -> None:
    image, seeds = np.zeros((4, 5)), at((4, 5), (1, 1))
    for wrong in (seeds.T, seeds.astype(int)):
        with pytest.raises(ValueError, match="masks must be bool"):
            grow_to_edge(image, wrong, (1, 1))
        with pytest.raises(ValueError, match="masks must be bool"):
            grow_to_edge(image, seeds, (1, 1), background=wrong)
    with pytest.raises(ValueError, match="seeds holds no voxel"):
        grow_to_edge(image, ~seeds & seeds, (1, 1))
    with pytest.raises(ValueError, match="spacing must be 2"):
        grow_to_edge(image, seeds, (1, 1, 1))
    for wrong_number in ({"reach_mm": -1}, {"reach_mm": np.nan}, {"beta": -1}):
        with pytest.raises(ValueError, match="must not be negative"):
            grow_to_edge(image, seeds, (1, 1), **wrong_number)
