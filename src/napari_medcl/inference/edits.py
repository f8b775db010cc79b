"""Edits of masks that take no mouse, by name and with their settings: for the viewer, the command line and Python.

The command line offers them at every start, so that what they are made of is loaded when one is made.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class On:
    """What an edit is made on, a volume or a slice of it.

    Attributes:
        spacing: Millimetres along the axes of the array.
        voxel_ml: Millilitres of a voxel.
        label: Which label; None for all.
        axis: Which axis counts the slices.
    """

    spacing: Sequence[float]
    voxel_ml: float
    label: int | None = None
    axis: int = 0


class Edit(BaseModel):
    """An edit; only voxels of the label that it is made for, and background, change."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: ClassVar[str]
    whole: ClassVar[bool] = False
    """Whether it needs the volume."""

    @classmethod
    def name(cls) -> str:
        """What it is called on the command line."""
        return cls.title.lower().replace(" ", "-")

    @abstractmethod
    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """The edited mask; the one that is given stays as it is.

        Args:
            labels: (Y, X) or (Z, Y, X).
            on: What it is made on.
        """


class Interpolate(Edit):
    """Fill the slices between those that hold the label, from shape to shape."""

    title: ClassVar[str] = "Interpolate"
    whole: ClassVar[bool] = True

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """Only background is filled."""
        from napari_medcl.inference.interpolate import interpolate

        return interpolate(labels, on.axis, on.spacing, on.label)


class FillHoles(Edit):
    """Fill background that a label encloses."""

    title: ClassVar[str] = "Fill holes"

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """What is open to the outside stays."""
        from napari_medcl.inference.correct import fill_holes

        return fill_holes(labels, on.label)


class KeepLargest(Edit):
    """Keep the largest connected piece of a label only."""

    title: ClassVar[str] = "Keep largest"

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """The others become background."""
        from napari_medcl.inference.correct import keep_largest

        return keep_largest(labels, on.label)


class RemoveIslands(Edit):
    """Remove pieces of a label below a volume."""

    title: ClassVar[str] = "Remove islands"
    below: float = Field(0.1, gt=0, description="Pieces smaller than this go.", json_schema_extra={"unit": "ml"})

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """They become background."""
        from napari_medcl.inference.correct import remove_islands

        return remove_islands(labels, self.below, on.voxel_ml, on.label)


class Smooth(Edit):
    """Smooth the border of a label."""

    title: ClassVar[str] = "Smooth"
    radius: float = Field(
        1.0, gt=0, le=50, description="Standard deviation of the Gaussian filter.", json_schema_extra={"unit": "mm"}
    )

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """Borders to other labels stay closed."""
        from napari_medcl.inference.correct import smooth

        return smooth(labels, self.radius, on.spacing, on.label)


class Grow(Edit):
    """Grow a label on all sides; shrink it where the distance is negative."""

    title: ClassVar[str] = "Grow"
    distance: float = Field(
        1.0, ge=-100, le=100, description="How far; below 0 it shrinks.", json_schema_extra={"unit": "mm"}
    )

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """It stops at other labels."""
        from napari_medcl.inference.correct import grow

        return grow(labels, self.distance, on.spacing, on.label)


class Swap(Edit):
    """Give two labels each other's voxels."""

    title: ClassVar[str] = "Swap"
    one: PositiveInt = Field(1, description="The one label.")
    other: PositiveInt = Field(2, description="The other label.")

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """The label that is chosen does not matter."""
        from napari_medcl.inference.correct import swap

        return swap(labels, self.one, self.other)


class Merge(Edit):
    """Give one label the voxels of others."""

    title: ClassVar[str] = "Merge"
    others: tuple[int, ...] = Field((2,), min_length=1, description="The labels that are merged, such as 2,3.")
    into: PositiveInt = Field(1, description="The label that they become.")

    def __call__(self, labels: NDArray[Any], on: On) -> NDArray[Any]:
        """The label that is chosen does not matter."""
        from napari_medcl.inference.correct import merge

        return merge(labels, self.others, self.into)


EDITS: dict[str, type[Edit]] = {
    kind.name(): kind for kind in (Interpolate, FillHoles, KeepLargest, RemoveIslands, Smooth, Grow, Swap, Merge)
}
"""All edits by name."""
