"""What a benchmark compares."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from napari_medcl.training.config import Shared

SCRATCH = "scratch"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ADVANCED: dict[str, Any] = {"advanced": True}
ADDITIONS: dict[str, dict[str, Any]] = {"pdcr": {"method": {"name": "pdcr"}}, "uafs": {"uafs": True}}
"""Settings of fine-tuning that have a name."""
_COMMON = {
    *("folder", "split", "groups", "val", "test", "channel"),
    *("steps", "minutes", "start", "labelled", "labelled_by"),
}
"""What is the same in all runs, or what they differ in, and so stands nowhere else."""


class BenchmarkConfig(Shared):
    """A benchmark: every method with every number of labelled patients and every seed, one run each.

    A method is written START, or START+ADDITION+...: a start is `scratch` or a pre-training, an addition changes the
    fine-tuning. `scratch+pdcr+uafs` is PDCR with UAFS as published, `supercl+pdcr` fine-tunes with PDCR from SuperCL.
    """

    test: float = Field(0.2, title="Test", gt=0, lt=1, description="Fraction of the patients that judge the models.")
    labelled: tuple[PositiveInt | Literal["all"], ...] = Field(
        (1, 2, 4, "all"),
        title="Labelled patients",
        min_length=1,
        description="How many training patients are labelled, such as 1,2,4,all.",
    )
    count: Literal["patients", "cases"] = Field(
        "patients", title="Labelled counts", description="What these numbers count: patients, or single cases."
    )
    methods: tuple[str, ...] = Field(
        (SCRATCH, "supercl", "jcl", "scratch+pdcr+uafs"),
        min_length=1,
        description="What is compared: scratch, or a pre-training (supercl, jcl, pdcr, pcl, simclr), each with +pdcr "
        "or +uafs where fine-tuning has PDCR or UAFS blocks.",
    )
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0, 1, 2),
        min_length=1,
        description="One run for each: it chooses the labelled patients, and the numbers that a run draws.",
    )
    pretrain_steps: int = Field(1000, ge=1, description="Gradient steps of each pre-training.")
    steps: int = Field(1000, ge=1, description="Gradient steps of each fine-tuning.")
    pretrain: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of every pre-training, as in a run's config.json.",
        json_schema_extra=_ADVANCED,
    )
    finetune: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of every fine-tuning, as in a run's config.json.",
        json_schema_extra=_ADVANCED,
    )
    starts: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Pre-trainings of your own by name, each with the settings in which it differs.",
        json_schema_extra=_ADVANCED,
    )
    additions: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Changes of the fine-tuning of your own by name, each with the settings in which it differs.",
        json_schema_extra=_ADVANCED,
    )

    @field_validator("labelled", "methods", "seeds")
    @classmethod
    def _once(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(given)) < len(given):
            raise ValueError("something stands there twice: name each once.")
        return given

    @model_validator(mode="after")
    def _nothing_common(self) -> Self:
        own = {"pretrain": self.pretrain, "finetune": self.finetune, **self.starts, **self.additions}
        for name, settings in own.items():
            common = _COMMON - {"steps"} if name in self.starts else _COMMON
            if wrong := common & settings.keys():
                raise ValueError(f"“{min(wrong)}” in {name} is for the benchmark to set: leave it out there.")
        return self

    @field_validator("starts", "additions")
    @classmethod
    def _nameable(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The names become those of folders."""
        if wrong := [name for name in given if not _NAME.fullmatch(name) or name == SCRATCH]:
            raise ValueError(f"“{wrong[0]}” cannot be a name: use letters, digits, and -, _ or . behind the first.")
        return given
