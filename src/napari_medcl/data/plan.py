"""How a scan is brought to the network's grid, and a result back to the scan's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_medcl.data.conform import Conformed
from napari_medcl.data.volume import resample, resample_labels, voxels
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_medcl.data.volume import Labels, Volume

_ANISOTROPIC = 3.0
"""Slices so many times farther apart than their pixels are learned one by one, in 2D."""
_AIR_HU = -500.0
"""A scan that reaches below this is taken for a CT: no other modality has fixed negative values."""
_SIDE = {2: 256, 3: 160}
_VOXELS = {2: 256**2, 3: 64**3}
_SMALLEST_BOTTLENECK = 4
_SAMPLES = 20_000
"""About so many voxels of each scan are looked at for the intensities."""
_LARGEST = 2**27
"""A scan is normalised by every second, third, ... slice where all have more voxels."""


class Intensity(BaseModel):
    """How one channel is normalised: by its own scan's statistics, or by those of the data set.

    `scan`: clip to the scan's 0.5 and 99.5 percentiles, subtract its mean, divide by its standard
    deviation (MR, where values have no unit). `dataset`: the same with the numbers kept here (CT,
    pictures).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Literal["scan", "dataset"]
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    def of(self, array: NDArray[Any]) -> Intensity:
        """With the numbers for a channel (Z, Y, X), where they are its own."""
        if self.scheme == "dataset":
            return self
        every = max(1, math.ceil(math.prod(array.shape) / _LARGEST))
        return _statistics(_body(voxels(array[::every])))

    def __call__(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """The normalised channel (Z, Y, X), or some slices of it where the numbers are known (`of`)."""
        own = self.of(array)
        normalised: NDArray[np.float32] = np.clip(array, own.low, own.high, dtype=np.float32)
        normalised -= np.float32(own.mean)
        normalised /= np.float32(max(own.std, 1e-6))
        return normalised


class Plan(BaseModel):
    """Spacing, orientation of the slices, crop size and intensities: what a network was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(ge=1)
    spatial_dims: Literal[2, 3]
    spacing: tuple[float | None, float | None, float | None] = Field(
        description="Voxel size in mm (z, y, x); None keeps the scan's own."
    )
    slice_axis: Literal[0, 1, 2] = Field(0, description="2D: which of z, y, x counts the slices.")
    patch: tuple[int, ...] = Field(description="Training crop in voxels, slices left out in 2D.")
    intensities: tuple[Intensity, ...]

    def grid(self, volume: Volume | Labels) -> tuple[int, int, int]:
        """Shape (Z, Y, X) of a scan at the network's spacing."""
        sizes = zip(volume.shape, volume.spacing, self.spacing, strict=True)
        z, y, x = (size if want is None else max(1, round(size * have / want)) for size, have, want in sizes)
        return z, y, x

    def conform(self, volume: Volume) -> NDArray[np.float32]:
        """The scan on the network's grid: (C, Z', Y', X'), normalised, slices first.

        Raises:
            UserError: The scan has another number of channels.
        """
        return Conformed(self, volume)[:, :]

    def conform_labels(self, labels: Labels) -> NDArray[np.integer]:
        """The mask on the network's grid: (Z', Y', X'), slices first."""
        return np.ascontiguousarray(np.moveaxis(resample_labels(labels.array, self.grid(labels)), self.slice_axis, 0))

    def upright(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undoes the order of the axes: (K, Z', Y', X') with slices first to z, y, x."""
        return np.moveaxis(array, 1, self.slice_axis + 1)

    def restore(self, array: NDArray[np.float32], volume: Volume) -> NDArray[np.float32]:
        """Maps (K, Z', Y', X') on the network's grid back onto the scan's: (K, Z, Y, X)."""
        return resample(self.upright(array), volume.shape)

    def in_words(self) -> str:
        """Dimensions and crop, for people."""
        return f"{self.spatial_dims}D, crops of {' x '.join(map(str, self.patch))}"

    def voxel(self) -> tuple[float, ...]:
        """Relative voxel size of a crop, for rotations that keep shapes: as many numbers as `patch`."""
        sizes = [1.0 if size is None else size for size in self.spacing]
        if self.spatial_dims == 3:
            return tuple(sizes)
        return tuple(size for axis, size in enumerate(sizes) if axis != self.slice_axis)


@dataclass(frozen=True)
class _Look:
    """What a plan depends on, of one scan."""

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    planar: bool
    rgb: bool
    samples: list[NDArray[np.float32]]

    @classmethod
    def at(cls, volume: Volume) -> _Look:
        name = str(volume.source.path) if volume.source else "a scan"
        samples = [
            voxels(channel.ravel()[:: max(1, channel.size // _SAMPLES)]).astype(np.float32) for channel in volume.array
        ]
        return cls(name, volume.shape, volume.spacing, volume.planar, volume.rgb, samples)


def make_plan(
    volumes: Iterable[Volume],
    dims: Literal["auto", "2d", "3d"] = "auto",
    patch: tuple[int, ...] | None = None,
    depth: int | None = None,
) -> tuple[Plan, int]:
    """Looks at the scans, one after the other, and chooses spacing, dimensions, crop and intensities.

    Returns:
        The plan, and the number of poolings that leaves at least 4 voxels a side at the bottleneck.

    Raises:
        UserError: The scans have different numbers of channels, or the crop does not fit.
    """
    looks: list[_Look] = []
    for volume in volumes:
        looks.append(_Look.at(volume))
        _check_channels(looks[0], looks[-1])
    spacings = np.array([look.spacing for look in looks])
    spacing = np.median(spacings, axis=0)
    planar = all(look.planar for look in looks)
    order = np.argsort(spacing)
    coarse = bool(spacing[order[2]] > 1.5 * spacing[order[1]])
    slice_axis = int(order[2]) if coarse and not planar else 0
    flat = planar or spacing.max() / spacing.min() > _ANISOTROPIC
    spatial_dims: Literal[2, 3] = 2 if dims == "2d" or (dims == "auto" and flat) else 3
    if spatial_dims == 3:
        slice_axis = 0
    wanted = [
        None if planar or (spatial_dims == 2 and axis == slice_axis) else float(spacing[axis]) for axis in range(3)
    ]
    shapes = np.array(
        [[v.shape[a] if w is None else v.shape[a] * v.spacing[a] / w for a, w in enumerate(wanted)] for v in looks]
    )
    typical = np.median(shapes, axis=0)
    if spatial_dims == 2:
        typical = np.delete(typical, slice_axis)
    crop, poolings = _crop(typical, patch, depth)
    samples = zip(*(look.samples for look in looks), strict=True)
    intensities = tuple(_intensity(some, rgb=looks[0].rgb) for some in samples)
    plan = Plan(
        channels=len(intensities),
        spatial_dims=spatial_dims,
        spacing=(wanted[0], wanted[1], wanted[2]),
        slice_axis=slice_axis,
        patch=crop,
        intensities=intensities,
    )
    return plan, poolings


def _check_channels(first: _Look, other: _Look) -> None:
    if len(first.samples) != len(other.samples):
        raise UserError(
            f"{first.name} has {len(first.samples)} channel(s) and {other.name} has {len(other.samples)}. "
            "One model needs scans of one kind: move the others to a folder of their own, or choose one channel."
        )


def _crop(
    typical: NDArray[np.float64], patch: tuple[int, ...] | None, depth: int | None
) -> tuple[tuple[int, ...], int]:
    dims = len(typical)
    if patch is not None and len(patch) != dims:
        raise UserError(f"The patch {patch} has {len(patch)} numbers; a {dims}D network needs {dims}.")
    sizes = np.array(patch, float) if patch is not None else np.minimum(typical, _SIDE[dims])
    while patch is None and sizes.prod() > _VOXELS[dims]:
        sizes[sizes.argmax()] *= 0.95
    fitting = int(np.floor(np.log2(max(sizes.min() / _SMALLEST_BOTTLENECK, 1) + 1e-9)))
    poolings = depth if depth is not None else int(np.clip(fitting, 1, 4))
    multiple = 2**poolings
    return tuple(int(np.ceil(size / multiple - 1e-9)) * multiple for size in sizes), poolings


def _body(array: NDArray[Any]) -> NDArray[Any]:
    """The voxels that count: without the background, where a quarter or more has the lowest value."""
    low = array.min()
    inside = array[array > low]
    return inside if 0 < inside.size <= 0.75 * array.size else array


def _statistics(values: NDArray[Any]) -> Intensity:
    clipped = values.astype(np.float32).ravel("K")  # a copy to be changed: of large scans memory holds few
    low, high = (float(value) for value in np.percentile(clipped, [0.5, 99.5], overwrite_input=True))
    np.clip(clipped, low, high, out=clipped)
    return Intensity(scheme="dataset", low=low, high=high, mean=float(clipped.mean()), std=float(clipped.std()))


def _intensity(samples: Sequence[NDArray[np.float32]], *, rgb: bool) -> Intensity:
    values = np.concatenate(samples)
    if rgb:
        return _statistics(values)
    if np.median([sample.min() for sample in samples]) < _AIR_HU:
        return _statistics(values[values > _AIR_HU])
    return Intensity(scheme="scan")
