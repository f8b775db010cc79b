"""How well a mask agrees with the truth: overlap, surface distances in mm, volumes in ml."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from napari_medcl.data.volume import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Distances = tuple[NDArray[np.float64], NDArray[np.float64]]

Status = Literal["ok", "empty prediction", "false positive", "absent in both", "no prediction"]


@dataclass(frozen=True)
class Scores:
    """The agreement of one class in one case; NaN where a number is not defined.

    `status` says which of the two masks are there. "empty prediction": the class is in the truth and not
    in the prediction; Dice and Jaccard are 0, there is no distance. "false positive": the other way
    round. "absent in both": nothing to compare. "no prediction": the case was not predicted at all.
    """

    status: Status
    dice: float = math.nan
    jaccard: float = math.nan
    hd95_mm: float = math.nan
    asd_mm: float = math.nan
    truth_ml: float = math.nan
    prediction_ml: float = math.nan


def dice(prediction: Mask, truth: Mask) -> float:
    """Twice the common part over the sum of both sizes, 2|A∩B| / (|A| + |B|); NaN if both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(prediction & truth) / total if total else math.nan


def jaccard(prediction: Mask, truth: Mask) -> float:
    """The common part over all that either covers, |A∩B| / |A∪B|; NaN if both are empty."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else math.nan


def surface(mask: Mask, where: Mask | None = None) -> Mask:
    """The voxels of a mask with a face towards the outside of it; what lies beyond the array is outside.

    Axes with one voxel are left out: a single slice has an outline, not two faces. A face towards a
    voxel that was not annotated (`where` is False there) does not count, for nobody knows if it is one.
    """
    solid = mask if where is None else mask | ~where
    inner: Mask = binary_erosion(np.atleast_1d(solid.squeeze())).reshape(mask.shape)
    return mask & ~inner


def surface_distances(prediction: Mask, truth: Mask, spacing: Sequence[float], where: Mask | None = None) -> Distances:
    """From every surface voxel of one mask to the nearest of the other: centre to centre, exact.

    Args:
        prediction: (Z, Y, X).
        truth: (Z, Y, X).
        spacing: size of a voxel in mm, as (z, y, x).
        where: (Z, Y, X), False where nothing was annotated; those voxels are left out of both masks.

    Returns:
        The distances in mm from the prediction's surface and from the truth's; both empty if either
        has no surface.
    """
    if where is not None:
        prediction, truth = prediction & where, truth & where
    if not (prediction.any() and truth.any()):
        return np.empty(0), np.empty(0)
    box = _bounding_box(prediction | truth, margin=1)
    crop = None if where is None else where[box]
    points = [np.argwhere(surface(mask[box], crop)) * np.asarray(spacing) for mask in (prediction, truth)]
    if not all(map(len, points)):  # every neighbour of one of the two is unannotated
        return np.empty(0), np.empty(0)
    a, b = points
    # Large leaves: where one mask lies in the middle of the other, all points are nearly as near.
    tree_a, tree_b = (KDTree(p, leafsize=64, balanced_tree=False) for p in points)
    return tree_b.query(a)[0], tree_a.query(b)[0]


def hd95(distances: Distances) -> float:
    """The larger of the two directed 95th percentiles, in mm; NaN without distances.

    MONAI's definition (percentiles interpolated linearly). Programs that take one percentile over both
    directions together report smaller numbers.
    """
    if not len(distances[0]):
        return math.nan
    return float(max(np.percentile(d, 95) for d in distances))


def asd(distances: Distances) -> float:
    """The mean over the distances of both directions together, in mm (symmetric); NaN without distances."""
    both = np.concatenate(distances)
    return float(both.mean()) if len(both) else math.nan


def score(
    prediction: NDArray[Any], truth: NDArray[Any], spacing: Sequence[float], values: Iterable[int]
) -> dict[int, Scores]:
    """Compares two label arrays class by class; voxels that the truth marks as `IGNORE` are left out.

    Args:
        prediction: (Z, Y, X) integers.
        truth: (Z, Y, X) integers.
        spacing: size of a voxel in mm, as (z, y, x).
        values: the label values to compare.
    """
    known = truth != IGNORE
    where = None if known.all() else known
    return {value: _score(prediction == value, truth == value, spacing, where) for value in values}


def _score(prediction: Mask, truth: Mask, spacing: Sequence[float], where: Mask | None) -> Scores:
    if where is not None:
        prediction = prediction & where
    distances = surface_distances(prediction, truth, spacing, where)
    voxel_ml = math.prod(spacing) / 1000
    return Scores(
        status=_status(bool(prediction.any()), bool(truth.any())),
        dice=dice(prediction, truth),
        jaccard=jaccard(prediction, truth),
        hd95_mm=hd95(distances),
        asd_mm=asd(distances),
        truth_ml=np.count_nonzero(truth) * voxel_ml,
        prediction_ml=np.count_nonzero(prediction) * voxel_ml,
    )


def _status(predicted: bool, true: bool) -> Status:
    if predicted:
        return "ok" if true else "false positive"
    return "empty prediction" if true else "absent in both"


def _bounding_box(mask: Mask, margin: int) -> tuple[slice, ...]:
    """The smallest box round a mask that is not empty, widened by `margin` voxels within the array."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(inside[0] - margin, 0), inside[-1] + 1 + margin))
    return tuple(box)
