"""Groups of slices that are alike, as found in `pairs`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Groups:
    """What the superpixels link in a batch of B slices (2D) or crops (3D) of one scan.

    Attributes:
        axis: Which of z, y, x counts the slices.
        slices: Number (B,) of each slice, or of each crop's middle slice, in the scan; ascending.
        views: Group (2, B), from 0, of each slice in its two views; alike is what shares a group.
        likeness: Cosine similarity (B, B) of their maps, that of the two views that are most alike.
        pooled: Pooled superpixel maps (B, Z, Y, X) of the first view, one pixel thick along the axis of slices.
        first: Where each map begins in the scan (B, 3): voxel edges along z, y, x.
        cell: Voxels of the scan (3,) in a pixel of the maps, along z, y, x.
    """

    axis: int
    slices: NDArray[np.intp]
    views: NDArray[np.intp]
    likeness: NDArray[np.float32]
    pooled: NDArray[np.float32]
    first: NDArray[np.float64]
    cell: NDArray[np.float64]

    def members(self, group: int) -> list[int]:
        """Slices of which a view is in the group."""
        return [int(number) for number in self.slices[(self.views == group).any(0)]]

    @cached_property
    def shared(self) -> list[int]:
        """Groups of more than one slice."""
        return [group for group in range(int(self.views.max()) + 1) if len(self.members(group)) > 1]

    @cached_property
    def alone(self) -> list[int]:
        """Slices that are alike to no other."""
        return [int(number) for number in self.slices[~np.isin(self.views, self.shared).any(0)]]

    def alike(self, chosen: int) -> list[int]:
        """The other slices that share a group with one of the batch."""
        found = np.isin(self.views, self.views[:, chosen]).any(0)
        return [int(number) for number in self.slices[found] if number != self.slices[chosen]]

    def nearest(self, chosen: int) -> int:
        """Which of the batch is most like one of the batch, itself left out."""
        row = self.likeness[chosen].copy()
        row[chosen] = -np.inf
        return int(row.argmax())

    def at(self, index: int) -> int | None:
        """Which of the batch is at a slice of the scan: itself, or the crop about it whose middle is nearest."""
        chosen = int(np.abs(self.slices - index).argmin())
        begin = self.first[chosen, self.axis]
        end = begin + self.pooled.shape[self.axis + 1] * self.cell[self.axis]
        return chosen if begin < index + 0.5 < end else None
