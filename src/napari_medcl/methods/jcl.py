"""JCL, published later as MACL: one encoder in two branches, of which one sees less and also decodes.

Reference: Zeng et al., MACL (IEEE JBHI). Everything here works for 2D and 3D by the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from napari_medcl.data.batch import Needs
from napari_medcl.errors import UserError
from napari_medcl.methods.contrast import contrastive
from napari_medcl.methods.images import ADVANCED, ComparesImages
from napari_medcl.models.heads import InstanceHead, PixelHead
from napari_medcl.models.network import padded

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medcl.data.batch import Batch
    from napari_medcl.models import Network, NetworkSpec


class JCL(ComparesImages):
    """Contrastive pre-training of the encoder together with the first blocks of the decoder (JCL, MACL).

    One branch sees the image in full, the other sees it scaled down by 2^blocks and decodes it to the same grid.
    """

    name: Literal["jcl"] = "jcl"
    dense: float = Field(
        0.5,
        title="Dense weight",
        ge=0,
        description="Weight of the loss between the same pixels of different images; 0 leaves it out.",
    )
    equivariance: float = Field(
        1.0,
        title="Equivariance weight",
        ge=0,
        description="Weight of the loss that asks a smaller image to have a smaller map; 0 leaves it out.",
    )
    blocks: int = Field(
        2,
        title="Decoder blocks",
        ge=0,
        le=4,
        description="Blocks of the decoder that learn too, at most as many as the network has poolings; "
        "one branch sees the image smaller by 2 for each.",
    )
    projection: int = Field(
        128, ge=1, description="Length of the vector that stands for an image.", json_schema_extra=ADVANCED
    )

    @model_validator(mode="after")
    def _some_contrast(self) -> Self:
        if not (self.instance or self.dense):
            raise ValueError(
                "instance and dense are both 0, and maps that are the same everywhere satisfy what is left: "
                "set one above 0."
            )
        return self

    def needs(self, spatial_dims: int) -> Needs:
        """Two fixed views and two free ones; what only left-out terms use is not asked for."""
        return Needs(
            fixed=2 if self.dense or self.equivariance else 0,
            free=2 if self.instance else 0,
            position=self.by_position(spatial_dims),
        )

    def hands_on(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The encoder and the first `blocks` stages of the decoder."""
        if self.blocks > spec.depth:
            raise UserError(
                f"JCL cannot train {self.blocks} decoder blocks of a network with {spec.depth} "
                f"pooling{'s' * (spec.depth > 1)}: set blocks to {spec.depth} or less."
            )
        return spec.encoder_names + spec.decoder_names[: self.blocks]

    def pretraining(self, net: Network) -> nn.Module:
        """From a batch to the terms `instance`, `dense` and `equivariance`, without those whose weight is 0."""
        return _Pretraining(self, net)


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


class _Pretraining(nn.Module):
    def __init__(self, method: JCL, net: Network) -> None:
        super().__init__()
        self.method = method
        self.stages = nn.ModuleDict({name: net.get_submodule(name) for name in method.hands_on(net.spec)})
        self._last = method.hands_on(net.spec)[-1]
        deep, shallow = net.spec.channels("bottleneck"), net.spec.channels(self._last)
        if method.instance:
            self.auxiliary_instance = InstanceHead(deep, shallow, method.projection)
            self.dominant_instance = InstanceHead(shallow, shallow, method.projection)
        if method.dense:
            self.auxiliary_pixel = PixelHead(net.spec.spatial_dims, deep, shallow)
        self._net = (net,)  # in a tuple, not registered: what is left of its decoder is not trained

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        method = self.method
        positives = method.alike(batch, self._net[0].spec.spatial_dims)
        terms: dict[str, Tensor] = {}
        if method.instance:
            auxiliary = self.auxiliary_instance(self._auxiliary(batch.free[0]))
            dominant = self.dominant_instance(self._decoded(self._dominant(batch.free[1]), batch.free[1]))
            instances = torch.stack([auxiliary, dominant], dim=1)
            terms["instance"] = method.instance * contrastive(instances, positives, method.temperature)
        if not (method.dense or method.equivariance):
            return terms
        auxiliary, maps = self._auxiliary(batch.fixed[0]), self._dominant(batch.fixed[1])
        if method.dense:
            pixels = self.auxiliary_pixel(auxiliary), self._decoded(maps, batch.fixed[1])
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
