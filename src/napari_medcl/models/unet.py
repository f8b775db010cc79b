"""The U-Net of the papers, in 2D and 3D."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from napari_medcl.models.layers import BATCH_NORM, CONV, POOL, UP
from napari_medcl.models.network import Network, NetworkSpec

if TYPE_CHECKING:
    from torch import Tensor

_SLOPE = 0.01


class UNet(Network):
    """The published U-Net.

    Level ℓ: two × (conv3 → batch norm → leaky ReLU 0.01), width `width·2^(ℓ-1)`, max-pool 2 between levels.
    Bottleneck: two × (conv3 → ReLU). Decoder block: transposed conv 2, the skip behind it, two × (conv3 →
    batch norm → leaky ReLU). Head: conv1 without bias. Kaiming-normal weights, zero biases.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        inputs = spec.in_channels
        for name in spec.encoder_names:
            build = _plain_stage if name == "bottleneck" else _norm_stage
            self.add_module(name, build(spec, inputs, spec.channels(name)))
            inputs = spec.channels(name)
        for name in spec.decoder_names:
            self.add_module(name, _DecoderStage(spec, inputs, spec.channels(name)))
            inputs = spec.channels(name)
        self.pool = POOL[spec.spatial_dims](2)
        self.head = CONV[spec.spatial_dims](inputs, spec.classes, 1, bias=False)
        self.apply(_initialise)


def _norm_stage(spec: NetworkSpec, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        conv = CONV[spec.spatial_dims](channels, outputs, 3, padding=1)
        layers += [conv, BATCH_NORM[spec.spatial_dims](outputs), nn.LeakyReLU(_SLOPE, inplace=True)]
    return nn.Sequential(*layers)


def _plain_stage(spec: NetworkSpec, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [CONV[spec.spatial_dims](channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class _DecoderStage(nn.Module):
    def __init__(self, spec: NetworkSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = UP[spec.spatial_dims](inputs, outputs, 2, stride=2)
        self.convs = _norm_stage(spec, 2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return cast("Tensor", self.convs(torch.cat([self.up(x), skip], dim=1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
