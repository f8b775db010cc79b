"""Slices that nobody drew, from those that somebody did."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_medcl.inference.correct import checked_spacing, wanted_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Box = tuple[slice, ...]


def interpolate(labels: NDArray[Any], axis: int, spacing: Sequence[float], label: int | None = None) -> NDArray[Any]:
    """Fills in the slices between annotated ones; only background is filled.

    Between two slices that hold a label, the signed distance maps of its shapes are blended. If the shapes overlap
    more with one centroid on the other, they are laid so, and the blend moves along the line between the
    centroids, in whole pixels. A pixel that two labels claim goes to the one that it lies deeper in.

    Args:
        labels: (Z, Y, X).
        axis: Across the slices.
        spacing: Voxel size (z, y, x) in mm.
        label: What to fill in.

    Reference:
        Raya & Udupa, Shape-based interpolation of multidimensional objects, IEEE TMI 9(1), 1990.
    """
    if labels.ndim != 3:
        raise ValueError(f"Slices are interpolated in a volume (Z, Y, X), not in {labels.shape}.")
    result = labels.copy()
    slices, filled = np.moveaxis(labels, axis, 0), np.moveaxis(result, axis, 0)
    in_plane = np.delete(checked_spacing(labels, spacing), axis)
    deepest = np.zeros(slices.shape, dtype=np.float32)
    for value in wanted_labels(labels, label):
        for first, last in pairwise(np.flatnonzero((slices == value).any(axis=(1, 2)))):
            ends = slices[first] == value, slices[last] == value
            for index, box, depth in _between(*ends, in_plane, range(first + 1, last)):
                deeper = (slices[index][box] == 0) & (depth > deepest[index][box])
                filled[index][box][deeper] = value
                deepest[index][box][deeper] = depth[deeper]
    return result


def _between(
    start: Mask, end: Mask, spacing: NDArray[np.float64], indices: range
) -> Iterator[tuple[int, Box, NDArray[np.float32]]]:
    """For every slice between two: its index, a box in it, and how deep in the blend the pixels there lie, in mm."""
    if not indices:
        return
    one, other = np.argwhere(start), np.argwhere(end)
    shift = np.rint(other.mean(axis=0) - one.mean(axis=0)).astype(int)
    if np.count_nonzero(_under(start, other - shift)) <= np.count_nonzero(start & end):
        shift[:] = 0
    low = np.minimum(one.min(axis=0), other.min(axis=0) - shift) - 1
    shape = np.maximum(one.max(axis=0), other.max(axis=0) - shift) + 2 - low
    near, far = _depth(one - low, shape, spacing), _depth(other - shift - low, shape, spacing)
    for step, index in enumerate(indices, start=1):
        part = step / (len(indices) + 1)
        corner = low + np.rint(part * shift).astype(int)
        cut = tuple(slice(max(-at, 0), size - at) for at, size in zip(corner, start.shape, strict=True))
        box = tuple(slice(max(at, 0), at + size) for at, size in zip(corner, shape, strict=True))
        yield index, box, ((1 - part) * near + part * far)[cut]


def _depth(points: NDArray[np.intp], shape: NDArray[np.intp], spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """The signed distance from the outline of a shape, in mm, positive inside."""
    inside = np.zeros(shape, dtype=np.bool_)
    inside[tuple(points.T)] = True
    depth = distance_transform_edt(inside, spacing) - distance_transform_edt(~inside, spacing)
    return np.asarray(depth, dtype=np.float32)


def _under(array: NDArray[Any], points: NDArray[np.intp]) -> NDArray[Any]:
    """What an array (*S) holds at those of the points (N, D) that are in it."""
    inside = ((points >= 0) & (points < array.shape)).all(axis=1)
    return np.asarray(array[tuple(points[inside].T)])
