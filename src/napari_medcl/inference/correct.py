"""Edits of label masks, arrays in and arrays out: how a person puts a mask right.

Every edit leaves its input alone and returns an array of the same shape and dtype. Unless it is told what to
assign, it makes labels of background or background of labels, and never touches another label. `IGNORE` is one
more label to them all, and only `paint` changes it.

An edit takes a slice (Y, X) or a volume (Z, Y, X), and where its `label` may be None, that is every label there.
It raises ValueError where shapes, sizes or spacings (mm per axis) are wrong, or a label is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt, find_objects, gaussian_filter
from scipy.ndimage import label as components

from napari_medcl.data.volume import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Mask = NDArray[np.bool_]
    Box = tuple[slice, ...]

_ROUNDING = 1 + 1e-6
"""Three voxels of 0.1 mm are not farther than 0.3 mm."""


def paint(labels: NDArray[Any], where: Mask, label: int, within: Mask | None = None) -> NDArray[Any]:
    """Assigns a label, whatever was there before.

    Args:
        labels: (*S).
        where: (*S), true under the brush.
        label: What is painted; 0 erases.
        within: (*S), false where nothing may be painted, as `window` gives it.
    """
    _check_holds(labels, label)
    under = _same_grid(labels, where)
    result = labels.copy()
    result[under if within is None else under & _same_grid(labels, within)] = label
    return result


def erase(labels: NDArray[Any], where: Mask, label: int | None) -> NDArray[Any]:
    """Makes background of one label, or of all, where a mask is true."""
    result = labels.copy()
    result[_same_grid(labels, where) & _chosen(labels, label)] = 0
    return result


def window(image: NDArray[Any], low: float | None, high: float | None) -> Mask:
    """Where intensities lie from `low` to `high`, both included; None is no limit."""
    if low is not None and high is not None and low > high:
        raise ValueError(f"low must not be above high: {low} and {high}.")
    inside = np.ones(image.shape, dtype=np.bool_)
    if low is not None:
        inside &= image >= low
    if high is not None:
        inside &= image <= high
    return inside


def fill_holes(labels: NDArray[Any], label: int | None = None) -> NDArray[Any]:
    """Fills the background that a label encloses, across faces; labels in the hole stay.

    Axes with one voxel are left out, so that a single slice has holes too.
    """
    flat = np.atleast_1d(labels.squeeze())
    result = flat.copy()
    for value, box in _boxes(flat, label):
        whole = binary_fill_holes(flat[box] == value)
        result[box][whole & (result[box] == 0)] = value
    return result.reshape(labels.shape)


def keep_largest(labels: NDArray[Any], label: int | None = None) -> NDArray[Any]:
    """Only the largest part of a label stays, joined by faces; the first in array order if some are equal."""
    result = labels.copy()
    for value, box in _boxes(labels, label):
        parts, _ = components(labels[box] == value)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        result[box][(parts > 0) & (parts != sizes.argmax())] = 0
    return result


def remove_islands(labels: NDArray[Any], below_ml: float, voxel_ml: float, label: int | None = None) -> NDArray[Any]:
    """Parts of a label, joined by faces, that are smaller than `below_ml` become background.

    Args:
        labels: (*S).
        below_ml: Parts of this size stay.
        voxel_ml: Size of a voxel, or of a pixel with its slice.
        label: What to look through.
    """
    if not below_ml >= 0:
        raise ValueError(f"below_ml must not be negative, not {below_ml}.")
    _check_voxel(voxel_ml)
    result = labels.copy()
    for value, box in _boxes(labels, label):
        parts, _ = components(labels[box] == value)
        small = np.bincount(parts.ravel()) * voxel_ml < below_ml / _ROUNDING
        small[0] = False
        result[box][small[parts]] = 0
    return result


def smooth(labels: NDArray[Any], mm: float, spacing: Sequence[float], label: int | None = None) -> NDArray[Any]:
    """Rounds off the outline: a Gaussian of the mask, cut at one half.

    All labels are smoothed together: a voxel goes to what has the highest smoothed value, background too, so
    that no gaps open between them. `mm` is the standard deviation. The mask is taken to go on beyond the array
    as it is at its border.
    """
    if not 0 <= mm < np.inf:
        raise ValueError(f"mm must not be negative, not {mm}.")
    sigma = mm / checked_spacing(labels, spacing)
    result, wanted = labels.copy(), wanted_labels(labels, label)
    chosen = _chosen(labels, label)
    if not chosen.any():
        return result
    box = around(chosen, np.ceil(4 * sigma))
    crop = labels[box]
    highest = np.full(crop.shape, 0.5, np.float32) if label is not None else _blurred(crop == 0, sigma)
    winner = np.zeros_like(crop)
    for value in wanted:
        claim = _blurred(crop == value, sigma)
        winner[claim > highest] = value
        np.maximum(highest, claim, out=highest)
    free = chosen[box] | (crop == 0)
    result[box][free] = winner[free]
    return result


def grow(labels: NDArray[Any], mm: float, spacing: Sequence[float], label: int | None = None) -> NDArray[Any]:
    """Grows labels into the background by so many mm, or shrinks them where that is negative.

    Distances go from centre to centre. Background goes to the nearest label; a label shrinks away from
    everything else, but not from the array's border.
    """
    if not np.isfinite(mm):
        raise ValueError(f"mm must be a finite number, not {mm}.")
    sampling = checked_spacing(labels, spacing)
    result = labels.copy()
    if mm < 0:
        for value, box in _boxes(labels, label, margin=1):
            solid = labels[box] == value
            if not solid.all():  # distances to nothing are not defined
                result[box][solid & (distance_transform_edt(solid, sampling) <= -mm * _ROUNDING)] = 0
        return result
    chosen = _chosen(labels, label)
    if chosen.any():
        box = around(chosen, np.ceil(mm / sampling))
        distance, nearest = distance_transform_edt(~chosen[box], sampling, return_indices=True)
        free = (labels[box] == 0) & (distance <= mm * _ROUNDING)
        result[box][free] = labels[box][tuple(nearest[:, free])]
    return result


def swap(labels: NDArray[Any], one: int, other: int) -> NDArray[Any]:
    """Two labels change places."""
    result = labels.copy()
    for value, into in ((one, other), (other, one)):
        _check_holds(labels, into)
        result[_chosen(labels, value)] = into
    return result


def merge(labels: NDArray[Any], others: Iterable[int], into: int) -> NDArray[Any]:
    """Some labels become one."""
    _check_label(into)
    _check_holds(labels, into)
    result = labels.copy()
    for value in others:
        result[_chosen(labels, value)] = into
    return result


def changed(before: NDArray[Any], after: NDArray[Any]) -> tuple[tuple[NDArray[np.intp], ...], NDArray[Any]]:
    """What an edit changed: the indices, one array per axis, and the new values there."""
    if before.shape != after.shape:
        raise ValueError(f"The masks differ in shape: {before.shape}, {after.shape}.")
    indices = np.nonzero(before != after)
    return indices, after[indices]


def around(mask: Mask, margin: ArrayLike) -> Box:
    """The smallest box round a mask that is not empty, so many voxels wider along each axis, within the array."""
    tight = find_objects(mask.view(np.uint8))[0]
    wide = np.minimum(margin, mask.shape).astype(int).tolist()
    sides = zip(tight, wide, mask.shape, strict=True)
    return tuple(slice(max(side.start - more, 0), min(side.stop + more, size)) for side, more, size in sides)


def checked_spacing(array: NDArray[Any], spacing: Sequence[float]) -> NDArray[np.float64]:
    """The spacing as an array.

    Raises:
        ValueError: It is not a positive number for every axis.
    """
    sizes = np.asarray(spacing, dtype=np.float64)
    if sizes.shape != (array.ndim,) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"spacing must be {array.ndim} positive numbers, not {spacing}.")
    return sizes


def wanted_labels(labels: NDArray[Any], label: int | None) -> list[int]:
    """The label, or all that are there.

    Raises:
        ValueError: It is none.
    """
    if label is None:
        return [value for value in np.unique(labels).tolist() if value not in (0, IGNORE)]
    _check_label(label)
    return [label]


def _blurred(mask: Mask, sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    blurred: NDArray[np.float32] = gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=4)
    return blurred


def _boxes(labels: NDArray[Any], label: int | None, margin: int = 0) -> Iterator[tuple[int, Box]]:
    for value in wanted_labels(labels, label):
        mask = labels == value
        if mask.any():
            yield value, around(mask, margin)


def _chosen(labels: NDArray[Any], label: int | None) -> Mask:
    if label is None:
        return np.asarray((labels != 0) & (labels != IGNORE))
    _check_label(label)
    return np.asarray(labels == label)


def _same_grid(labels: NDArray[Any], where: Mask) -> Mask:
    if where.shape != labels.shape or where.dtype != np.bool_:
        raise ValueError(f"where must be bool {labels.shape} as the mask, not {where.dtype} {where.shape}.")
    return where


def _check_label(label: int) -> None:
    if label in (0, IGNORE):
        raise ValueError(f"{label} is no label: 0 is background, {IGNORE} is not annotated.")


def _check_voxel(voxel_ml: float) -> None:
    if not voxel_ml > 0:
        raise ValueError(f"voxel_ml must be positive, not {voxel_ml}.")


def _check_holds(labels: NDArray[Any], label: int) -> None:
    if int(np.asarray(label).astype(labels.dtype)) != label:
        raise ValueError(f"A mask of {labels.dtype} cannot hold the label {label}.")
