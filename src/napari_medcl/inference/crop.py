"""What a network has to see of a scan to tell of one slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medcl.data.volume import Volume, voxels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medcl.data.plan import Plan


@dataclass(frozen=True, eq=False)
class Crop:
    """What it takes of the network's grid to see one slice of a scan.

    Attributes:
        axis: Of the grid, across the slice.
        start: First grid slice that is taken.
        weights: Share of every grid slice in the slice of the scan, by linear interpolation.
        slice: The slice of the scan.
    """

    axis: int
    start: int
    weights: NDArray[np.float32]
    slice: Volume

    @classmethod
    def about(cls, plan: Plan, image: NDArray[np.float32], volume: Volume, axis: int, index: int) -> Crop:
        """A patch with the slice in its middle; the slice alone where that is all that the network sees."""
        place = [plan.slice_axis, *(other for other in range(3) if other != plan.slice_axis)].index(axis)
        sides = (1, *plan.patch) if plan.spatial_dims == 2 else plan.patch
        size, side = image.shape[place + 1], min(sides[place], image.shape[place + 1])
        centre = float(np.clip((index + 0.5) * size / volume.shape[axis] - 0.5, 0, size - 1))
        start = min(max(math.floor(centre) - (side - 1) // 2, 0), size - side)
        weights = np.maximum(0, 1 - np.abs(np.arange(start, start + side) - centre)).astype(np.float32)
        origin = [*volume.origin]
        origin[axis] += index * volume.spacing[axis]
        one = voxels(np.take(volume.array, [index], axis + 1))
        return cls(place, start, weights, Volume(one, volume.spacing, (origin[0], origin[1], origin[2]), volume.source))

    def of(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, Z', Y', X') cropped."""
        return image.take(range(self.start, self.start + len(self.weights)), self.axis + 1)

    def middle(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """The slice (D, ...) of cropped maps, one voxel thick."""
        return np.expand_dims(np.tensordot(maps, self.weights, (self.axis + 1, 0)), self.axis + 1)
