"""What a run is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_medcl.methods import JCL, AnyMethod, Method

if TYPE_CHECKING:
    from pydantic.config import JsonDict

_ADVANCED: JsonDict = {"advanced": True}


class Shared(BaseModel):
    """What every use of a data folder asks for. Fields that are None are chosen from the data and the device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(title="Folder", description="Folder with the scans (see the README for the layouts).")
    split: Path | None = Field(
        None,
        title="Split file",
        description="JSON file with the case names of train, val and test; without it val and test split the patients.",
    )
    groups: str | None = Field(
        None,
        title="Patients",
        description="What makes two scans one patient: a regular expression whose group is the patient, such as "
        "(patient\\d+), or a CSV or JSON file of case and patient. Without it every case is a patient.",
    )
    val: float = Field(
        0.2, title="Validation", ge=0, lt=1, description="Fraction of the patients that chooses the best model."
    )
    test: float = Field(0.0, title="Test", ge=0, lt=1, description="Fraction of the patients that training never sees.")
    channel: int | None = Field(
        None,
        ge=0,
        description="Which channel or time point of 4D scans to use, from 0; without it all are channels.",
        json_schema_extra=_ADVANCED,
    )
    dims: Literal["auto", "2d", "3d"] = Field(
        "auto",
        title="Dimensions",
        description="Learn from slices (2d) or from volumes (3d); auto goes by the scans' spacing.",
    )
    patch: tuple[int, ...] | None = Field(
        None,
        description="Size of a training crop in voxels, slowest axis first, such as 64,64,64.",
        json_schema_extra=_ADVANCED,
    )
    network: Literal["auto", "unet", "attention"] = Field(
        "auto",
        description="Architecture: the papers' U-Net (unet), or MONAI's attention U-Net (attention); auto is that of "
        "the start, else unet.",
        json_schema_extra=_ADVANCED,
    )
    width: int | None = Field(
        None,
        ge=2,
        le=256,
        description="Channels of the network's first level (published: 32).",
        json_schema_extra=_ADVANCED,
    )
    depth: int | None = Field(
        None, ge=1, le=5, description="Poolings of the network (published: 4).", json_schema_extra=_ADVANCED
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to compute.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the network's products; auto is the fastest that is safe.",
        json_schema_extra=_ADVANCED,
    )

    @field_validator("folder", "split", "start", check_fields=False)
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """A run is watched and repeated from other folders than the one it was started in."""
        return None if path is None else path.expanduser().absolute()

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, by name."""
        return self.model_dump(mode="json")


class _Config(Shared):
    """What both stages ask for."""

    batch: int | None = Field(None, ge=1, description="Crops in a step.", json_schema_extra=_ADVANCED)
    steps: int | None = Field(
        None, ge=1, description="Gradient steps; without them as many as fit into the time limit, or the default."
    )
    minutes: float | None = Field(
        None,
        title="Time limit",
        gt=0,
        json_schema_extra={"unit": "min"},
        description="Ends after this time, with the schedule fitted to it.",
    )
    seed: int = Field(
        0,
        ge=0,
        description="The same seed on the same machine gives the same run.",
        json_schema_extra=_ADVANCED,
    )
    tensorboard: bool = Field(
        False,
        title="TensorBoard",
        description="Also write losses and scores to the folder tensorboard of the run; needs "
        'pip install "medcl[tensorboard]".',
        json_schema_extra=_ADVANCED,
    )

    profile: bool = Field(
        False,
        title="Profile",
        description="At the end, say where the time of the steps went: waiting, views, network, losses.",
        json_schema_extra=_ADVANCED,
    )

    default_steps: ClassVar[int] = 1000

    @property
    def total_steps(self) -> int | None:
        """Steps that end the run; None where only time does."""
        return self.steps or (None if self.minutes else self.default_steps)


class PretrainConfig(_Config):
    """Pre-training: learns from scans without masks."""

    method: AnyMethod = Field(default_factory=JCL, description="How to learn without masks.")
    rate: float = Field(
        0.01,
        title="Learning rate",
        gt=0,
        description="Highest learning rate (paper: 0.1, released scripts: 0.01).",
        json_schema_extra=_ADVANCED,
    )
    changes: float = Field(
        3.0,
        title="Intensity changes",
        ge=0,
        le=5,
        description="How far the intensities of the views of an image differ, each channel's for itself. "
        "At 1, which is mild, brightness or colour alone tells images apart.",
        json_schema_extra=_ADVANCED,
    )


class FinetuneConfig(_Config):
    """Fine-tuning: learns from scans with masks, from scratch or from a pre-training run."""

    default_steps: ClassVar[int] = 2000

    start: Path | None = Field(
        None, title="Start from", description="Run folder or model file to start from; without it from scratch."
    )
    method: AnyMethod | None = Field(
        None,
        description="What teaches beside the masks' Dice and cross-entropy, such as PDCR; without it nothing.",
    )
    labelled: int | None = Field(
        None,
        title="Labelled cases",
        ge=1,
        description="Use the masks of so many training cases only, of as many patients as possible.",
    )
    labelled_by: Literal["case", "patient"] = Field(
        "case",
        title="Labelled counts",
        description="What the number of labelled cases counts: cases, or patients with all of their cases.",
        json_schema_extra=_ADVANCED,
    )
    annotated: Literal["all", "nonempty"] = Field(
        "all",
        title="Annotated slices",
        description="Which slices of a mask were annotated: all, or only those with any label. "
        "The others are ignored, not taken for background. The value 255 in a mask is always ignored.",
    )
    uafs: bool = Field(
        False,
        title="UAFS blocks",
        description="Put UAFS blocks into the network: they turn up what a map is sure of, and their uncertainty can "
        "be shown.",
    )
    uafs_maps: tuple[str, ...] | None = Field(
        None,
        title="Maps for UAFS",
        description="Maps with a UAFS block behind them, such as bottleneck,dec1; without them the bottleneck and "
        "every map of the decoder.",
        json_schema_extra=_ADVANCED,
    )
    mirror: bool = Field(
        False,
        description="Also train on mirrored scans; leave off where left and right have labels of their own.",
    )
    rotation: float | None = Field(
        None,
        ge=0,
        le=180,
        description="How far crops are turned at most; without it 20 degrees in volumes, and in slices 30, but half of "
        "them by any angle. Where slices lie alike in all scans, as abdomens do, 30 is better.",
        json_schema_extra={"unit": "°"},
    )
    rate: float = Field(
        0.001, title="Learning rate", gt=0, description="Highest learning rate.", json_schema_extra=_ADVANCED
    )
    evaluations: int = Field(
        10,
        ge=1,
        description="How often the model is measured on the validation cases.",
        json_schema_extra=_ADVANCED,
    )

    @field_validator("method")
    @classmethod
    def _finetunes(cls, method: Method | None) -> Method | None:
        if method is not None and not method.finetunes:
            raise ValueError(method.learns_without_masks)
        return method

    @model_validator(mode="after")
    def _blocks_where_maps_are_named(self) -> Self:
        if self.uafs and self.uafs_maps == ():
            raise ValueError("uafs_maps names no map: leave it out for the usual ones, or uafs off.")
        if self.uafs_maps and not self.uafs:
            raise ValueError("uafs_maps says where UAFS blocks sit, but uafs is off: set it, or leave out uafs_maps.")
        return self
