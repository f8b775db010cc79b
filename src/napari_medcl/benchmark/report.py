"""The table, the plot and the CSV file of a benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medcl.benchmark.cells import PRETRAIN
from napari_medcl.benchmark.figures import Figure, Interval, figures
from napari_medcl.benchmark.plot import plot
from napari_medcl.benchmark.results import read_results, seconds, write_patients
from napari_medcl.errors import UserError
from napari_medcl.files import whole
from napari_medcl.training.history import duration
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_medcl.benchmark.work import Benchmark

COLUMNS = (
    "labelled", "method", "runs", "test Dice", "more than scratch", "gap closed", "HD95 mm", "time",
)  # fmt: skip
_NONE = "–"


@dataclass(frozen=True)
class Report:
    """What a benchmark has found so far, and where it stands.

    Attributes:
        figures: One for every method and number of labelled patients.
        notes: What one must know to read them.
        table: The file with the table.
        patients: The file with every test case.
        picture: The plot.
    """

    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    table: Path
    patients: Path
    picture: Path

    @property
    def rows(self) -> list[list[str]]:
        """The table's cells, under `COLUMNS`."""
        return [_row(one) for one in self.figures]


def report(benchmark: Benchmark) -> Report | None:
    """Writes table.md, patients.csv and dice.png into the folder, from the runs that are measured; None without any.

    Raises:
        UserError: A file cannot be written.
    """
    folder, results = benchmark.folder, read_results(benchmark.folder)
    if not results:
        return None
    asked = benchmark.setting.asked["methods"]
    found = sorted(figures(results, benchmark.setting.most), key=lambda one: (one.labelled, asked.index(one.method)))
    made = Report(
        tuple(found), tuple(_notes(benchmark, results[0].run)), folder / "table.md", folder / "patients.csv",
        folder / "dice.png",
    )  # fmt: skip
    write_patients(results, made.patients)
    try:
        with whole(made.table) as part:
            part.write_text(_markdown(made), "utf-8")
        with whole(made.picture) as part:
            plot(found, benchmark.config.count, part)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}. Free some space or mend its rights.") from error
    return made


def _row(one: Figure) -> list[str]:
    spread = "" if one.spread is None else f" ± {one.spread:.3f}"
    return [
        str(one.labelled),
        one.method,
        str(one.seeds),
        f"{one.dice:.3f}{spread}",
        _interval(one.difference, "+.3f"),
        _interval(one.closed, ".2f"),
        _NONE if math.isnan(one.hd95_mm) else f"{one.hd95_mm:.1f}",
        duration(one.seconds),
    ]


def _interval(given: Interval | None, form: str) -> str:
    if given is None:
        return _NONE
    if math.isnan(given.low):
        return format(given.value, form)
    return f"{given.value:{form}} [{given.low:{form}}, {given.high:{form}}]"


def _notes(benchmark: Benchmark, run: str) -> list[str]:
    config, folder = benchmark.config, benchmark.folder
    about = json.loads((folder / "runs" / run / "environment.json").read_text("utf-8"))
    sides = {"training": benchmark.setting.most, "test": len(benchmark.setting.tested)}
    told = ", ".join(f"{number} {side} {config.count}" for side, number in sides.items())
    notes = [
        f"{config.folder.name}: {told}. {config.steps} gradient steps of fine-tuning in every run, and the model that "
        "validation chose; the test cases were looked at once.",
        "Dice: mean ± standard deviation over the runs, which share their pre-training. In brackets: 95 % of 9999 "
        "draws of the test patients with replacement. Gap: from scratch with as many labels to scratch with all of "
        "them. HD95 leaves out what was not found at all.",
    ]
    if starts := list(_pretrained(folder)):
        notes.append(f"Pre-training on all training images: {', '.join(starts)}.")
    return [*notes, f"Made with {_made_with(about)}."]


def _pretrained(folder: Path) -> Iterator[str]:
    """What the runs in the folder start from, those of earlier calls too."""
    for path in sorted(folder.glob(f"runs/{PRETRAIN}_*")):
        if (made := Run(path)).state == "finished":
            yield f"{path.name.removeprefix(PRETRAIN)[1:]} {made.config['steps']} steps in {duration(seconds(path))}"


def _made_with(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("medcl", "torch"))
    return f"{versions}, Python {about['python']} on {about['device']}, {about['threads']} threads"


def _markdown(report: Report) -> str:
    lines: Sequence[Sequence[str]] = [COLUMNS, ["---"] * len(COLUMNS), *report.rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return table + "\n\n" + "\n\n".join(report.notes) + "\n"
