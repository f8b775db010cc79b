"""Settings as options of a command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from napari_medcl.errors import UserError, explain
from napari_medcl.methods.choices import offers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo

_MORE = Group("More settings", sort_key=3)
_Settings = TypeVar("_Settings", bound=BaseModel)


def options(fields: Mapping[str, FieldInfo], group: Group | None = None, **more: Any) -> type[BaseModel]:
    """What can be typed, one option a setting.

    Args:
        fields: The settings.
        group: Where the help shows them; without it the advanced ones stand apart from the others.
        more: Further fields, as pydantic's `create_model` takes them.
    """
    made: dict[str, Any] = {name: _option(field, group) for name, field in fields.items()}
    return create_model("Options", __config__=ConfigDict(frozen=True, extra="forbid"), **made, **more)


def _option(field: FieldInfo, group: Group | None) -> tuple[Any, FieldInfo]:
    """A field as cyclopts takes it; several values may be typed with commas or spaces between."""
    unit = _extra(field, "unit")
    told = (field.description or "") + (f" In {unit}." if unit else "")
    kind: Any = Annotated[field.annotation, Parameter(help=told)]
    if group is None and _extra(field, "advanced"):
        group = _MORE
    if group is not None:
        kind = Annotated[kind, Parameter(group=group)]
    if any(get_origin(member) is tuple for member in (field.annotation, *get_args(field.annotation))):
        kind = Annotated[kind, BeforeValidator(_split), Parameter(negative=())]
    return kind, field


def _split(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
        return tuple(part for word in value for part in word.split(",") if part)
    return value


def _extra(field: FieldInfo, key: str) -> Any:
    return field.json_schema_extra.get(key) if isinstance(field.json_schema_extra, dict) else None


def checked(kind: type[_Settings], given: dict[str, Any]) -> _Settings:
    """The settings.

    Raises:
        UserError: One is wrong; it is named as the option that it is on the command line.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise UserError(explain(error, option)) from error


def option(place: tuple[str, ...]) -> str:
    """What a setting is called on the command line; the method's name stands in the place only to tell unions apart."""
    return "--" + ".".join(part.replace("_", "-") for part in place if part not in offers("pretrain"))


def typed_option(tokens: Sequence[str], name: str) -> str | None:
    """The value of an option, typed as `--option value` or `--option=value`; the last one counts."""
    found = None
    for token, after in itertools.zip_longest(tokens, tokens[1:]):
        typed, equals, value = token.partition("=")
        if typed == name:
            found = value if equals else after
    return found


def settings_file(tokens: Sequence[str]) -> dict[str, Any]:
    """The settings in the file behind `--config`; none without it.

    Raises:
        UserError: It cannot be read.
    """
    if (source := typed_option(tokens, "--config")) is None:
        return {}
    try:
        found = json.loads(Path(source).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The settings file {source} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise UserError(f"The settings file {source} holds no settings by name, as the config.json of a run does.")
    return {name: value for name, value in found.items() if name != "stage" and value is not None}
