"""`medcl benchmark`: what pre-training is worth, measured on the user's own scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from napari_medcl.benchmark.config import BenchmarkConfig
from napari_medcl.errors import UserError
from napari_medcl.options import checked, options
from napari_medcl.terminal import say, table, watch
from napari_medcl.training.launch import several
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from cyclopts import App

    from napari_medcl.benchmark.work import Benchmark

console = Console()
if not console.is_terminal:
    console.width = 500  # a table is as wide as it must be where nobody sees a screen


_IN_FILES = ("pretrain", "finetune", "starts", "additions")
"""Settings that are settings themselves: they come from a file only."""


def add_benchmark(app: App, file: dict[str, Any]) -> None:
    """Adds the command.

    Args:
        app: Where to.
        file: The settings of the file, see `settings_file`; those that cannot be typed are taken out.
    """
    nested = {name: file.pop(name) for name in _IN_FILES if name in file}
    fields = {name: field for name, field in BenchmarkConfig.model_fields.items() if name not in ("folder", *_IN_FILES)}
    kind = options(fields)
    unset = kind()

    def command(folder: Path, *, out: Path, typed: Any = unset) -> None:
        given = {name: getattr(typed, name) for name in type(typed).model_fields}
        _benchmark(checked(BenchmarkConfig, {**given, **nested, "folder": folder}), out)

    command.__doc__ = """Measure what each method gains with few labelled patients, against training from scratch.

    Pre-trains once with each method on all training images, fine-tunes every method with every number of labelled
    patients and every seed, measures each on the test patients, and writes a table, a plot and every patient's scores.
    The same command goes on where it was interrupted; several at once share the work.
    """
    command.__annotations__ = {
        "folder": Annotated[Path, Parameter(help=BenchmarkConfig.model_fields["folder"].description)],
        "out": Annotated[Path, Parameter(help="Folder for the runs and the results.")],
        "typed": Annotated[kind, Parameter(name="*")],
    }
    app.command(command, name="benchmark")


def _benchmark(config: BenchmarkConfig, out: Path) -> None:
    from napari_medcl.benchmark.report import report
    from napari_medcl.benchmark.work import Benchmark

    if several():
        raise UserError("A benchmark shares its work among processes by itself: start the command without torchrun.")
    benchmark = Benchmark(config, out)
    for cell, events in benchmark.work():
        done = len(benchmark.cells) - len(benchmark.left())
        say(console, f"{done + 1} of {len(benchmark.cells)}: {cell.name}")
        watch(Run(cell.folder), events, console, "the same command")
        report(benchmark)
    _tell(benchmark)


def _tell(benchmark: Benchmark) -> None:
    """Shows the table, and what is missing in it."""
    from napari_medcl.benchmark.report import COLUMNS, report

    if (made := report(benchmark)) is not None:
        console.print(table(str(benchmark.config.folder.name), list(COLUMNS), made.rows, words=2))
        for line in (*made.notes, f"Table: {made.table}", f"Every patient: {made.patients}", f"Plot: {made.picture}"):
            say(console, line)
    left = benchmark.left()
    if benchmark.failed:
        told = "\n".join(f"{name}: {message}" for name, message in benchmark.failed.items())
        raise UserError(f"{len(left)} of {len(benchmark.cells)} runs are missing. These could not be made:\n{told}")
    if left:
        say(console, f"{len(left)} of {len(benchmark.cells)} runs are left. The same command goes on with them.")
