"""Projectors: from a map to the vectors that a loss compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class InstanceHead(nn.Module):
    """One vector per image: global average → linear → ReLU → linear.

    Args:
        channels: Channels of the map it reads.
        hidden: Width between the two linear layers.
        outputs: Length of the vector.
    """

    def __init__(self, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))

    def forward(self, feature: Tensor) -> Tensor:
        """Vectors (B, outputs) of a map (B, channels, *S), 2D or 3D."""
        return cast("Tensor", self.layers(feature.flatten(2).mean(-1)))
