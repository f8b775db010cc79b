"""`medcl predict` and `medcl superpixels`: one scan or many."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.errors import UserError
from napari_medcl.terminal import say
from napari_medcl.training.run import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medcl.data.case import Case
    from napari_medcl.many.done import Result
    from napari_medcl.many.work import Work

Device = Literal["auto", "cpu", "cuda", "mps"]
Again = Annotated[bool, Parameter(negative=())]
_REPORT = "report.csv"
console = Console()


def superpixels(
    scans: list[Path],
    *,
    out: Path | None = None,
    channel: int | None = None,
    processes: int = 1,
    scheduler: str | None = None,
    again: Again = False,
    settings: Annotated[SuperpixelSettings, Parameter(name="*")] = SuperpixelSettings(),  # noqa: B008 - frozen
) -> None:
    """Write the superpixels of scans as label maps on their grids.

    Args:
        scans: A scan, several, or a data folder.
        out: Where to write: a file for one scan, without it beside the scan, with -superpixels in its name; a folder
            for several, which also gets report.csv.
        channel: Which channel of 4D scans, from 0.
        processes: How many processes share the cores; each takes a scan at a time.
        scheduler: Address of a dask scheduler, such as tcp://host:8786, whose workers do it; needs medcl[cluster].
        again: Also do what has been done before.
        settings: How to make them.
    """
    from napari_medcl.data.formats import READABLE, read_source, stem, suffix
    from napari_medcl.data.names import ZARR
    from napari_medcl.data.writing import map_suffix
    from napari_medcl.many.work import Divide, divide

    cases = _cases(scans)
    if len(cases) == 1 and len(scans) == 1 and (out is None or suffix(out) in (*READABLE, *ZARR)):
        path = out or scans[0].with_name(f"{stem(scans[0])}-superpixels{map_suffix(read_source(scans[0]))}")
        count = divide(cases[0], settings, channel, path)
        say(
            console,
            f"{count} superpixels {'at most in a slice' if settings.per == 'slice' else 'in the volume'}: {path}",
        )
        return
    if out is None:
        raise UserError("Say with --out FOLDER where the superpixels of several scans are to go.")
    _do(Divide(settings, out.resolve(), channel), cases, processes, scheduler, again)


def predict(
    model: Path,
    scans: list[Path],
    *,
    out: Path,
    channel: int | None = None,
    probabilities: bool = False,
    eight_bits: bool = False,
    uncertainty: bool = False,
    uafs: bool = False,
    device: Device = "auto",
    overlap: float = 0.5,
    flips: bool = False,
    compile: bool = False,
    processes: int = 1,
    scheduler: str | None = None,
    again: Again = False,
) -> None:
    """Segment scans; every result lies exactly where its scan lies. A mask that is replaced is kept in .medcl-backups.

    Scans that have been segmented before, by the same model with the same settings, are checked and left out, so that
    the same command goes on where it was interrupted. So are masks that somebody has corrected since.

    Args:
        model: Run folder or model file.
        scans: Scans, or data folders whose scans are all segmented.
        out: Folder for the results: NAME.nii.gz (NAME.ome.zarr of OME-Zarr, NAME.png of pictures), with
            NAME-probabilities and NAME-uncertainty where asked for, and report.csv.
        channel: Which channel of 4D scans, from 0; without it the one that the model was trained on.
        probabilities: Also write the probability of every class.
        eight_bits: Write it in 8 bits: a quarter of the memory, in steps of 1/255.
        uncertainty: Also write the entropy, from 0 (sure) to 1.
        uafs: Also write what each UAFS block of the model is unsure of, from 0 (sure) to 1: NAME-uafs-MAP.
        device: Where to compute.
        overlap: Part of a window that it shares with the next.
        flips: Average over mirrored forms of every window: 4 times the work in 2D, 8 times in 3D; not for models that
            tell left from right.
        compile: Compile the network first, which takes up to a minute and pays for many scans.
        processes: How many processes share the cores; each takes a scan at a time.
        scheduler: Address of a dask scheduler, such as tcp://host:8786, whose workers do it; needs medcl[cluster].
        again: Also do what has been done before.
    """
    from napari_medcl.many.work import Segment

    work = Segment(
        model=find_checkpoint(model).resolve(), out=out.resolve(), channel=channel, probabilities=probabilities,
        eight_bits=eight_bits, uncertainty=uncertainty, uafs=uafs, device=device, overlap=overlap, flips=flips,
        compile=compile,
    )  # fmt: skip
    work.check()
    _do(work, _cases(scans), processes, scheduler, again)


def _cases(scans: Sequence[Path]) -> list[Case]:
    """The scans, and those of data folders; nothing is read yet."""
    from napari_medcl.data.case import Case
    from napari_medcl.data.cases import find_cases
    from napari_medcl.data.formats import is_scan, stem

    cases: list[Case] = []
    for scan in scans:
        if scan.is_dir() and not is_scan(scan):
            cases += find_cases(scan.resolve())
        else:
            cases.append(Case(stem(scan), (scan.resolve(),)))
    return cases


def _do(work: Work, cases: Sequence[Case], processes: int, scheduler: str | None, again: bool) -> None:
    """Shows how far it is, what could not be done, and a report at the end."""
    from napari_medcl.files import write_rows
    from napari_medcl.many.spread import spread

    if processes < 1:
        raise UserError(f"--processes must be 1 or more, not {processes}.")
    results: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(cases))
        coming = spread(work, cases, processes=processes, scheduler=scheduler, again=again)
        try:
            for result in coming:
                results.append(result)
                bar.update(task, advance=1)
                what = result.message if result.state == "failed" else f"{result.files[0]}"
                say(console, f"{_SAID[result.state]}{result.name}: {what}")
        except KeyboardInterrupt:
            say(console, "Interrupted. The same command goes on from here.")
            raise SystemExit(130) from None
    rows = [
        {
            "case": one.name, "state": one.state, "seconds": f"{one.seconds:.1f}",
            "files": " ".join(path.name for path in one.files), "message": one.message,
        }
        for one in sorted(results, key=lambda one: one.name)
    ]  # fmt: skip
    states = [one.state for one in results]
    if len(cases) > 1:
        write_rows(work.out / _REPORT, rows, ("case", "state", "seconds", "files", "message"))
        counts = ", ".join(f"{states.count(state)} {state}" for state in _SAID if state in states)
        say(console, f"{counts}. Report: {work.out / _REPORT}")
    if failed := states.count("failed"):
        raise UserError(f"{failed} of {len(cases)} scans could not be done; the others are in {work.out}.")


_SAID = {
    "made": "",
    "done before": "Done before: ",
    "changed since": "Kept, it was changed since: ",
    "failed": "Left out: ",
}
