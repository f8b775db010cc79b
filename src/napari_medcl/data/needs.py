"""What a method asks of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medcl.data.superpixels import SuperpixelSettings  # noqa: TC001 - part of a public dataclass


@dataclass(frozen=True)
class Needs:
    """What a method asks of a batch.

    Attributes:
        fixed: Views that differ in intensity only.
        free: Views that also have a geometry of their own.
        superpixels: How to make the superpixel map of the fixed views; None for no map.
        position: Whether the place of the slice in its volume is asked for.
        labels: Whether the class of every voxel is asked for, with the first fixed view.
    """

    fixed: int = 0
    free: int = 0
    superpixels: SuperpixelSettings | None = None
    position: bool = False
    labels: bool = False
