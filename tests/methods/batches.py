"""Random batches that hold what a method asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_medcl.data.batch import Batch

if TYPE_CHECKING:
    from napari_medcl.data.needs import Needs


def regions(images: int, size: tuple[int, ...], side: int) -> Tensor:
    """Cubes of `side` pixels, numbered from 1 in every image."""
    axes = [torch.arange(n) // side for n in size]
    ids = sum(axis.reshape(-1, *[1] * (len(size) - i - 1)) * 100**i for i, axis in enumerate(axes))
    return (ids + 1).expand(images, *size).clone()


def batch(needs: Needs, size: tuple[int, ...], images: int = 4, channels: int = 1, seed: int = 0) -> Batch:
    """Smooth random pictures, their views with a little noise."""
    random = torch.Generator().manual_seed(seed)
    picture = torch.randn(images, channels, *size, generator=random)

    def view() -> Tensor:
        return picture + 0.3 * torch.randn(picture.shape, generator=random)

    return Batch(
        fixed=tuple(view() for _ in range(needs.fixed)),
        free=tuple(view() for _ in range(needs.free)),
        superpixels=regions(images, size, 6) if needs.superpixels else None,
        position=torch.linspace(0.1, 1, images) if needs.position else None,
        labels=torch.randint(0, 3, (images, *size), generator=random) if needs.labels else None,
    )
