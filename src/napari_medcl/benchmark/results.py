"""What the runs of a benchmark left in its folder."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from napari_medcl.files import write_json, write_rows
from napari_medcl.training.metrics import Metrics
from napari_medcl.training.run import Run, writing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_medcl.benchmark.cells import Cell

TEST = "test.csv"
_NOTE = "cell.json"
_COUNTED = ("ok", "empty prediction")
"""Rows that Dice is averaged over: there is a prediction, and the truth has the class."""


@dataclass(frozen=True)
class Result:
    """A run that was measured on the test cases.

    Attributes:
        run: Its name.
        method: What is compared.
        labelled: So many patients (or cases) were labelled.
        seed: Which of them.
        start: The name of the pre-training run, if any.
        seconds: Of training.
        rows: The scores of every class in every test case, as `inference.table.Row` writes them.
    """

    run: str
    method: str
    labelled: int
    seed: int
    start: str | None
    seconds: float
    rows: tuple[Mapping[str, str], ...]

    @property
    def dice(self) -> dict[str, float]:
        """Every patient's Dice: the mean over the cases of the mean over the classes that the truth has."""
        return self._by_patient("dice")

    @property
    def hd95_mm(self) -> dict[str, float]:
        """Every patient's HD95 in mm, over what has one: both masks are there."""
        return self._by_patient("hd95_mm")

    def _by_patient(self, column: str) -> dict[str, float]:
        cases: dict[tuple[str, str], list[float]] = {}
        for row in self.rows:
            if row["status"] in _COUNTED and row[column]:
                cases.setdefault((row["group"], row["case"]), []).append(float(row[column]))
        patients: dict[str, list[float]] = {}
        for (patient, _), values in cases.items():
            patients.setdefault(patient, []).append(fmean(values))
        return {patient: fmean(values) for patient, values in patients.items()}


def note(cell: Cell) -> None:
    """Writes into a run folder what it is in the benchmark.

    Raises:
        UserError: The folder cannot be written.
    """
    told = {"method": cell.method, "labelled": cell.labelled, "seed": cell.seed}
    with writing(cell.folder):
        write_json(cell.folder / _NOTE, told | {"start": cell.after and cell.after.name})


def read_results(folder: Path) -> list[Result]:
    """All runs of a benchmark that have been measured, by number of patients, method and seed."""
    found = []
    for path in (folder / "runs").glob(f"*/{TEST}"):
        told: dict[str, Any] = json.loads((path.parent / _NOTE).read_text("utf-8"))
        with path.open(encoding="utf-8", newline="") as file:
            rows = tuple(csv.DictReader(file))
        found.append(Result(run=path.parent.name, seconds=seconds(path.parent), rows=rows, **told))
    return sorted(found, key=lambda one: (one.labelled, one.method, one.seed))


def seconds(run: Path) -> float:
    """How long a run has trained."""
    return Metrics(Run(run).events()[0]).seconds


def write_patients(results: Sequence[Result], path: Path) -> None:
    """Writes a line for every class of every test case in every run.

    Raises:
        UserError: The file cannot be written.
    """
    write_rows(
        path,
        [
            {"method": one.method, "labelled": one.labelled, "seed": one.seed, "patient": row["group"]}
            | {name: value for name, value in row.items() if name != "group"}
            | {"run": one.run}
            for one in results
            for row in one.rows
        ],
    )
