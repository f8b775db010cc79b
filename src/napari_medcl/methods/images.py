"""What methods that compare whole images have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from napari_medcl.methods.method import Method

if TYPE_CHECKING:
    from pydantic.config import JsonDict

ADVANCED: JsonDict = {"advanced": True}


class ComparesImages(Method):
    """A method with a loss between images, of which some are taken for alike without a look at them."""

    instance: float = Field(
        1.0, title="Instance weight", ge=0, description="Weight of the loss between images; 0 leaves it out."
    )
    positives: Literal["auto", "position", "simclr"] = Field(
        "auto",
        description="Which images are taken for alike: those near each other in their volumes (position), only the "
        "views of one image (simclr), or position in 2D and simclr in 3D (auto).",
    )
    threshold: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Slices nearer than this fraction of the volume are alike.",
        json_schema_extra=ADVANCED,
    )
    temperature: float = Field(
        0.1, gt=0, description="Lower looks harder at what is most alike.", json_schema_extra=ADVANCED
    )
    head_norm: bool = Field(
        False,
        title="Batch norm in the head",
        description="Whether a batch norm stands in the head behind which images are compared; the loss between images "
        "falls at once then.",
        json_schema_extra=ADVANCED,
    )

    def by_position(self, spatial_dims: int) -> bool:
        """A patch of a volume spans many slices, so that its position says little: alone where asked for."""
        return self.positives == "position" or (self.positives == "auto" and spatial_dims == 2)
