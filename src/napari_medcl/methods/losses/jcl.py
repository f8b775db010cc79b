"""The losses of JCL: between images, between the same pixels of them, and between a map and a smaller one.

Everything here works for 2D and 3D by the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from napari_medcl.methods.losses.contrast import alike, contrastive
from napari_medcl.models.heads import InstanceHead, PixelHead
from napari_medcl.models.network import padded
from napari_medcl.models.together import gathered

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medcl.data.batch import Batch
    from napari_medcl.methods.jcl import JCL
    from napari_medcl.models import Network


def dense(auxiliary: Tensor, dominant: Tensor, positives: Tensor, temperature: float = 0.1) -> Tensor:
    """The dense loss: images are compared at every position of their maps.

        L_d = mean over the positions s of contrastive(auxiliary[:, :, s], dominant[:, :, s])

    All positions are one batched product.

    Args:
        auxiliary: Pixel projections (B, C, *S) of the branch without a decoder.
        dominant: Those of the branch with one, (B, C, *S).
        positives: (2B, 2B) bool, the same at all positions (see `contrastive`).
        temperature: τ.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: The shapes differ.
    """
    _same_shape(auxiliary, dominant)
    pixels = [branch.flatten(2).permute(2, 0, 1) for branch in (auxiliary, dominant)]
    return contrastive(torch.stack(pixels, dim=1).transpose(1, 2), positives, temperature).mean()


def equivariance(auxiliary: Tensor, dominant: Tensor, blocks: int = 2) -> Tensor:
    """The equivariant term: the map of a smaller image is the smaller map of the image.

        L_ER = mean |Y − down_λ(Ỹ)|,   λ = 1 / 2^blocks

    Args:
        auxiliary: Bottleneck Ỹ (B, C, *S) of the image in full.
        dominant: Bottleneck Y (B, C, *⌈S / 2^blocks⌉) of the image scaled by λ.
        blocks: Blocks of the decoder between the two.

    Returns:
        The loss, a scalar in single precision at least.

    Raises:
        ValueError: The maps do not lie on the same place.
    """
    expected = smaller(auxiliary.to(torch.promote_types(auxiliary.dtype, torch.float32)), blocks)
    _same_shape(expected, dominant)
    return functional.l1_loss(dominant.to(expected.dtype), expected)


def smaller(image: Tensor, blocks: int) -> Tensor:
    """An image or a map scaled by λ = 1 / 2^blocks, linearly, its corners on its corners.

    Args:
        image: (B, C, *S) floating point; padded at its far edges where 2^blocks does not divide a size.
        blocks: Halvings.

    Returns:
        (B, C, *⌈S / 2^blocks⌉).
    """
    if not blocks:
        return image
    image = padded(image, 2**blocks)
    size = [length // 2**blocks for length in image.shape[2:]]
    return functional.interpolate(image, size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=True)


class Pretraining(nn.Module):
    """The stages of both branches, and the heads behind them."""

    def __init__(self, method: JCL, net: Network) -> None:
        super().__init__()
        self.method = method
        self.stages = nn.ModuleDict({name: net.get_submodule(name) for name in method.hands_on(net.spec)})
        self._last = method.hands_on(net.spec)[-1]
        deep, shallow = net.spec.channels("bottleneck"), net.spec.channels(self._last)
        if method.instance:
            self.auxiliary_instance = InstanceHead(deep, shallow, method.projection, norm=method.head_norm)
            self.dominant_instance = InstanceHead(shallow, shallow, method.projection, norm=method.head_norm)
        if method.dense:
            self.auxiliary_pixel = PixelHead(net.spec.spatial_dims, deep, shallow)
        self._net = (net,)  # in a tuple, not registered: what is left of its decoder is not trained

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms by name."""
        method = self.method
        positives = alike(method, batch)
        terms: dict[str, Tensor] = {}
        if method.instance:
            auxiliary = self.auxiliary_instance(self._auxiliary(batch.free[0]))
            dominant = self.dominant_instance(self._decoded(self._dominant(batch.free[1]), batch.free[1]))
            instances = gathered(torch.stack([auxiliary, dominant], dim=1))
            terms["instance"] = method.instance * contrastive(instances, positives, method.temperature)
        if not (method.dense or method.equivariance):
            return terms
        auxiliary, maps = self._auxiliary(batch.fixed[0]), self._dominant(batch.fixed[1])
        if method.dense:
            pixels = gathered(self.auxiliary_pixel(auxiliary)), gathered(self._decoded(maps, batch.fixed[1]))
            terms["dense"] = method.dense * dense(*pixels, positives, method.temperature)
        if method.equivariance:
            loss = equivariance(auxiliary, maps["bottleneck"], method.blocks)
            terms["equivariance"] = method.equivariance * loss
        return terms

    def _auxiliary(self, image: Tensor) -> Tensor:
        return self._net[0].encode(image)["bottleneck"]

    def _dominant(self, image: Tensor) -> dict[str, Tensor]:
        """The encoder's maps of the smaller image; padded before it is scaled, so that both branches see one field."""
        net = self._net[0]
        return net.encode(smaller(padded(image, 2**net.spec.depth), self.method.blocks))

    def _decoded(self, maps: dict[str, Tensor], image: Tensor) -> Tensor:
        """The decoder's map, without what stands for padding of the smaller image: on the grid of the other branch."""
        net = self._net[0]
        found = net.decode(maps, to=self._last)[self._last] if self.method.blocks else maps["bottleneck"]
        crop = (slice(0, -(-length // 2**net.spec.depth)) for length in image.shape[2:])
        return found[(slice(None), slice(None), *crop)]


def _same_shape(ours: Tensor, other: Tensor) -> None:
    if ours.shape != other.shape:
        raise ValueError(f"The maps of the two branches differ in shape: {tuple(ours.shape)}, {tuple(other.shape)}.")
