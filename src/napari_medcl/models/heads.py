"""Projectors: from a map to the vectors that a loss compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from napari_medcl.models.layers import BATCH_NORM, CONV, VectorNorm

if TYPE_CHECKING:
    from torch import Tensor


class InstanceHead(nn.Module):
    """One vector per image: global average → linear → batch norm, if asked for → ReLU → linear.

    Args:
        channels: Channels of the map it reads.
        hidden: Width between the two linear layers.
        outputs: Length of the vector.
        norm: Whether the batch norm is there. It takes out what all images of the batch have in common, which in a new
            network is nearly everything.
    """

    def __init__(self, channels: int, hidden: int, outputs: int, *, norm: bool = False) -> None:
        super().__init__()
        between = [VectorNorm(hidden)] if norm else []
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), *between, nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Vectors (B, outputs) of a map (B, channels, *S), 2D or 3D."""
        return cast("Tensor", self.layers(feature.flatten(2).mean(-1)))


class PixelHead(nn.Module):
    """One vector per pixel: two × (conv3 → batch norm → leaky ReLU 0.01).

    Args:
        spatial_dims: 2 or 3.
        channels: Channels of the map it reads.
        outputs: Length of the vectors.
    """

    def __init__(self, spatial_dims: int, channels: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels, outputs):
            conv = CONV[spatial_dims](inputs, outputs, 3, padding=1)
            layers += [conv, BATCH_NORM[spatial_dims](outputs), nn.LeakyReLU(0.01, inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, feature: Tensor) -> Tensor:
        """Vectors (B, outputs, *S) of a map (B, channels, *S)."""
        return cast("Tensor", self.layers(feature))
