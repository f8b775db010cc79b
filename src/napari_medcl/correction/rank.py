"""Where to look next: the slices of a mask that are most doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import maximum_filter1d

from napari_medcl.data.volume import IGNORE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

_NEAR = 3
"""So many voxels round a label uncertainty counts."""
_UNCERTAIN = 0.1
"""Above this it counts everywhere."""


def slice_scores(labels: NDArray[Any], axis: int, uncertainty: NDArray[Any] | None = None) -> Scores:
    """How doubtful every slice is, from 0 to 1.

    It is how much a slice disagrees with its neighbours, see `_disagreement`; with an uncertainty the mean of that
    and the slice's mean uncertainty near labels and where it is high, divided by that of the worst slice.

    Args:
        labels: (Z, Y, X) integers; what nobody annotated counts as background.
        axis: Across which the slices lie.
        uncertainty: (Z, Y, X) from 0 to 1.

    Returns:
        (n,), a score for every slice along the axis.
    """
    slices = _across(np.where(labels == IGNORE, 0, labels), axis)
    scores = _disagreement(slices)
    if uncertainty is None:
        return scores
    return (scores + _doubt(slices != 0, _across(uncertainty, axis))) / 2


def ranked(scores: Sequence[float] | Scores, reviewed: Collection[int]) -> list[int]:
    """The slices that nobody has reviewed, the most doubtful first; equal ones, as those with 0, in their order."""
    return sorted(set(range(len(scores))) - set(reviewed), key=lambda index: (-scores[index], index))


def next_slice(scores: Sequence[float] | Scores, reviewed: Collection[int], here: int) -> int | None:
    """The most doubtful slice that nobody has reviewed, other than the one that is shown; None if there is none."""
    return next((index for index in ranked(scores, reviewed) if index != here), None)


def _across(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """Slices along the first axis, in one piece: across x the rest is twice as fast then."""
    return np.ascontiguousarray(np.moveaxis(array, axis, 0))


def _doubt(filled: NDArray[np.bool_], uncertainty: NDArray[Any]) -> Scores:
    """Mean uncertainty of (N, ...) slices where it counts, the largest being 1."""
    counts = uncertainty > _UNCERTAIN
    near = filled.view(np.uint8)
    for axis in range(near.ndim):
        near = maximum_filter1d(near, 2 * _NEAR + 1, axis)
    counts |= near.view(bool)
    plane = tuple(range(1, counts.ndim))
    means: Scores = np.where(counts, uncertainty, 0).sum(plane, dtype=np.float64)
    means /= np.maximum(np.count_nonzero(counts, plane), 1)
    return means / (means.max() or 1)


def _disagreement(slices: NDArray[Any]) -> Scores:
    """How little (N, ...) slices agree with what their neighbours predict.

    A voxel is predicted where both neighbours agree; the first and the last slice have one neighbour. A slice that
    is empty between two that are not, or the other way round, has 1.
    """
    if len(slices) == 1:
        return np.zeros(1)
    around = np.pad(np.arange(len(slices)), 1, "reflect")
    before, after = around[:-2], around[2:]
    predicted = slices[before]
    scores = _apart(slices, predicted, predicted == slices[after])
    filled = np.array([plane.any() for plane in slices])
    scores[(filled[before] == filled[after]) & (filled != filled[before])] = 1
    return scores


def _apart(slices: NDArray[Any], predicted: NDArray[Any], known: NDArray[np.bool_]) -> Scores:
    """1 - Dice of (N, ...) slices where the prediction is known, the mean over the labels that either has there."""
    counts = known & ((slices != 0) | (predicted != 0))
    where, mine, theirs = np.nonzero(counts)[0], slices[counts], predicted[counts]
    labels = np.unique(np.concatenate([mine, theirs, [0]]))
    places = [where * len(labels) + np.searchsorted(labels, side) for side in (mine, theirs)]
    common, *sizes = (
        np.bincount(place, minlength=len(slices) * len(labels)).reshape(len(slices), -1)[:, 1:]
        for place in (places[0][mine == theirs], *places)
    )
    both = sizes[0] + sizes[1]
    apart: Scores = ((both - 2 * common) / np.maximum(both, 1)).sum(1)
    apart /= np.maximum(np.count_nonzero(both, 1), 1)
    return apart
