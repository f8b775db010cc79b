"""`medcl pretrain` and `medcl finetune`, each with the settings of the method that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from cyclopts.config import Dict
from pydantic import Field
from rich.console import Console

from napari_medcl.methods.choices import chosen, offers
from napari_medcl.options import checked, options, typed_option
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.launch import new_folder
from napari_medcl.training.run import Run, default_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel

    from napari_medcl.methods.choices import Offer
    from napari_medcl.training.events import Stage

_CONFIGS: dict[Stage, type[PretrainConfig | FinetuneConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
_HELP: dict[Stage, str] = {
    "pretrain": "Learn from scans without masks.",
    "finetune": "Learn from scans with masks, from scratch or from a pre-training run.",
}
_NOW = "Start beside other runs on the device; without it the run waits until those before it have ended."
console = Console()


def add_commands(app: App, tokens: Sequence[str], file: dict[str, Any]) -> None:
    """Adds both commands, with the options of the method that is asked for, and takes the settings file to heart.

    What was typed wins over the file; where it names another method, that of the file and its settings do not count.

    Args:
        app: Where to.
        tokens: What was typed.
        file: The settings of the file, see `settings_file`.

    Raises:
        UserError: There is no such method.
    """
    typed = typed_option(tokens, "--method")
    file = dict(file)
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
        app.config = Dict(file, use_commands_as_keys=False)


def _command(stage: Stage, offer: Offer, *, listed: bool) -> Callable[..., None]:
    """The function behind a command, with the signature and the help that cyclopts reads."""
    config, kind, known = _CONFIGS[stage], _options(_CONFIGS[stage], offer), offers(stage)

    unset = kind()

    def command(
        folder: Path, *, method: str = offer.name, run: Path | None = None, now: bool = False, typed: Any = unset
    ) -> None:
        del method  # the options are those of its settings already
        given = {name: getattr(typed, name) for name in type(typed).model_fields}
        given["method"] = offer.settings(dict(given.get("method", {})))
        asked = checked(config, {**given, "folder": folder})
        _begin(asked, run or new_folder(default_root(), stage, asked.folder.name), queue=not now)

    names: Any = Literal[tuple(known)]
    about = {name: config.model_fields[name].description for name in ("folder", "method")}
    command.__annotations__ = {
        "folder": Annotated[Path, Parameter(help=about["folder"])],
        "method": Annotated[names, Parameter(help=about["method"])],
        "run": Annotated[Path | None, Parameter(help="The run folder; without it one is made in the runs folder.")],
        "now": Annotated[bool, Parameter(help=_NOW, negative=())],
        "typed": Annotated[kind, Parameter(name="*")],
    }
    methods = "".join(f"\n\n- {name}: {one.about}" for name, one in known.items())
    more = f"\n\nMethods, of which `--method NAME --help` shows the settings:{methods}" if listed else ""
    command.__doc__ = _HELP[stage] + more
    return command


def _options(config: type[BaseModel], offer: Offer) -> type[BaseModel]:
    """What can be typed as options: the settings of a stage, and under `method` those that the offer leaves open."""
    fields = {name: field for name, field in config.model_fields.items() if name not in ("folder", "method")}
    if not offer.model.model_fields:
        return options(fields)
    group = Group(f"Method {offer.title}", help=offer.about, sort_key=2)
    own = options(offer.model.model_fields, group)
    return options(fields, method=(Annotated[own, Parameter(group=group)], Field(default_factory=own)))


def _begin(config: PretrainConfig | FinetuneConfig, folder: Path, *, queue: bool) -> None:
    from napari_medcl.terminal import attend
    from napari_medcl.training.finetune import finetune
    from napari_medcl.training.pretrain import pretrain

    if isinstance(config, PretrainConfig):
        attend(Run(folder), pretrain(config, folder, queue=queue), console)
    else:
        attend(Run(folder), finetune(config, folder, queue=queue), console)
