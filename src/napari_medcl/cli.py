"""The command line: everything that the viewer does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import App, Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from napari_medcl.benchmark_cli import add_benchmark
from napari_medcl.corrections_cli import corrections, edit
from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.errors import Elsewhere, UserError, explain
from napari_medcl.learn_cli import add_commands
from napari_medcl.options import option, settings_file
from napari_medcl.runs_cli import runs
from napari_medcl.training.launch import follows
from napari_medcl.training.run import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_medcl.data.volume import Labels, Volume
    from napari_medcl.inference.predict import Predictor


Device = Literal["auto", "cpu", "cuda", "mps"]

console = Console()


def superpixels(
    scan: Path,
    *,
    out: Path | None = None,
    channel: int | None = None,
    settings: Annotated[SuperpixelSettings, Parameter(name="*")] = SuperpixelSettings(),  # noqa: B008 - frozen
) -> None:
    """Write the superpixels of a scan as a label map on its grid.

    Args:
        scan: The scan.
        out: Where to write; without it beside the scan, with -superpixels in its name.
        channel: Which channel of a 4D scan, from 0.
        settings: How to make them.
    """
    from napari_medcl.data.formats import read_volume, stem, write_labels
    from napari_medcl.data.superpixels import cached_superpixels
    from napari_medcl.data.volume import Labels

    volume = read_volume(scan, channel)
    found = cached_superpixels(volume.array, settings, volume.spacing)
    labels = Labels(found, volume.spacing, volume.origin, volume.source)
    written = write_labels(labels, out or scan.with_name(f"{stem(scan)}-superpixels.nii.gz"))
    where = "at most in a slice" if settings.per == "slice" else "in the volume"
    console.print(f"{int(found.max())} superpixels {where}: {written}", soft_wrap=True, highlight=False)


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


def predict(
    model: Path,
    scans: list[Path],
    *,
    out: Path,
    channel: int | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    uafs: bool = False,
    device: Device = "auto",
    overlap: float = 0.5,
    flips: bool = False,
    compile: bool = False,
) -> None:
    """Segment scans; every result lies exactly where its scan lies. A mask that is replaced is kept in .medcl-backups.

    Args:
        model: Run folder or model file.
        scans: Scans, or one data folder whose scans are all segmented.
        out: Folder for the results: NAME.nii.gz, with NAME-probabilities and NAME-uncertainty where asked for.
        channel: Which channel of 4D scans, from 0; without it the one that the model was trained on.
        probabilities: Also write the probability of every class.
        uncertainty: Also write the entropy, from 0 (sure) to 1.
        uafs: Also write what each UAFS block of the model is unsure of, from 0 (sure) to 1: NAME-uafs-MAP.
        device: Where to compute.
        overlap: Part of a window that it shares with the next.
        flips: Average over mirrored forms of every window: 4 times the work in 2D, 8 times in 3D; not for models that
            tell left from right.
        compile: Compile the network first, which takes up to a minute and pays for many scans.
    """
    from napari_medcl.inference.predict import Predictor

    predictor = Predictor(find_checkpoint(model), device, overlap, flips=flips, compile=compile)
    if uafs:
        predictor.blocks()  # says at once where there are none
    failed = 0
    volumes = list(_volumes(scans, _channel(predictor, channel)))
    out.mkdir(parents=True, exist_ok=True)
    for name, read in volumes:
        try:
            volume = read()
            with console.status(f"{name} …"):
                made = predictor(volume, probabilities=probabilities, uncertainty=uncertainty)
                seen = predictor.block_uncertainty(volume) if uafs else {}
            maps = {"probabilities": made.probabilities, "uncertainty": made.uncertainty}
            maps |= {f"uafs-{block}": found for block, found in seen.items()}
            written = _write(name, out, made.labels, maps)
            console.print(f"{written}", soft_wrap=True, highlight=False)
        except UserError as error:
            failed += 1
            console.print(f"[red]{name}: left out.[/] {error}", soft_wrap=True, highlight=False)
    if failed:
        raise UserError(f"{failed} of {len(volumes)} scans could not be segmented; the others are in {out}.")


def _channel(predictor: Predictor, channel: int | None) -> int | None:
    """The channel that is asked for, else the one that the model was trained on."""
    trained: int | None = predictor.checkpoint.provenance.get("config", {}).get("channel")
    return trained if channel is None else channel


def _volumes(scans: Sequence[Path], channel: int | None) -> Iterator[tuple[str, Any]]:
    """Names and readers of the scans, or of the cases of a data folder; nothing is read yet."""
    from napari_medcl.data.cases import find_cases
    from napari_medcl.data.formats import read_volume, stem

    for scan in scans:
        if scan.is_dir() and not any(scan.glob("*.dcm")):
            for case in find_cases(scan):
                yield case.id, lambda case=case: case.volume(channel)
        else:
            yield stem(scan), lambda scan=scan: read_volume(scan, channel)


def _write(name: str, out: Path, labels: Labels, maps: dict[str, Volume | None]) -> Path:
    from datetime import datetime

    from napari_medcl.correction.save import back_up
    from napari_medcl.data.formats import write_labels, write_volume

    suffix = ".png" if labels.source is not None and labels.source.format == "picture" else ".nii.gz"
    for kind, volume in maps.items():
        if volume is not None:
            write_volume(volume, out / f"{name}-{kind}.nii.gz")
    path = out / f"{name}{suffix}"
    if path.exists():  # somebody may have corrected it
        back_up(path, datetime.now())
    return write_labels(labels, path)


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
    for command in (superpixels, predict, evaluate, demo):
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
