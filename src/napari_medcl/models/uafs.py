"""UAFS: a block that turns up what a map is sure of.

Reference: PDCR and UAFS (IEEE TMI 2022, where the block is called UAFR).
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_medcl.models.layers import BATCH_NORM, CONV

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medcl.models.network import Network, NetworkSpec

_HIDDEN = 16
_DROPOUT = 0.1


class UAFS(nn.Module):
    """Weights every pixel of a map by how sure the map is of its class.

    K-class logits from conv3 C→16 without bias → batch norm → ReLU → dropout 0.1 → conv1 16→K give p, and

        H = −Σ p log p / log K,   output = x·(1 + (1 − H))

    Args:
        spec: Of the network; says K and the dimensions.
        channels: C, channels of the map.
    """

    def __init__(self, spec: NetworkSpec, channels: int) -> None:
        super().__init__()
        conv = CONV[spec.spatial_dims]
        self.logits = nn.Sequential(
            conv(channels, _HIDDEN, 3, padding=1, bias=False),
            BATCH_NORM[spec.spatial_dims](_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(_DROPOUT),
            conv(_HIDDEN, spec.classes, 1),
        )

    def uncertainty(self, x: Tensor) -> Tensor:
        """H (B, 1, *S) of a map (B, C, *S): from 0 (sure) to 1 (every class equally probable)."""
        return entropy(self.logits(x))

    def forward(self, x: Tensor) -> Tensor:
        """The map (B, C, *S), every pixel times 1 (every class equally probable) to 2 (sure)."""
        return x * (1 + (1 - self.uncertainty(x))).to(x.dtype)


def entropy(logits: Tensor) -> Tensor:
    """H = −Σ p log p / log K, (B, 1, *S), of logits (B, K, *S), in single precision at least."""
    with torch.autocast(logits.device.type, enabled=False):
        logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
        return -(logs.exp() * logs).sum(1, keepdim=True) / math.log(logits.shape[1])


def uncertainties(net: Network, image: Tensor) -> dict[str, Tensor]:
    """What the UAFS blocks of a network see in an image.

    Args:
        net: Any network; one without blocks gives an empty dict.
        image: (B, C, *S).

    Returns:
        H (B, 1, *padded S / stride) by the name of the map that a block is behind.
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in net.spec.uafs:
            logits = net.get_submodule(f"blocks.{name}.logits")
            hooks.enter_context(
                logits.register_forward_hook(lambda *call, name=name: found.update({name: entropy(call[-1])}))
            )
        net.decode(net.encode(image))
    return found
