"""Where to look next, against a slow literal transcription."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medcl.correction.rank import next_slice, ranked, slice_scores
from napari_medcl.data.volume import IGNORE

shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)
masks = shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, IGNORE])))
sparse = hnp.arrays(
    np.uint16, st.tuples(*[st.integers(1, 12)] * 3), elements=st.sampled_from([1, 300]), fill=st.just(0)
)
both = (masks | sparse).flatmap(
    lambda mask: st.tuples(
        st.just(mask), hnp.arrays(np.float32, mask.shape, elements=st.floats(0, 1, width=32) | st.just(0))
    )
)


def literal_disagreement(slices: list[Any]) -> list[float]:
    """Voxel by voxel."""
    scores = []
    for index, here in enumerate(slices):
        around = [slices[other] for other in (index - 1, index + 1) if 0 <= other < len(slices)]
        filled = [bool(other.any()) for other in around]
        if around and len(set(filled)) == 1 and filled[0] != bool(here.any()):
            scores.append(1.0)
            continue
        apart = []
        for label in set().union(*(np.unique(other).tolist() for other in [here, *around])) - {0}:
            common = mine = theirs = 0
            for place in np.ndindex(here.shape):
                said = {int(other[place]) for other in around}
                if len(said) == 1:
                    mine += here[place] == label
                    theirs += said == {label}
                    common += here[place] == label and said == {label}
            if mine + theirs:
                apart.append(1 - 2 * common / (mine + theirs))
        scores.append(float(np.mean(apart)) if apart else 0.0)
    return scores


def literal_doubt(labels: Any, uncertainty: Any, axis: int) -> list[float]:
    """Voxel by voxel."""
    near = np.zeros(labels.shape, bool)
    for place in np.argwhere(labels):
        near[tuple(slice(max(at - 3, 0), at + 4) for at in place)] = True
    means = []
    for index in range(labels.shape[axis]):
        close, doubt = near.take(index, axis), uncertainty.take(index, axis)
        counted = [float(doubt[at]) for at in np.ndindex(close.shape) if close[at] or doubt[at] > 0.1]
        means.append(sum(counted) / len(counted) if counted else 0.0)
    return [mean / max(means) for mean in means] if any(means) else means


@settings(max_examples=150, deadline=None)
@given(both, st.integers(0, 2))
def test_scores_are_those_of_the_literal_transcription(pair: Any, axis: int) -> None:
    labels, uncertainty = pair
    known = np.where(labels == IGNORE, 0, labels)
    disagreement = literal_disagreement([known.take(index, axis) for index in range(known.shape[axis])])
    alone = slice_scores(labels, axis)
    assert alone == pytest.approx(disagreement)
    together = slice_scores(labels, axis, uncertainty)
    doubt = literal_doubt(known, uncertainty, axis)
    assert together == pytest.approx(np.add(disagreement, doubt) / 2, rel=1e-5, abs=1e-7)
    for scores in (alone, together):
        assert scores.shape == (labels.shape[axis],)
        assert scores.min() >= 0
        assert scores.max() <= 1 + 1e-12


def stack(*rows: list[int]) -> Any:
    """A slice for every row."""
    return np.array(rows, np.uint8)[:, None]


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (stack([1, 1], [1, 1], [1, 1]), [0, 0, 0]),
        (stack([0, 0], [0, 0], [0, 0]), [0, 0, 0]),
        (stack([1, 1], [0, 0], [1, 1]), [1, 1, 1]),
        (stack([0, 0], [1, 0], [0, 0]), [1, 1, 1]),
        (stack([1, 0], [0, 0], [0, 1]), [1, 1, 1]),
        (stack([1, 1], [0, 0], [0, 0]), [1, 0, 0]),
        (stack([1, 1, 1], [1, 0, 0], [1, 1, 1]), [1 / 2, 1 / 2, 1 / 2]),
        (stack([1, 2], [1, 1], [1, 2]), [(1 / 3 + 1) / 2] * 3),
        (stack([1, 1]), [0]),
        (stack([IGNORE, IGNORE], [1, 1], [1, 1]), [1, 0, 0]),
    ],
)
def test_disagreement_of_neighbours(labels: Any, scores: list[float]) -> None:
    assert slice_scores(labels, 0) == pytest.approx(scores)
    for axis in (1, 2):
        turned = np.moveaxis(labels, 0, axis)
        assert slice_scores(turned, axis) == pytest.approx(scores)


def test_uncertainty_far_from_labels_counts_where_it_is_high() -> None:
    labels, uncertainty = np.zeros((6, 1, 20), np.uint8), np.full((6, 1, 20), 0.05, np.float32)
    assert slice_scores(labels, 0, uncertainty).tolist() == [0] * 6
    labels[0, 0, 0] = 1
    scores = 2 * slice_scores(labels, 0, uncertainty) - slice_scores(labels, 0)
    assert scores == pytest.approx([1, 1, 1, 1, 0, 0])
    uncertainty[5, 0, 10] = 0.5
    scores = 2 * slice_scores(labels, 0, uncertainty) - slice_scores(labels, 0)
    assert scores == pytest.approx([0.1, 0.1, 0.1, 0.1, 0, 1])


def test_a_bad_slice_in_a_smooth_organ_comes_first() -> None:
    z, y, x = np.ogrid[:30, :40, :40]
    labels = ((z - 15) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 12**2).astype(np.uint8)
    labels[17] = np.roll(labels[17], 6, 0)
    assert ranked(slice_scores(labels, 0), [])[0] == 17


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.sets(st.integers(0, 12)), st.integers(-1, 12))
def test_ranks(scores: list[float], reviewed: set[int], here: int) -> None:
    order = ranked(np.array(scores), reviewed)
    assert sorted(order) == [index for index in range(len(scores)) if index not in reviewed]
    for one, other in pairwise(order):
        assert scores[one] > scores[other] or (scores[one] == scores[other] and one < other)
    following = next_slice(scores, reviewed, here)
    assert following == next(iter([index for index in order if index != here]), None)
    assert ranked(scores, list(reviewed)) == order
