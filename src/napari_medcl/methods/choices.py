"""What one chooses among by name: the methods, and settings of a method that have a name of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, create_model

from napari_medcl.data.superpixels import SuperpixelShape
from napari_medcl.errors import UserError
from napari_medcl.methods import JCL, AnyMethod, Method, SuperCL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

Stage = Literal["pretrain", "finetune"]
_IMAGES = ("temperature", "projection", "head_norm")
"""Settings of SuperCL that are of use without superpixels."""


@dataclass(frozen=True)
class Offer:
    """Something that the method of a run can be.

    Attributes:
        title: As people write it.
        about: What it does, in a line.
        method: The class of its settings; None for no method.
        fixed: Settings that make it what it is.
        asked: Settings that are left open.
    """

    title: str
    about: str
    method: type[Method] | None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    asked: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called on the command line and in files."""
        return self.title.lower()

    @property
    def model(self) -> type[BaseModel]:
        """The settings that are left open, with their types, defaults, bounds and descriptions."""
        known = {} if self.method is None else self.method.model_fields
        fields: Any = {name: (known[name].annotation, known[name]) for name in self.asked}
        return create_model(
            self.title, __config__=ConfigDict(frozen=True, extra="forbid"), __doc__=self.about, **fields
        )

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """The `method` of a configuration; the method's class checks it."""
        return None if self.method is None else {"name": _name(self.method), **self.fixed, **given}


def offers(stage: Stage) -> dict[str, Offer]:
    """What can be chosen for a stage, by name; the first is what is done if nobody chooses."""
    methods = [_whole(method, stage) for method in METHODS if stage == "pretrain" or method.finetunes]
    found = [*methods, *_BASELINES, *_PUBLISHED] if stage == "pretrain" else [_PLAIN, *methods]
    return {offer.name: offer for offer in found}


def chosen(stage: Stage, name: str) -> Offer:
    """What is offered under a name.

    Raises:
        UserError: Nothing is; says why and what there is.
    """
    known = offers(stage)
    if (offer := known.get(name)) is not None:
        return offer
    if (other := offers("pretrain").get(name)) is not None and other.method is not None:
        raise UserError(other.method(name=_name(other.method)).learns_without_masks)
    raise UserError(f"There is no method “{name}” to {stage} with. Choose {', '.join(known)}.")


def titled(stage: Stage, method: Any) -> str:
    """What is offered under the most settings of these; the name where nothing is."""
    if not isinstance(method, dict):
        return ""
    fitting = [
        offer for offer in offers(stage).values() if (own := offer.settings({})) and own.items() <= method.items()
    ]
    best = max(fitting, key=lambda offer: len(offer.fixed), default=None)
    return str(method.get("name", "")) if best is None else best.title


def _whole(method: type[Method], stage: Stage) -> Offer:
    """A method with all of its settings but those of the other stage."""
    return Offer(method.__name__, (method.__doc__ or "").splitlines()[0], method, asked=_open(method, stage))


def _published(method: type[Method], about: str, **fixed: Any) -> Offer:
    """A method with the settings of its paper where MedCL's own differ, and all others open."""
    asked = tuple(name for name in _open(method, "pretrain") if name not in fixed)
    return Offer(f"{method.__name__}-paper", about, method, fixed, asked)


def _open(method: type[Method], stage: Stage) -> tuple[str, ...]:
    return tuple(
        name for name, field in method.model_fields.items() if name != "name" and _stage(field) in (None, stage)
    )


def _stage(field: FieldInfo) -> Any:
    """The only stage that a setting has a part in."""
    return field.json_schema_extra.get("stage") if isinstance(field.json_schema_extra, dict) else None


def _name(method: type[Method]) -> str:
    return str(method.model_fields["name"].default)


def _members(annotation: Any) -> list[type[Method]]:
    """The classes of a class, a union or an annotated union."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Method) else []
    return [found for inner in get_args(annotation) for found in _members(inner)]


METHODS = _members(AnyMethod)
_PLAIN = Offer("plain", "The masks alone teach: Dice and cross-entropy, nothing beside them.", None)
_BASELINES = (
    Offer(
        "PCL",
        "Slices at near positions in their volumes are alike (baseline, for 2D); SuperCL without superpixels.",
        SuperCL,
        {"positives": "position", "intra": 0.0, "inter": 0.0},
        ("threshold", *_IMAGES),
    ),
    Offer(
        "SimCLR",
        "Only the views of one image are alike (baseline); SuperCL without superpixels and positions.",
        SuperCL,
        {"positives": "simclr", "intra": 0.0, "inter": 0.0},
        _IMAGES,
    ),
)
_PUBLISHED = (
    _published(
        SuperCL,
        "SuperCL with the paper's positives (slices at near positions), head and superpixels, for 2D.",
        positives="position",
        head_norm=False,
        superpixels=SuperpixelShape(compactness=10).model_dump(),
    ),
    _published(
        JCL,
        "JCL with the paper's positives (slices at near positions) and head, for 2D.",
        positives="position",
        head_norm=False,
    ),
)
