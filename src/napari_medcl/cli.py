"""The command line: everything that the viewer does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from napari_medcl.benchmark_cli import add_benchmark
from napari_medcl.corrections_cli import corrections, edit
from napari_medcl.errors import Elsewhere, UserError, explain
from napari_medcl.learn_cli import add_commands
from napari_medcl.options import option, settings_file
from napari_medcl.runs_cli import runs
from napari_medcl.scans_cli import predict, superpixels
from napari_medcl.training.launch import follows
from napari_medcl.training.run import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medcl.inference.predict import Predictor


Device = Literal["auto", "cpu", "cuda", "mps"]

console = Console()


def import_model(file: Path, *, out: Annotated[Path, Parameter(name=["--out", "-o"])]) -> None:
    """Bring weights that the authors of PCL, JCL or SuperCL publish into a model file to start from.

    Args:
        file: The weights, a .pth file; nothing in it is run.
        out: The model file to write, such as model.safetensors.
    """
    from napari_medcl.foreign import import_authors

    model = import_authors(file)
    try:
        model.save(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}. Choose another place.") from error
    network = f"{model.network.spatial_dims}D, width {model.network.width}, {model.network.depth} poolings"
    console.print(f"{network}. Hands on {', '.join(model.parts)}.", soft_wrap=True, highlight=False)
    console.print(f"Model: {out}", soft_wrap=True, highlight=False)


def _channel(predictor: Predictor, channel: int | None) -> int | None:
    """The channel that is asked for, else the one that the model was trained on."""
    trained: int | None = predictor.checkpoint.provenance.get("config", {}).get("channel")
    return trained if channel is None else channel


def evaluate(
    predictions: Path,
    data: Path,
    *,
    split: Path | None = None,
    side: Literal["train", "val", "test", "all"] = "all",
    groups: str | None = None,
    channel: int | None = None,
    csv: Path | None = None,
    device: Device = "auto",
) -> None:
    """Measure a model, or a folder of masks, against the masks of a data folder.

    Args:
        predictions: Run folder, model file, or folder with one mask a case.
        data: Data folder with scans and masks.
        split: JSON file that says who is on which side; a run's own split.json fits.
        side: Which side to measure.
        groups: What makes two scans one patient (see pretrain).
        channel: Which channel of 4D scans, from 0; without it the one that the model was trained on.
        csv: Where to write a row for every case and class.
        device: Where to compute.
    """
    from napari_medcl.data.cases import find_cases
    from napari_medcl.data.splits import read_split
    from napari_medcl.inference.evaluate import evaluate as measure
    from napari_medcl.inference.predict import Predictor
    from napari_medcl.terminal import scores

    cases = find_cases(data, groups=groups)
    if side != "all" and split is None:
        raise UserError(f"--side {side} needs --split FILE; a run folder has its own in split.json.")
    ids = None if split is None or side == "all" else getattr(read_split(split, cases), side)
    is_masks = predictions.is_dir() and not (predictions / "config.json").exists()
    judged = predictions if is_masks else Predictor(find_checkpoint(predictions), device)
    if isinstance(judged, Predictor):
        channel = _channel(judged, channel)
    found = measure(judged, cases, ids, channel=channel)
    scores(found, console)
    if csv is not None:
        found.to_csv(csv)
        console.print(f"Every case and class: {csv}", soft_wrap=True, highlight=False)


def cache(*, clear: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Show what is kept of scans, so that they are not read and divided again, and where.

    Decoded scans, scans on the network's grid and superpixels are kept up to a fifth of the disk; what was not used for
    longest goes first. The variable MEDCL_CACHE chooses another folder.

    Args:
        clear: Delete all of it; it is made again when it is needed.
    """
    from napari_medcl.data.cache import clear as delete
    from napari_medcl.data.cache import home, size

    if clear:
        delete()
    console.print(f"{decimal(size())} in {home()}", soft_wrap=True, highlight=False)


def demo(out: Path = Path("medcl-demo"), *, minutes: float = 5.0, seed: int = 0, device: Device = "auto") -> None:
    """Do the main job on the embedded sample: a T1 template with grey and white matter.

    Args:
        out: Where all files go.
        minutes: About how long it may take.
        seed: The same seed on the same machine gives the same result.
        device: Where to compute.
    """
    from napari_medcl.demo import run_demo

    run_demo(out, console, minutes=minutes, seed=seed, device=device)


def make_app(tokens: Sequence[str]) -> App:
    """The command line.

    Args:
        tokens: What was typed, on which the options of `pretrain` and `finetune` depend.

    Raises:
        UserError: The settings file cannot be read, or there is no such method.
    """
    app = App(
        name="medcl",
        help="Segment medical scans from few masks: superpixels, pre-training, fine-tuning, prediction.",
    )
    app.command(runs)
    app.command(edit)
    app.command(corrections)
    for command in (superpixels, predict, evaluate, demo, cache):
        app.command(command)
    app.command(import_model, name="import")
    file = settings_file(tokens)
    add_benchmark(app, file)
    add_commands(app, tokens, file)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[
            Path | None,
            Parameter(help="JSON file with settings, such as a run's config.json; options given here win."),
        ] = None,
    ) -> Any:
        del config  # has been read before the commands were made
        return app(tokens, exit_on_error=False, print_error=False)

    return app


def main() -> None:
    """The command `medcl`. What the user can mend ends with a message: status 2 for what was typed, else 1."""
    tokens = sys.argv[1:]
    try:
        make_app(tokens).meta(tokens, exit_on_error=False, print_error=False)
    except Elsewhere:
        sys.exit(0 if follows() else 1)
    except (UserError, cyclopts.CycloptsError) as error:
        message = str(error)
        if isinstance(error, cyclopts.CycloptsError) and isinstance(error.__cause__, ValidationError):
            message = explain(error.__cause__, option)
        Console(stderr=True).print(f"[red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
        sys.exit(1 if isinstance(error, UserError) else 2)
