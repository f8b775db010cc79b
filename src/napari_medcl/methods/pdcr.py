"""PDCR: patches are as alike as the classes that they are made of.

Reference: PDCR and UAFS (IEEE TMI 2022). Its losses are in `losses.pdcr`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from napari_medcl.data.needs import Needs
from napari_medcl.data.superpixels import SuperpixelShape
from napari_medcl.errors import UserError
from napari_medcl.methods.grid import receptive_field, regular_grid
from napari_medcl.methods.method import Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.config import JsonDict
    from torch import nn

    from napari_medcl.methods.losses.pdcr import Comparison
    from napari_medcl.models import Network, NetworkSpec

_ADVANCED: JsonDict = {"advanced": True}


class PDCR(Method):
    """Patches of like classes become alike; pre-training by superpixels is MedCL's own addition, not the paper's.

    In fine-tuning, as published, the classes are those of the masks. In pre-training an image's own superpixels stand
    in their place.
    """

    finetunes: ClassVar[bool] = True

    name: Literal["pdcr"] = "pdcr"
    encoder: float = Field(
        0.1,
        title="Encoder weight",
        ge=0,
        description="Weight of the loss inside each map of the encoder; 0 leaves it out.",
    )
    decoder: float = Field(
        0.01,
        title="Decoder weight",
        ge=0,
        description="Weight of the loss inside each map of the decoder; 0 leaves it out.",
    )
    across: float = Field(
        0.01, title="Across weight", ge=0, description="Weight of the loss between the pair of maps; 0 leaves it out."
    )
    windows: tuple[int, ...] | None = Field(
        None,
        description="Side of a patch; with several, such as 5,7,9, the loss is their mean. Without it a patch is what "
        "a pixel of the map sees (its receptive field).",
        json_schema_extra={"unit": "voxels"},
    )
    maps: tuple[str, ...] | None = Field(
        None,
        description="Maps whose patches are compared; without it levels 2 and 3 of the encoder and the last but one "
        "of the decoder.",
        json_schema_extra=_ADVANCED,
    )
    pair: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Two maps whose patches are compared with each other; without it levels 2 and 3 of the encoder.",
        json_schema_extra=_ADVANCED,
    )
    embeddings: tuple[int, ...] = Field(
        (128, 64, 32, 8),
        min_length=1,
        description="Most patches of a map, by its level; the last number holds for all deeper ones.",
        json_schema_extra=_ADVANCED,
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Lower looks harder at what is most alike; without it 0.5 in 3D, 1 in 2D.",
        json_schema_extra=_ADVANCED,
    )
    superpixels: SuperpixelShape = Field(
        default_factory=SuperpixelShape,
        description="Pre-training only: how superpixels are made; slices are divided in 2D, volumes in 3D.",
        json_schema_extra={"stage": "pretrain"},
    )

    @field_validator("windows", "embeddings")
    @classmethod
    def _positive(cls, numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if numbers is not None and (not numbers or min(numbers) < 1):
            raise ValueError("give one number or more, each at least 1.")
        return numbers

    @field_validator("maps", "pair")
    @classmethod
    def _different(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError("a map is named twice: name different ones.")
        return names

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not (self.encoder or self.decoder or self.across):
            raise ValueError("encoder, decoder and across are all 0, and nothing is learned: set one above 0.")
        return self

    def needs(self, spatial_dims: int) -> Needs:
        """In pre-training one fixed view with superpixels."""
        return Needs(fixed=1, superpixels=self.superpixels.in_dims(spatial_dims))

    def hands_on(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The stages on the way to the last map that is read."""
        names = spec.map_names
        return names[: names.index(self.maps_read(spec)[-1]) + 1]

    def maps_read(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The maps that a weight above 0 compares, in the order they are computed."""
        read = {*self.weights(spec), *self.bridged(spec)}
        for name in read:
            spec.stride(name)
        if not read:
            raise UserError(
                f"PDCR compares nothing in a network with the maps {', '.join(spec.map_names)}: "
                "set maps to some of them whose weight, encoder or decoder, is above 0."
            )
        return tuple(name for name in spec.map_names if name in read)

    def weights(self, spec: NetworkSpec) -> dict[str, float]:
        """The maps in which patches are compared, and the weight of each."""
        maps = spec.encoder_names[1:3] + spec.decoder_names[-2:-1] if self.maps is None else self.maps
        weights = {name: self.decoder if name.startswith("dec") else self.encoder for name in maps}
        return {name: weight for name, weight in weights.items() if weight}

    def bridged(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The two maps that are compared with each other, or none."""
        pair = spec.encoder_names[1:3] if self.pair is None else self.pair
        return pair if self.across and len(pair) == 2 else ()

    def grid(self, spec: NetworkSpec, name: str, size: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The places of a map's embeddings along every axis, over an image of the size S."""
        stride = spec.stride(name)
        most = self.embeddings[min(stride.bit_length(), len(self.embeddings)) - 1]
        return regular_grid([math.ceil(length / stride) for length in size], most)

    def sides(self, spec: NetworkSpec, name: str) -> tuple[int, ...]:
        """The sides, in voxels, of the patches that an embedding of a map stands for, one after the other."""
        return self.windows or (receptive_field(spec, name),)

    def finetuning(self, net: Network) -> Comparison:
        """From maps and labels to a term for each map that is compared, and `across`."""
        from napari_medcl.methods.losses.pdcr import Comparison

        return Comparison(self, net.spec)

    def pretraining(self, net: Network) -> nn.Module:
        """The same terms from a batch, with an image's own superpixels for classes.

        This is MedCL's own extension. The paper has no pre-training. No other loss stands beside the terms here, so
        that their weights are divided by the largest.
        """
        from napari_medcl.methods.losses.pdcr import Pretraining

        return Pretraining(self, net)
