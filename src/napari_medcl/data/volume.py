"""Scans and masks: arrays that know their place, and two types so that a mask is never interpolated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_medcl.data.geometry import Grid, Millimetres, Source, matching_source
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IGNORE",
    "Grid",
    "Labels",
    "Millimetres",
    "Source",
    "Volume",
    "matching_source",
    "resample",
    "resample_labels",
    "voxels",
]

IGNORE = 255
"""The label of voxels that nobody annotated; losses and scores leave them out."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan on the canonical grid.

    Attributes:
        array: (C, Z, Y, X), integers as the file has them or float32. It may be a view with negative
            strides; take `np.ascontiguousarray` where that matters. From `open_volume` it may be a dask array,
            of which `voxels` reads what is asked for.
        spacing: Millimetres between voxels along z, y, x.
        origin: LPS position of voxel (0, 0, 0) in millimetres, as (z, y, x).
        source: The file it came from.
        rgb: Whether the channels are red, green and blue.

    Raises:
        UserError: If the array has other axes or holds no numbers, or the spacing is not positive.
    """

    array: NDArray[Any]
    spacing: Millimetres = (1.0, 1.0, 1.0)
    origin: Millimetres = (0.0, 0.0, 0.0)
    source: Source | None = None
    rgb: bool = False

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or not self.array.size or self.array.dtype.kind not in "biuf":
            raise UserError(
                f"A scan is an array of numbers with axes (C, Z, Y, X); this one is {self.array.dtype} "
                f"with shape {self.array.shape}."
            )
        _check_place(self.spacing, self.origin)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> Grid:
        """Voxels along z, y, x."""
        z, y, x = self.array.shape[1:]
        return z, y, x

    @property
    def planar(self) -> bool:
        """Whether it is one slice or a picture."""
        return self.shape[0] == 1


@dataclass(frozen=True, eq=False)
class Labels:
    """A mask on the canonical grid.

    Attributes:
        array: (Z, Y, X) integers, 0 is background and `IGNORE` not annotated.
        spacing: Millimetres between voxels along z, y, x.
        origin: LPS position of voxel (0, 0, 0) in millimetres, as (z, y, x).
        source: The file whose grid it lies on.
        names: What the labels mean.

    Raises:
        UserError: If the array has another number of axes or no integers, or the spacing is not positive.
    """

    array: NDArray[Any]
    spacing: Millimetres = (1.0, 1.0, 1.0)
    origin: Millimetres = (0.0, 0.0, 0.0)
    source: Source | None = None
    names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or not self.array.size or self.array.dtype.kind not in "biu":
            raise UserError(
                f"A mask is an array of integers with axes (Z, Y, X); this one is {self.array.dtype} "
                f"with shape {self.array.shape}."
            )
        _check_place(self.spacing, self.origin)

    @property
    def shape(self) -> Grid:
        """Voxels along z, y, x."""
        z, y, x = self.array.shape
        return z, y, x

    @property
    def planar(self) -> bool:
        """Whether it is one slice or a picture."""
        return self.shape[0] == 1


def voxels(array: Any) -> NDArray[Any]:
    """An array, or what a dask array stands for, read from the disk by this process.

    `np.asarray` would leave the reading to whatever scheduler the process knows, a worker's to its cluster.
    """
    if isinstance(array, np.ndarray):
        return array
    return np.asarray(array.compute(scheduler="threads") if hasattr(array, "compute") else array)


def _check_place(spacing: Millimetres, origin: Millimetres) -> None:
    if len(spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise UserError(f"The spacing must be three positive numbers in mm (z, y, x), not {spacing}.")
    if len(origin) != 3 or not all(map(math.isfinite, origin)):
        raise UserError(f"The origin must be three numbers in mm (z, y, x), not {origin}.")


class Places(NamedTuple):
    """Where voxels lie among others on the same stretch: between two of them each.

    Attributes:
        low: The one before.
        high: The one behind.
        weight: Share of the one behind.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]

    @classmethod
    def among(cls, old: int, size: int) -> Places:
        """Of `size` voxels among `old`; outer voxel edges stay where they are."""
        if old == size:
            return cls(np.arange(size), np.arange(size), np.zeros(size, np.float32))
        place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.minimum(place.astype(np.intp), max(old - 2, 0))
        return cls(low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32))

    def some(self, begin: int, end: int, first: int) -> Places:
        """Those from `begin` to `end`, among others of which the one numbered `first` comes first."""
        here = slice(begin, end)
        return Places(self.low[here] - first, self.high[here] - first, self.weight[here])

    def values(self, array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Interpolated linearly along an axis."""
        here = np.arange(array.shape[axis])
        if np.array_equal(self.low, here) and np.array_equal(self.high, here):
            return array
        start: NDArray[np.float32] = array.take(self.low, axis)
        step = array.take(self.high, axis)
        step -= start
        step *= self.weight.reshape(-1, *(1,) * (array.ndim - 1 - axis))
        start += step
        return start


def resample(array: NDArray[Any], shape: Grid) -> NDArray[np.float32]:
    """Linear interpolation of (C, Z, Y, X) to (C, *shape); outer voxel edges stay where they are."""
    result = np.asarray(array, dtype=np.float32)
    for axis, size in enumerate(shape, start=1):
        result = Places.among(result.shape[axis], size).values(result, axis)
    return result


def resample_labels(array: NDArray[Any], shape: Grid) -> NDArray[Any]:
    """Nearest voxel of (Z, Y, X) on a grid of `shape`; outer voxel edges stay where they are."""
    places = (((2 * np.arange(size) + 1) * old) // (2 * size) for old, size in zip(array.shape, shape, strict=True))
    return array[np.ix_(*places)]
