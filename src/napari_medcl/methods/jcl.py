"""JCL, published later as MACL: one encoder in two branches, of which one sees less and also decodes.

Reference: Zeng et al., MACL (IEEE JBHI). Its losses are in `losses.jcl`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from napari_medcl.data.needs import Needs
from napari_medcl.errors import UserError
from napari_medcl.methods.images import ADVANCED, ComparesImages

if TYPE_CHECKING:
    from torch import nn

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
            position=self.by_position,
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
        from napari_medcl.methods.losses.jcl import Pretraining

        return Pretraining(self, net)
