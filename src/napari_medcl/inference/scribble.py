"""From a click or a scribble to the region that it lies in, up to the edges of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_propagation
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import cg

from napari_medcl.inference.correct import around, checked_spacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Edges = tuple[NDArray[np.int32], NDArray[np.int32], Floats, Floats]

_PERCENTILES = (0.5, 99.5)
_LEAK = 1e-4
"""What still passes the hardest edge, so that the equations can be solved."""
_LEVELS = 200
_TOLERANCE = 1e-3
"""Of the solution; lower levels are not looked at."""
_STEPS = 1000
"""Towards the solution; 100 to 300 are usual."""


def grow_to_edge(
    image: NDArray[Any],
    seeds: Mask,
    spacing: Sequence[float],
    *,
    background: Mask | None = None,
    reach_mm: float = 40.0,
    beta: float = 800.0,
) -> Mask:
    """The region round a click or a scribble, up to the image's edges.

    A random walker starts at every voxel of a box round the seeds and crosses edges rarely: how likely does it
    come to the seeds before it comes to the background? That is everything in `background`, and the box's surface
    where the image goes on (all round in-plane, where it goes on nowhere). The region is where that is likelier
    than a level, of at most one half; taken is the level whose outline runs along the strongest edges. At one half
    itself a click finds next to nothing, for a walker hardly ever hits a single voxel.

    Args:
        image: (*S), (Y, X) or (Z, Y, X); voxels without a finite number are as dark as the darkest.
        seeds: (*S), true at the click or the scribble.
        spacing: Voxel size in mm, per axis.
        background: (*S), true where the region must not go; seeds are the region's nonetheless.
        reach_mm: How far the region may go beyond the seeds.
        beta: How much edges count. Intensities are scaled so that the box's 0.5 and 99.5 percentiles are 0 and 1.

    Returns:
        (*S), true at the seeds and what is joined to them.

    Raises:
        ValueError: Shapes or spacing do not fit, there are no seeds, or a number is negative.

    Reference:
        Grady, Random walks for image segmentation, IEEE TPAMI 28(11), 2006; equation 1 are the weights.
    """
    _check(image, seeds, background)
    sizes = checked_spacing(image, spacing)
    if not (reach_mm >= 0 and beta >= 0):
        raise ValueError(f"reach_mm and beta must not be negative, not {reach_mm} and {beta}.")
    box = around(seeds, np.ceil(reach_mm / sizes))
    inside = seeds[box]
    outside = _surface(box, image.shape)
    if background is not None:
        outside |= background[box]
    edges = _edges(_scaled(image[box]), sizes, beta)
    chance = _chance(edges, inside, outside)
    region = np.zeros(image.shape, dtype=np.bool_)
    region[box] = binary_propagation(inside, mask=chance > _level(edges, chance.ravel()))
    return region


def _surface(box: tuple[slice, ...], shape: tuple[int, ...]) -> Mask:
    """The faces of a box behind which the image goes on; all faces across the last two axes if there are none."""
    goes_on = [(side.start > 0, side.stop < size) for side, size in zip(box, shape, strict=True)]
    if not np.any(goes_on):
        goes_on[-2:] = [(True, True)] * 2
    surface = np.ones([side.stop - side.start for side in box], dtype=np.bool_)
    surface[tuple(slice(int(a), n - int(b)) for (a, b), n in zip(goes_on, surface.shape, strict=True))] = False
    return surface


def _scaled(image: NDArray[Any]) -> Floats:
    values = image.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = values[finite].min(initial=np.inf) if finite.any() else 0
    low, high = np.percentile(values, _PERCENTILES)
    if low == high:
        low, high = values.min(), values.max()
    return np.asarray((values.clip(low, high) - low) / (high - low if high > low else 1))


def _edges(image: Floats, spacing: Floats, beta: float) -> Edges:
    """Both voxels of every pair of neighbours, how easily a walker passes between them, and how near they are.

    That is exp(-beta d²) for a difference d of intensities, and one over the squared distance, as in diffusion.
    """
    index = np.arange(image.size, dtype=np.int32).reshape(image.shape)
    one, other, ease, nearness = [], [], [], []
    for axis, distance in enumerate(spacing):
        one.append(np.delete(index, -1, axis).ravel())
        other.append(np.delete(index, 0, axis).ravel())
        ease.append(np.exp(-beta * np.diff(image, axis=axis).ravel() ** 2) + _LEAK)
        nearness.append(np.full(ease[-1].shape, distance**-2))
    return np.concatenate(one), np.concatenate(other), np.concatenate(ease), np.concatenate(nearness)


def _chance(edges: Edges, seeds: Mask, outside: Mask) -> Floats:
    """How likely a walker comes to the seeds first: what is 1 there, 0 outside and harmonic between.

    As scikit-image's `random_walker`, which knows no thick slices, fails on constant images, warns where nothing is
    outside, and solves for the outside too.
    """
    one, other, ease, nearness = edges
    pairs = np.concatenate([one, other]), np.concatenate([other, one])
    weights = coo_array((np.tile(ease * nearness, 2), pairs), shape=(seeds.size, seeds.size)).tocsr()
    degree = weights.sum(axis=0)
    chance = seeds.astype(np.float64).ravel()
    free = np.flatnonzero(~(seeds | outside))
    if len(free):
        rows, scale = weights[free], degree[free]
        laplacian = (diags_array(scale) - rows[:, free]).tocsr()
        solution = cg(laplacian, rows @ chance, rtol=_TOLERANCE, maxiter=_STEPS, M=diags_array(1 / scale))
        chance[free] = solution[0]
    return chance.reshape(seeds.shape)


def _level(edges: Edges, chance: Floats) -> float:
    """The level, one half at most, whose outline a walker passes the least easily; of equal ones the highest."""
    levels = chance[(chance > _TOLERANCE) & (chance <= 0.5)]
    if not levels.size:
        return 0.5
    levels = np.quantile(levels, np.linspace(0, 1, _LEVELS))
    one, other, ease, nearness = edges
    first = np.searchsorted(levels, np.minimum(chance[one], chance[other]))
    last = np.searchsorted(levels, np.maximum(chance[one], chance[other]))

    def crossed(weights: Floats) -> Floats:
        starts, ends = (np.bincount(at, weights, _LEVELS + 1) for at in (first, last))
        return np.cumsum(starts - ends)[:_LEVELS]

    mean = crossed(ease * nearness) / crossed(nearness)
    return float(levels[np.flatnonzero(mean <= mean.min() * (1 + 1e-6))[-1]])


def _check(image: NDArray[Any], seeds: Mask, background: Mask | None) -> None:
    for mask in (seeds, background):
        if mask is not None and (mask.shape != image.shape or mask.dtype != np.bool_):
            raise ValueError(f"The masks must be bool {image.shape} as the image, not {mask.dtype} {mask.shape}.")
    if not seeds.any():
        raise ValueError("seeds holds no voxel to start from.")
