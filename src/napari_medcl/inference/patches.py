"""Which patches of a slice or volume PDCR takes for alike, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medcl.errors import UserError
from napari_medcl.methods.grid import centres
from napari_medcl.methods.losses.patches import affinity, composition
from napari_medcl.methods.pdcr import PDCR
from napari_medcl.models import NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches that the embeddings of one map stand for, over an image of shape S.

    Attributes:
        shape: S.
        places: The voxels along every axis; the centres of the patches are where they cross.
        side: Side of a patch in voxels.
        values: The label values (K,) that count as classes.
        composition: Fraction (*grid, K) of every class in every patch; all 0 where nothing is annotated.
        cell: Voxels (D,) from one patch to the next.
    """

    shape: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    side: int
    values: NDArray[np.integer]
    composition: NDArray[np.float32]
    cell: NDArray[np.float64]

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches along every axis."""
        return self.composition.shape[:-1]

    def nearest(self, voxel: Sequence[float]) -> tuple[int, ...]:
        """The patch whose centre is nearest to a voxel."""
        gaps = (np.abs(np.subtract(axis, place)) for axis, place in zip(self.places, voxel, strict=True))
        return tuple(int(gap.argmin()) for gap in gaps)

    def window(self, patch: tuple[int, ...]) -> Box:
        """Where a patch begins and ends along every axis, clipped at the border."""
        begins = (axis[index] - self.side // 2 for axis, index in zip(self.places, patch, strict=True))
        return tuple((max(low, 0), min(low + self.side, size)) for low, size in zip(begins, self.shape, strict=True))

    def affinity_to(self, patch: tuple[int, ...]) -> NDArray[np.float32]:
        """How alike all patches are to one (*grid), from 0 to 1; NaN where nothing is annotated."""
        rows = torch.from_numpy(self.composition.reshape(1, -1, len(self.values)))
        one = torch.from_numpy(self.composition[patch]).view(1, 1, -1)
        alike = affinity(one, rows)[0, 0]
        known = rows[0].any(-1) & one.any()
        return alike.masked_fill(~known, torch.nan).view(self.grid).numpy()


def patches(
    labels: NDArray[np.integer], name: str, depth: int, side: int | None = None, ignored: int | None = None
) -> Patches:
    """The patches of an image and what they are made of.

    Args:
        labels: Label values or superpixel ids, (Y, X) or (Z, Y, X).
        name: Map of the network.
        depth: Poolings of the network.
        side: Side of a patch in voxels; None for what a pixel of the map sees.
        ignored: The value of voxels that nobody annotated.

    Raises:
        UserError: The network has no such map, a patch is larger than the image, or nothing is annotated.
    """
    spec = NetworkSpec(in_channels=1, classes=2, spatial_dims=labels.ndim, depth=depth)
    method = PDCR(windows=None if side is None else (side,))
    (voxels,) = method.sides(spec, name)
    if voxels > max(labels.shape):
        raise UserError(
            f"A patch of map {name} is {voxels} voxels wide, the image {' × '.join(map(str, labels.shape))}: every "
            "patch would hold all of it. Choose a map of a higher level, such as enc2, or set the side of a patch."
        )
    values = np.unique(labels)
    if ignored is not None:
        values = values[values != ignored]
    if not values.size:
        raise UserError(f"Nothing is annotated here: all of it has the value {ignored}. Go to another slice.")
    indices = np.where(labels == ignored, len(values), np.searchsorted(values, labels))
    grid = method.grid(spec, name, labels.shape)
    stride = spec.stride(name)
    places = centres(grid, stride)
    found = composition(torch.from_numpy(indices.astype(np.int64))[None], places, voxels, len(values))[0]
    counts = [len(axis) for axis in grid]
    length = [-(-size // stride) * stride for size in labels.shape]
    return Patches(
        shape=labels.shape,
        places=places,
        side=voxels,
        values=values,
        composition=found.view(*counts, -1).numpy(),
        cell=np.divide(length, counts),
    )
