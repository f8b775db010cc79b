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
    positives: Literal["simclr", "position"] = Field(
        "simclr",
        description="Which images are taken for alike: only the views of one image (simclr), or those near each other "
        "in their volumes (position, as published, for slices).",
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
        True,
        title="Batch norm in the head",
        description="Whether a batch norm stands in the head behind which images are compared, with which the loss "
        "between images falls sooner (published: none).",
        json_schema_extra=ADVANCED,
    )

    @property
    def by_position(self) -> bool:
        """Whether images near each other in their volumes are alike."""
        return self.positives == "position"
