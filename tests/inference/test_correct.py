from __future__ import annotations

from collections import deque
from itertools import permutations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial.distance import cdist

from napari_medcl.data.volume import IGNORE
from napari_medcl.inference.correct import (
    changed,
    erase,
    fill_holes,
    grow,
    keep_largest,
    merge,
    paint,
    remove_islands,
    smooth,
    swap,
    window,
)
from napari_medcl.inference.interpolate import interpolate

ONE_MM = (1.0, 1.0, 1.0)
SPACING = (3.0, 0.5, 1.25)
LABELS = (1, 2, 3)
EDITS = {
    "fill_holes": lambda labels, spacing, label: fill_holes(labels, label),
    "keep_largest": lambda labels, spacing, label: keep_largest(labels, label),
    "remove_islands": lambda labels, spacing, label: remove_islands(labels, 0.3, 0.1, label),
    "smooth": lambda labels, spacing, label: smooth(labels, 0.8, spacing, label),
    "grow": lambda labels, spacing, label: grow(labels, 1.2, spacing, label),
    "shrink": lambda labels, spacing, label: grow(labels, -1.2, spacing, label),
}
IN_VOLUMES = {**EDITS, "interpolate": lambda labels, spacing, label: interpolate(labels, 0, spacing, label)}


def masks(dims: tuple[int, ...] = (2, 3), values: tuple[int, ...] = (0, 0, 0, 1, 1, 2, 3, IGNORE), side: int = 5):
    """Masks with one of these numbers of axes, every voxel drawn for itself."""
    shapes = st.sampled_from(dims).flatmap(lambda n: hnp.array_shapes(min_dims=n, max_dims=n, max_side=side))
    drawn = st.tuples(shapes, st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.int16, np.int32]))
    return drawn.map(lambda d: np.random.default_rng(d[1]).choice(values, d[0]).astype(d[2]))


volumes = masks(dims=(3,))
spacings = st.tuples(*[st.floats(0.3, 3)] * 3)
some_label = st.sampled_from([None, *LABELS])


def drawing(*rows: str) -> np.ndarray:
    """A slice as one sees it: a dot is background, a question mark is not annotated."""
    return np.array([[int({".": 0, "?": IGNORE}.get(c, c)) for c in row] for row in rows], np.uint8)


def disc(radius: float, y: float = 15, x: float = 15, side: int = 31) -> np.ndarray:
    rows, columns = np.indices((side, side))
    return np.hypot(rows - y, columns - x) <= radius


def parts_by_queue(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Literal: flood fill across faces from every voxel in array order."""
    parts: list[set[tuple[int, ...]]] = []
    for start in map(tuple, np.argwhere(mask).tolist()):
        if any(start in part for part in parts):
            continue
        part, queue = {start}, deque([start])
        while queue:
            voxel = queue.popleft()
            for axis in range(mask.ndim):
                for step in (-1, 1):
                    other = (*voxel[:axis], voxel[axis] + step, *voxel[axis + 1 :])
                    inside = all(0 <= i < n for i, n in zip(other, mask.shape, strict=True))
                    if inside and mask[other] and other not in part:
                        part.add(other)
                        queue.append(other)
        parts.append(part)
    return parts


def depth_by_pairs(inside: np.ndarray, wide: int, spacing: tuple[float, ...]) -> np.ndarray:
    """Literal: from every pixel to the nearest on the other side, positive inside; so many pixels are added around."""
    inside = np.pad(inside, wide)
    points = np.indices(inside.shape).reshape(inside.ndim, -1).T * np.asarray(spacing)
    table, flat = cdist(points, points), inside.ravel()
    return np.where(flat, table[:, ~flat].min(axis=1), -table[:, flat].min(axis=1)).reshape(inside.shape)


def blurred_by_sum(mask: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Literal: the sum over a truncated Gaussian, the border repeated outwards."""
    reach = (4 * sigma + 0.5).astype(int)
    kernel = np.ones(())
    for r, s in zip(reach, sigma, strict=True):
        weights = np.exp(-0.5 * (np.arange(-r, r + 1) / s) ** 2)
        kernel = np.multiply.outer(kernel, weights / weights.sum())
    padded = np.pad(mask.astype(float), [(r, r) for r in reach], mode="edge")
    return np.tensordot(sliding_window_view(padded, kernel.shape), kernel, mask.ndim)


# What holds for all edits


@pytest.mark.parametrize("name", IN_VOLUMES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_edits_change_only_background_and_the_chosen_label(name: str, data: st.DataObject) -> None:
    labels, label = data.draw(masks() if name in EDITS else volumes), data.draw(some_label)
    before = labels.copy()
    labels.flags.writeable = False
    result = IN_VOLUMES[name](labels, data.draw(spacings)[: labels.ndim], label)
    assert (result.shape, result.dtype) == (labels.shape, labels.dtype)
    assert not np.shares_memory(result, labels)
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(result == IGNORE, labels == IGNORE)
    moved = result != labels
    if label is not None:
        assert set(labels[moved].tolist()) <= {0, label}
        assert set(result[moved].tolist()) <= {0, label}
    elif name != "smooth":  # which moves the border between two labels
        assert ((labels == 0) | (result == 0))[moved].all()


@pytest.mark.parametrize("name", IN_VOLUMES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_label_that_is_not_there_changes_nothing(name: str, data: st.DataObject) -> None:
    labels = data.draw(volumes)
    np.testing.assert_array_equal(IN_VOLUMES[name](labels, SPACING, 7), labels)


@pytest.mark.parametrize("name", ["fill_holes", "keep_largest", "remove_islands"])
@settings(deadline=None, max_examples=40)
@given(labels=masks(side=7), label=some_label)
def test_a_second_time_changes_nothing_more(name: str, labels: np.ndarray, label: int | None) -> None:
    once = EDITS[name](labels, ONE_MM, label)
    np.testing.assert_array_equal(EDITS[name](once, ONE_MM, label), once)


@pytest.mark.parametrize("name", EDITS)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_slice_is_a_volume_of_one_slice(name: str, data: st.DataObject) -> None:
    labels, spacing, label = data.draw(masks(dims=(2,))), data.draw(spacings), data.draw(some_label)
    flat = EDITS[name](labels, spacing[1:], label)
    np.testing.assert_array_equal(EDITS[name](labels[None], spacing, label)[0], flat)


@pytest.mark.parametrize("name", IN_VOLUMES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_it_does_not_matter_which_axis_is_which(name: str, data: st.DataObject) -> None:
    labels, spacing = data.draw(volumes), data.draw(spacings)
    label = data.draw(st.sampled_from(LABELS))
    order = data.draw(st.sampled_from(list(permutations(range(3)))))
    if name == "keep_largest":
        sizes = sorted(map(len, parts_by_queue(labels == label)))
        assume(len(sizes) < 2 or sizes[-1] > sizes[-2])
    turned_spacing, turned = [spacing[axis] for axis in order], labels.transpose(order)
    if name == "interpolate":
        result = interpolate(turned, order.index(0), turned_spacing, label)
    else:
        result = EDITS[name](turned, turned_spacing, label)
    np.testing.assert_array_equal(result, IN_VOLUMES[name](labels, spacing, label).transpose(order))


@pytest.mark.parametrize("name", ["keep_largest", "remove_islands", "smooth", "grow", "shrink", "interpolate"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_it_does_not_matter_which_label_has_which_number(name: str, data: st.DataObject) -> None:
    labels, spacing = data.draw(volumes), data.draw(spacings)
    number = np.arange(256)
    number[list(LABELS)] = data.draw(st.permutations(LABELS))
    if name == "smooth":
        assume(clear_winners(labels, 0.8 / np.asarray(spacing)))
    if name == "interpolate":  # each label alone: where two claim a voxel, they may lie equally deep
        alone = np.stack([interpolate(labels, 0, spacing, label) == label for label in LABELS])
        assume((np.count_nonzero(alone, axis=0) <= 1).all())
    renamed = number[labels].astype(labels.dtype)
    np.testing.assert_array_equal(
        IN_VOLUMES[name](renamed, spacing, None), number[IN_VOLUMES[name](labels, spacing, None)]
    )


def clear_winners(labels: np.ndarray, sigma: np.ndarray) -> bool:
    claims = np.sort([blurred_by_sum(labels == value, sigma) for value in (0, *LABELS)], axis=0)
    return bool((claims[-1] - claims[-2] > 1e-5).all())


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_no_edit_takes_background_or_what_is_not_annotated_for_a_label(edit) -> None:
    for label in (0, IGNORE):
        with pytest.raises(ValueError, match="is no label"):
            edit(np.zeros((3, 3), np.uint8), (1, 1), label)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1,), (1, 0), (1, -1), (1, np.nan), (1, np.inf)])
def test_a_spacing_that_does_not_fit_is_an_error(spacing: tuple[float, ...]) -> None:
    for edit in (smooth, grow):
        with pytest.raises(ValueError, match="spacing must be 2 positive numbers"):
            edit(np.ones((3, 3), np.uint8), 1, spacing)


# Brushes and what they may touch


def test_paint_stays_in_the_window_and_goes_over_other_labels() -> None:
    labels = drawing("11..", "11?.", "....")
    where = drawing(".111", ".111", "....") == 1
    np.testing.assert_array_equal(paint(labels, where, 2), drawing("1222", "1222", "...."))
    within = drawing("....", "1111", "1111") == 1
    np.testing.assert_array_equal(paint(labels, where, 2, within), drawing("11..", "1222", "...."))
    np.testing.assert_array_equal(paint(labels, where, 0), drawing("1...", "1...", "...."))
    np.testing.assert_array_equal(paint(labels, where, IGNORE, within), drawing("11..", "1???", "...."))
    np.testing.assert_array_equal(labels, drawing("11..", "11?.", "...."))


def test_erase_takes_one_label_or_all_but_leaves_what_is_not_annotated() -> None:
    labels = drawing("1122", "1?22")
    where = drawing(".11.", ".11.") == 1
    np.testing.assert_array_equal(erase(labels, where, 1), drawing("1.22", "1?22"))
    np.testing.assert_array_equal(erase(labels, where, None), drawing("1..2", "1?.2"))
    np.testing.assert_array_equal(labels, drawing("1122", "1?22"))


def test_brushes_of_another_shape_or_type_are_an_error() -> None:
    labels, where = np.zeros((3, 4), np.uint8), np.ones((3, 4), bool)
    for wrong in (where.T, where[:1], where.astype(int)):
        with pytest.raises(ValueError, match="where must be bool"):
            paint(labels, wrong, 1)
        with pytest.raises(ValueError, match="where must be bool"):
            paint(labels, where, 1, wrong)
        with pytest.raises(ValueError, match="where must be bool"):
            erase(labels, wrong, 1)
    with pytest.raises(ValueError, match="is no label"):
        erase(labels, where, 0)


@pytest.mark.parametrize(("dtype", "label"), [(np.uint8, 256), (np.uint8, -1), (np.int8, IGNORE), (bool, 2)])
def test_a_label_that_the_mask_cannot_hold_is_an_error(dtype: type, label: int) -> None:
    labels = np.zeros((2, 2), dtype)
    with pytest.raises(ValueError, match=f"cannot hold the label {label}"):
        paint(labels, np.ones((2, 2), bool), label)
    if label != IGNORE:
        with pytest.raises(ValueError, match=f"cannot hold the label {label}"):
            swap(labels, 1, label)
        with pytest.raises(ValueError, match=f"cannot hold the label {label}"):
            merge(labels, [1], label)


def test_a_window_includes_its_limits() -> None:
    image = np.array([[-1000, 0, 40], [80, 81, 3000]], np.int16)
    assert window(image, 0, 80).tolist() == [[False, True, True], [True, False, False]]
    assert window(image, 81, None).tolist() == [[False, False, False], [False, True, True]]
    assert window(image, None, -999.5).tolist() == [[True, False, False], [False, False, False]]
    assert window(image, None, None).all()
    assert not window(np.array([np.nan]), 0, None).any()
    assert window(image.astype(np.uint8), -5, 300).all(), "limits beyond the image's type"
    with pytest.raises(ValueError, match="low must not be above high"):
        window(image, 2, 1)


# Parts and holes


def test_holes_are_filled_but_not_bays_or_other_labels() -> None:
    labels = drawing(
        "11111.",
        "1..21.",
        "1.?.1.",
        "11111.",
        "1..1..",
        "1..1..",
    )
    expected = drawing(
        "11111.",
        "11121.",
        "11?11.",
        "11111.",
        "1..1..",
        "1..1..",
    )
    np.testing.assert_array_equal(fill_holes(labels, 1), expected)
    np.testing.assert_array_equal(fill_holes(labels), expected)


@settings(deadline=None, max_examples=60)
@given(masks(values=(0, 1, 1, 1, 1, 2, IGNORE), side=7))
def test_a_hole_is_what_the_border_cannot_be_reached_from(labels: np.ndarray) -> None:
    flat = np.atleast_1d(labels.squeeze())  # across a single slice everything would lie at the border
    expected = flat.copy()
    for part in parts_by_queue(flat != 1):
        if all(0 < i < n - 1 for voxel in part for i, n in zip(voxel, flat.shape, strict=True)):
            where = tuple(np.transpose(list(part)))
            expected[where] = np.where(flat[where] == 0, 1, flat[where])
    expected = expected.reshape(labels.shape)
    np.testing.assert_array_equal(fill_holes(labels, 1), expected)


def test_the_largest_part_stays_and_of_equal_ones_the_first() -> None:
    labels = drawing("1.22.", "1..2.", ".1..2", "11.22")
    np.testing.assert_array_equal(keep_largest(labels), drawing("..22.", "...2.", ".1...", "11..."))
    np.testing.assert_array_equal(keep_largest(labels, 1), drawing("..22.", "...2.", ".1..2", "11.22"))


def test_islands_below_a_size_go_and_those_of_that_size_stay() -> None:
    labels = drawing("1.22.", "1..2.", ".1..2", "11.22")
    np.testing.assert_array_equal(remove_islands(labels, 0.3, 0.1), drawing("..22.", "...2.", ".1..2", "11.22"))
    np.testing.assert_array_equal(remove_islands(labels, 0.31, 0.1), np.zeros_like(labels))
    np.testing.assert_array_equal(remove_islands(labels, 0, 0.1), labels)
    assert 3 * 0.35 < 1.05, "the next is about rounding"
    np.testing.assert_array_equal(remove_islands(drawing("111..1"), 1.05, 0.35), drawing("111..."))


@settings(deadline=None, max_examples=60)
@given(masks(), st.integers(0, 6))
def test_parts_are_those_of_a_flood_fill(labels: np.ndarray, voxels: int) -> None:
    largest, large = labels.copy(), labels.copy()
    for label in LABELS:
        parts = parts_by_queue(labels == label)
        for part in parts:
            if part is not max(parts, key=len):
                largest[tuple(np.transpose(list(part)))] = 0
            if len(part) < voxels:
                large[tuple(np.transpose(list(part)))] = 0
    np.testing.assert_array_equal(keep_largest(labels), largest)
    np.testing.assert_array_equal(remove_islands(labels, 0.07 * voxels, 0.07), large)


@pytest.mark.parametrize(("below", "voxel"), [(-1, 1), (np.nan, 1), (1, 0), (1, -1), (1, np.nan)])
def test_islands_have_a_size(below: float, voxel: float) -> None:
    with pytest.raises(ValueError, match="_ml must"):
        remove_islands(np.ones((2, 2), np.uint8), below, voxel)


# Outlines


def test_smoothing_rounds_off_corners_and_takes_away_specks() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15], labels[1, 1], labels[10, 10] = 1, 1, 0
    result = smooth(labels, 1.5, (1, 1), 1)
    assert result[10, 10] == 1, "a pit is filled"
    assert not result[[1, 5, 5, 14, 14], [1, 5, 14, 5, 14]].any()
    assert (result[5:15, 10] == 1).all()
    assert (result[10, 5:15] == 1).all()
    assert (smooth(labels, 0, (1, 1)) == labels).all()


def test_smoothing_all_opens_no_gap_where_one_alone_does() -> None:
    labels = np.full((16, 16), 2, np.uint8)
    labels[4:12, 4:12] = 1
    labels[0] = 0
    together, alone = smooth(labels, 2, (1, 1)), smooth(labels, 2, (1, 1), 1)
    assert not np.count_nonzero(together[1:] == 0)
    assert together[4, 4] == 2
    assert alone[4, 4] == 0


@settings(deadline=None, max_examples=40)
@given(masks(), st.floats(0.3, 1.2), spacings, some_label)
def test_smoothing_is_what_the_definition_says(
    labels: np.ndarray, mm: float, spacing: tuple[float, ...], label: int | None
) -> None:
    sigma = mm / np.asarray(spacing[: labels.ndim])
    rivals = [blurred_by_sum(labels == 0, sigma)] if label is None else [np.full(labels.shape, 0.5)]
    values = LABELS if label is None else (label,)
    claims = np.stack([*rivals, *(blurred_by_sum(labels == value, sigma) for value in values)])
    ordered = np.sort(claims, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-5
    expected = np.array([0, *values])[claims.argmax(axis=0)]
    expected = np.where(np.isin(labels, [0, *values]), expected, labels)
    result = smooth(labels, mm, spacing[: labels.ndim], label)
    np.testing.assert_array_equal(result[clear], expected[clear])


@pytest.mark.parametrize("mm", [-1, np.nan, np.inf])
def test_smoothing_has_a_width(mm: float) -> None:
    with pytest.raises(ValueError, match="mm must"):
        smooth(np.ones((2, 2), np.uint8), mm, (1, 1))


def test_growth_stops_at_other_labels_and_counts_in_millimetres() -> None:
    labels = drawing(".......", "...1.2.", ".......", "?......")
    np.testing.assert_array_equal(grow(labels, 2, (2, 1), 1), drawing("...1...", ".11112.", "...1...", "?......"))
    np.testing.assert_array_equal(grow(drawing("..1..2."), 2, (1, 1)), drawing("1111222"))
    thin = drawing(".111...", ".111...", ".111...")
    np.testing.assert_array_equal(grow(thin, -1, (1, 1)), drawing("..1....", "..1....", "..1...."))


def test_three_steps_of_a_tenth_are_not_farther_than_three_tenths() -> None:
    labels = drawing("1.....")
    np.testing.assert_array_equal(grow(labels, 0.3, (0.1, 0.1)), drawing("1111.."))
    np.testing.assert_array_equal(grow(drawing("11111."), -0.3, (0.1, 0.1)), drawing("11...."))


@settings(deadline=None, max_examples=60)
@given(masks(), st.floats(0, 4), spacings)
def test_growth_is_that_of_all_pairs(labels: np.ndarray, mm: float, spacing: tuple[float, ...]) -> None:
    points = np.indices(labels.shape).reshape(labels.ndim, -1).T * np.asarray(spacing[: labels.ndim])
    table, flat = cdist(points, points), labels.ravel()
    assume((abs(table - mm) > 1e-3 * mm).all() or mm == 0)
    grown = grow(labels, mm, spacing[: labels.ndim]).ravel()
    shrunk = grow(labels, -mm, spacing[: labels.ndim]).ravel()
    sources = (flat != 0) & (flat != IGNORE)
    for voxel, value in enumerate(flat):
        if value == 0 and sources.any() and table[voxel, sources].min() <= mm:
            near = table[voxel] <= table[voxel, sources].min() + 1e-9
            assert grown[voxel] in flat[near & sources]
        else:
            assert grown[voxel] == value
        if value not in (0, IGNORE) and mm:
            other = flat != value
            gone = other.any() and table[voxel, other].min() <= mm
            assert shrunk[voxel] == (0 if gone else value)


@settings(deadline=None, max_examples=40)
@given(masks(), st.floats(0, 3), spacings, some_label)
def test_growing_adds_and_shrinking_takes_away(
    labels: np.ndarray, mm: float, spacing: tuple[float, ...], label: int | None
) -> None:
    grown, shrunk = (grow(labels, by, spacing[: labels.ndim], label) for by in (mm, -mm))
    for value in LABELS:
        assert not np.any((labels == value) & (grown != value))
        assert not np.any((shrunk == value) & (labels != value))


@pytest.mark.parametrize("mm", [np.nan, np.inf, -np.inf])
def test_growth_has_a_distance(mm: float) -> None:
    with pytest.raises(ValueError, match="mm must"):
        grow(np.ones((2, 2), np.uint8), mm, (1, 1))


def test_a_label_that_fills_the_mask_does_not_shrink() -> None:
    labels = np.full((4, 4), 2, np.uint8)
    np.testing.assert_array_equal(grow(labels, -3, (1, 1)), labels)


# Names and sizes


def test_labels_are_swapped_and_merged() -> None:
    labels = drawing("112", "3.?")
    np.testing.assert_array_equal(swap(labels, 1, 2), drawing("221", "3.?"))
    np.testing.assert_array_equal(swap(labels, 3, 5), drawing("112", "5.?"))
    np.testing.assert_array_equal(merge(labels, [1, 3], 2), drawing("222", "2.?"))
    np.testing.assert_array_equal(merge(labels, [1, 2], 9), drawing("999", "3.?"))
    np.testing.assert_array_equal(labels, drawing("112", "3.?"))
    for wrong in (0, IGNORE):
        for edit in (lambda v: swap(labels, v, 1), lambda v: swap(labels, 1, v), lambda v: merge(labels, [1], v)):
            with pytest.raises(ValueError, match="is no label"):
                edit(wrong)
        with pytest.raises(ValueError, match="is no label"):
            merge(labels, [1, wrong], 2)


@settings(deadline=None, max_examples=40)
@given(masks(), st.sampled_from((1, 2, 3, 9)), st.sampled_from((1, 2, 3, 9)))
def test_swapping_twice_changes_nothing_and_merging_leaves_one(labels: np.ndarray, one: int, other: int) -> None:
    once = swap(labels, one, other)
    np.testing.assert_array_equal(once == one, labels == other)
    np.testing.assert_array_equal(swap(once, other, one), labels)
    merged = merge(labels, {one}, other)
    assert merged.dtype == once.dtype == labels.dtype
    np.testing.assert_array_equal(merged == other, (labels == one) | (labels == other))
    rest = ~np.isin(labels, [one, other])
    for result in (once, merged):
        np.testing.assert_array_equal(result[rest], labels[rest])


def test_what_changed_are_indices_and_new_values() -> None:
    indices, values = changed(drawing("11.", "2.."), drawing("1.3", "2.."))
    assert [index.tolist() for index in indices] == [[0, 0], [1, 2]]
    assert values.tolist() == [0, 3]
    with pytest.raises(ValueError, match="differ in shape"):
        changed(drawing("11"), drawing("1"))


@settings(deadline=None, max_examples=40)
@given(masks(), st.integers(0, 2**32 - 1))
def test_a_change_can_be_made_again_and_taken_back(before: np.ndarray, seed: int) -> None:
    after = np.where(np.random.default_rng(seed).random(before.shape) < 0.3, 2, before).astype(before.dtype)
    there, back = changed(before, after), changed(after, before)
    assert len(there[1]) == np.count_nonzero(before != after)
    work = before.copy()
    work[there[0]] = there[1]
    np.testing.assert_array_equal(work, after)
    work[back[0]] = back[1]
    np.testing.assert_array_equal(work, before)
