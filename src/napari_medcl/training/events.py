"""What a run says while it goes on: one event, one line of JSON."""

from __future__ import annotations

import time as clock
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Stage = Literal["pretrain", "finetune"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    time: float = Field(default_factory=clock.time, description="Seconds since 1970.")


class Waiting(_Event):
    """The run waits for its turn on a device."""

    kind: Literal["waiting"] = "waiting"
    ahead: tuple[str, ...] = Field(description="The runs before it, the one that goes on first.")
    message: str


class Resumed(_Event):
    """The run goes on from a saved state; what was said of later steps does not count any more."""

    kind: Literal["resumed"] = "resumed"
    step: int
    message: str


class Preparing(_Event):
    """The data are being read; no step was made yet."""

    kind: Literal["preparing"] = "preparing"
    progress: float = Field(ge=0, le=1)
    message: str


class Started(_Event):
    """The data are read and the first step follows."""

    kind: Literal["started"] = "started"
    run: str
    stage: Stage
    device: str
    precision: str
    steps: int | None
    minutes: float | None
    cases: int
    message: str


class Stepped(_Event):
    """Some steps were made since the last event; `terms` are their mean losses."""

    kind: Literal["stepped"] = "stepped"
    step: int
    progress: float = Field(ge=0, le=1)
    terms: dict[str, float]
    rate: float = Field(description="Learning rate.")
    remaining_s: float


class Evaluated(_Event):
    """The model was measured on the validation cases."""

    kind: Literal["evaluated"] = "evaluated"
    step: int
    dice: dict[str, float] = Field(description="Dice of every class.")
    mean: float
    best: bool


class Saved(_Event):
    """A checkpoint is complete on the disk."""

    kind: Literal["saved"] = "saved"
    step: int
    path: str = Field(description="Relative to the run folder.")
    best: bool


class Previewed(_Event):
    """What the model makes of a case that somebody wants to see is complete on the disk."""

    kind: Literal["previewed"] = "previewed"
    step: int
    case: str
    path: str = Field(description="Relative to the run folder.")


class Noted(_Event):
    """Something that the user should know, and that the run goes on with."""

    kind: Literal["noted"] = "noted"
    step: int
    message: str


class Paused(_Event):
    """The run ended because somebody asked for a pause; it can go on from there."""

    kind: Literal["paused"] = "paused"
    step: int
    message: str


class Finished(_Event):
    """The run ended as it should, or because somebody asked for it."""

    kind: Literal["finished"] = "finished"
    step: int
    reason: Literal["done", "stopped"]
    message: str


class Failed(_Event):
    """The run ended because something was wrong."""

    kind: Literal["failed"] = "failed"
    step: int
    message: str
    hint: str = ""


Event = (
    Waiting
    | Resumed
    | Preparing
    | Started
    | Stepped
    | Evaluated
    | Saved
    | Previewed
    | Noted
    | Paused
    | Finished
    | Failed
)
_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def read_event(line: str | bytes) -> Event:
    """The event that a line of `events.jsonl` holds.

    Raises:
        pydantic.ValidationError: The line is not an event.
    """
    return _adapter.validate_json(line)
