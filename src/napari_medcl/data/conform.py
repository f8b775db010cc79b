"""A scan on the network's grid and maps back on the scan's, a few slices at a time: neither is held whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.volume import Places, resample, voxels
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_medcl.data.plan import Plan
    from napari_medcl.data.volume import Volume

_AT_A_TIME = 16
"""Slices of maps that are brought back together."""


class Conformed:
    """A scan on the network's grid, normalised, of which slices are made when they are asked for: `[:, begin:end]`.

    Attributes:
        shape: (C, Z', Y', X'), slices first.

    Raises:
        UserError: The scan has another number of channels.
    """

    def __init__(self, plan: Plan, volume: Volume) -> None:
        if volume.channels != plan.channels:
            name = volume.source.path if volume.source else "The scan"
            raise UserError(
                f"{name} has {volume.channels} channel(s), the model was made for {plan.channels}. "
                "Choose scans of the same kind, or one channel of them with the channel setting."
            )
        self._axis, self._volume = plan.slice_axis, volume
        self._normalise = [
            intensity.of(channel) for intensity, channel in zip(plan.intensities, volume.array, strict=True)
        ]
        self._grid = plan.grid(volume)
        inside = (size for axis, size in enumerate(self._grid) if axis != self._axis)
        self.shape = (volume.channels, self._grid[self._axis], *inside)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        """All channels of some slices."""
        begin, end, _ = key[1].indices(self.shape[1])
        across = Places.among(self._volume.shape[self._axis], self._grid[self._axis])
        first, last = int(across.low[begin]), int(across.high[end - 1])
        some: list[Any] = [slice(None)] * 3
        some[self._axis] = slice(first, last + 1)
        channels = zip(self._normalise, self._volume.array, strict=True)
        array = np.stack([normalise(voxels(channel[tuple(some)])) for normalise, channel in channels])
        for axis, size in enumerate(self._grid):
            inside = Places.among(array.shape[axis + 1], size)
            array = (across.some(begin, end, first) if axis == self._axis else inside).values(array, axis + 1)
        return np.ascontiguousarray(np.moveaxis(array, self._axis + 1, 1))


def restored(
    plan: Plan, volume: Volume, bands: Iterable[NDArray[np.float32]]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Maps on the network's grid brought back to the scan's.

    Args:
        plan: How the scan was brought to the network's grid.
        volume: The scan.
        bands: (K, z', Y', X') that follow each other along Z', slices first.

    Yields:
        The number of the first slice along `plan.slice_axis`, and (K, z, ·, ·), slices first.
    """
    inside = [size for axis, size in enumerate(volume.shape) if axis != plan.slice_axis]
    across = Places.among(plan.grid(volume)[plan.slice_axis], volume.shape[plan.slice_axis])
    first, begin = 0, 0
    kept: NDArray[np.float32] | None = None
    for band in bands:
        for start in range(0, band.shape[1], _AT_A_TIME):
            some = band[:, start : start + _AT_A_TIME]
            some = resample(some, (some.shape[1], inside[0], inside[1]))
            kept = some if kept is None else np.concatenate([kept, some], 1)
            end = int(np.searchsorted(across.high, first + kept.shape[1]))
            if end > begin:
                yield begin, across.some(begin, end, first).values(kept, 1)
            if end < len(across.low):
                needed = min(int(across.low[end]), first + kept.shape[1])
                kept, first = kept[:, needed - first :], needed
            begin = end
