"""SuperCL: superpixels choose what is alike inside an image and between images.

Reference: Zeng et al., SuperCL (IEEE TIP 2026). Its losses are in `losses.supercl`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from napari_medcl.data.needs import Needs
from napari_medcl.data.superpixels import SuperpixelShape
from napari_medcl.errors import UserError
from napari_medcl.methods.images import ADVANCED, ComparesImages

if TYPE_CHECKING:
    from torch import nn

    from napari_medcl.models import Network, NetworkSpec


class SuperCL(ComparesImages):
    """Superpixels say which pixels of an image are alike, and which images; PCL and SimCLR are settings of it.

    SimCLR: `positives="simclr", intra=0, inter=0`. PCL: `positives="position", intra=0, inter=0`.
    """

    name: Literal["supercl"] = "supercl"
    intra: float = Field(
        1.0,
        title="Intra weight",
        ge=0,
        description="Weight of the loss between pixels of an image, by superpixel; 0 leaves it out.",
    )
    inter: float = Field(
        0.5,
        title="Inter weight",
        ge=0,
        description="Weight of the loss between images alike in superpixels; 0 leaves it out.",
    )
    superpixels: SuperpixelShape = Field(
        default_factory=SuperpixelShape,
        description="How superpixels are made; slices are divided in 2D, volumes in 3D.",
    )
    map: str = Field(
        "bottleneck",
        description="Map whose pixels are compared: bottleneck, or a finer one such as enc4.",
        json_schema_extra=ADVANCED,
    )
    stride: int = Field(
        16, ge=1, description="Every so many pixels of that map are compared.", json_schema_extra=ADVANCED
    )
    asp_normaliser: Literal["grid", "region"] = Field(
        "grid",
        description="A superpixel's sum is divided by the size of the map (grid) or its own size (region).",
        json_schema_extra=ADVANCED,
    )
    projection: int = Field(
        512, ge=1, description="Length of the vector that stands for an image.", json_schema_extra=ADVANCED
    )

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not (self.instance or self.intra or self.inter):
            raise ValueError("instance, intra and inter are all 0, and nothing is learned: set one above 0.")
        return self

    def needs(self, spatial_dims: int) -> Needs:
        """Two fixed views with superpixels, two free ones; what only left-out terms use is not asked for."""
        return Needs(
            fixed=2 if self.regions else 0,
            free=2 if self.instances else 0,
            superpixels=self.superpixels.in_dims(spatial_dims) if self.regions else None,
            position=bool(self.instance) and self.by_position,
        )

    def hands_on(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The encoder, as far down as a loss reaches."""
        names = spec.encoder_names
        if self.map not in names:
            raise UserError(f"SuperCL cannot compare pixels of map '{self.map}': set map to {' or '.join(names)}.")
        deepest = "bottleneck" if self.instances else self.map
        return names[: names.index(deepest) + 1]

    def pretraining(self, net: Network) -> nn.Module:
        """From a batch to the terms `instance`, `intra` and `inter`, without those whose weight is 0."""
        from napari_medcl.methods.losses.supercl import Pretraining

        return Pretraining(self, net)

    @property
    def instances(self) -> bool:
        """Whether whole images are compared."""
        return bool(self.instance or self.inter)

    @property
    def regions(self) -> bool:
        """Whether superpixels have a part in it."""
        return bool(self.intra or self.inter)
