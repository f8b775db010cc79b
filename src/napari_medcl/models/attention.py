"""MONAI's attention U-Net with named maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from monai.networks.nets.attentionunet import AttentionUnet
from torch import nn

from napari_medcl.models.layers import mend_convolutions
from napari_medcl.models.network import Network, NetworkSpec

if TYPE_CHECKING:
    from torch import Tensor


class AttentionUNet(Network):
    """MONAI's `AttentionUnet`, its stages under the names of the maps they compute.

    Every level: two × (conv3 → batch norm → ReLU), the first with stride 2 from the second level on. Decoder stage:
    transposed conv, attention gates on the skip, one conv to merge them. The layers, their norms and their
    initialisation are MONAI's.

    Reference: Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas (MIDL 2018).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        theirs = AttentionUnet(
            spatial_dims=spec.spatial_dims,
            in_channels=spec.in_channels,
            out_channels=spec.classes,
            channels=[spec.channels(name) for name in spec.encoder_names],
            strides=[2] * spec.depth,
        )
        stage, level, self.head = theirs.model
        layers = []
        for name in spec.encoder_names[:-1]:
            self.add_module(name, stage)
            layers.append(level)
            if name != f"enc{spec.depth}":
                stage, level = level.submodule
        self.add_module("bottleneck", level.submodule)
        for name, layer in zip(spec.decoder_names, reversed(layers), strict=True):
            self.add_module(name, _DecoderStage(layer))
        self.pool = nn.Identity()
        mend_convolutions(self)

    def middle(self, name: str) -> float:
        """At the first one's: where pooling takes blocks, strides take every second pixel with its neighbours."""
        return 0.0


class _DecoderStage(nn.Module):
    """One of MONAI's attention layers without what lies below it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.upconv, self.attention, self.merge = layer.upconv, layer.attention, layer.merge

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = self.upconv(x)
        return cast("Tensor", self.merge(torch.cat([self.attention(g=up, x=skip), up], dim=1)))
