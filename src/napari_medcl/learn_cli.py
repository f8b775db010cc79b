"""`medcl pretrain` and `medcl finetune`, each with the settings of the method that is asked for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from cyclopts import App, Group, Parameter
from cyclopts.config import Dict
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from rich.console import Console

from napari_medcl.errors import UserError, explain
from napari_medcl.methods.choices import chosen, offers
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.launch import new_folder
from napari_medcl.training.run import Run, default_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic.fields import FieldInfo

    from napari_medcl.methods.choices import Offer
    from napari_medcl.training.events import Stage

_CONFIGS: dict[Stage, type[PretrainConfig | FinetuneConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
_HELP: dict[Stage, str] = {
    "pretrain": "Learn from scans without masks.",
    "finetune": "Learn from scans with masks, from scratch or from a pre-training run.",
}
_NOW = "Start beside other runs on the device; without it the run waits until those before it have ended."
_MORE = Group("More settings", sort_key=3)
console = Console()


def add_commands(app: App, tokens: Sequence[str]) -> None:
    """Adds both commands, with the options of the method that is asked for, and takes the settings file to heart.

    What was typed wins over the file; where it names another method, that of the file and its settings do not count.

    Args:
        app: Where to.
        tokens: What was typed.

    Raises:
        UserError: The file cannot be read, or there is no such method.
    """
    source, typed = _typed(tokens, "--config"), _typed(tokens, "--method")
    file = {} if source is None else _settings(Path(source))
    given = file.pop("method", {})
    own = {"name": given} if isinstance(given, str) else dict(given)
    named = own.pop("name", None)
    stage = next((token for token in tokens if token in _CONFIGS), None)
    for one in _CONFIGS:
        name = (typed or named) if one == stage else None
        offer = chosen(one, name) if name else next(iter(offers(one).values()))
        app.command(_command(one, offer, listed=typed is None), name=one)
    if own and typed in (None, named):
        file["method"] = own
    if file:
        app.config = Dict(file, source=source or "", use_commands_as_keys=False)


def _typed(tokens: Sequence[str], option: str) -> str | None:
    """The value of an option, typed as `--option value` or `--option=value`; the last one counts."""
    found = None
    for token, after in itertools.zip_longest(tokens, tokens[1:]):
        name, equals, value = token.partition("=")
        if name == option:
            found = value if equals else after
    return found


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The settings file {path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise UserError(f"The settings file {path} holds no settings by name, as the config.json of a run does.")
    return {name: value for name, value in found.items() if name != "stage" and value is not None}


def _command(stage: Stage, offer: Offer, *, listed: bool) -> Callable[..., None]:
    """The function behind a command, with the signature and the help that cyclopts reads."""
    config, options, known = _CONFIGS[stage], _options(_CONFIGS[stage], offer), offers(stage)

    unset = options()

    def command(
        folder: Path, *, method: str = offer.name, run: Path | None = None, now: bool = False, options: Any = unset
    ) -> None:
        del method  # the options are those of its settings already
        given = {name: getattr(options, name) for name in type(options).model_fields}
        given["method"] = offer.settings(dict(given.get("method", {})))
        asked = _checked(config, {**given, "folder": folder})
        _begin(asked, run or new_folder(default_root(), stage, asked.folder.name), queue=not now)

    names: Any = Literal[tuple(known)]
    about = {name: config.model_fields[name].description for name in ("folder", "method")}
    command.__annotations__ = {
        "folder": Annotated[Path, Parameter(help=about["folder"])],
        "method": Annotated[names, Parameter(help=about["method"])],
        "run": Annotated[Path | None, Parameter(help="The run folder; without it one is made in the runs folder.")],
        "now": Annotated[bool, Parameter(help=_NOW, negative=())],
        "options": Annotated[options, Parameter(name="*")],
    }
    methods = "".join(f"\n\n- {name}: {one.about}" for name, one in known.items())
    more = f"\n\nMethods, of which `--method NAME --help` shows the settings:{methods}" if listed else ""
    command.__doc__ = _HELP[stage] + more
    return command


def _options(config: type[BaseModel], offer: Offer) -> type[BaseModel]:
    """What can be typed as options: the settings of a stage, and under `method` those that the offer leaves open."""
    fields: dict[str, Any] = {
        name: _option(field, _MORE if _extra(field, "advanced") else None)
        for name, field in config.model_fields.items()
        if name not in ("folder", "method")
    }
    if offer.model.model_fields:
        group = Group(f"Method {offer.title}", help=offer.about, sort_key=2)
        own = _model({name: _option(field, group) for name, field in offer.model.model_fields.items()})
        fields["method"] = (Annotated[own, Parameter(group=group)], Field(default_factory=own))
    return _model(fields)


def _model(fields: dict[str, Any]) -> type[BaseModel]:
    return create_model("Options", __config__=ConfigDict(frozen=True, extra="forbid"), **fields)


def _option(field: FieldInfo, group: Group | None = None) -> tuple[Any, FieldInfo]:
    """A field as cyclopts takes it; several values may be typed with commas or spaces between."""
    unit = _extra(field, "unit")
    told = (field.description or "") + (f" In {unit}." if unit else "")
    kind: Any = Annotated[field.annotation, Parameter(help=told)]
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


def _checked(config: type[PretrainConfig | FinetuneConfig], given: dict[str, Any]) -> PretrainConfig | FinetuneConfig:
    try:
        return config.model_validate(given)
    except ValidationError as error:
        raise UserError(explain(error, option)) from error


def option(place: tuple[str, ...]) -> str:
    """What a setting is called on the command line; the method's name stands in the place only to tell unions apart."""
    return "--" + ".".join(part.replace("_", "-") for part in place if part not in offers("pretrain"))


def _begin(config: PretrainConfig | FinetuneConfig, folder: Path, *, queue: bool) -> None:
    from napari_medcl.terminal import attend
    from napari_medcl.training.finetune import finetune
    from napari_medcl.training.pretrain import pretrain

    if isinstance(config, PretrainConfig):
        attend(Run(folder), pretrain(config, folder, queue=queue), console)
    else:
        attend(Run(folder), finetune(config, folder, queue=queue), console)
