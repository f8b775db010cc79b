"""The table of an evaluation, and its means."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from napari_medcl.files import write_rows
from napari_medcl.inference.metrics import Scores

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLUMNS = ("case", "group", "label", "class", *(entry.name for entry in dataclasses.fields(Scores)))


@dataclass(frozen=True)
class Row:
    """One class in one case."""

    case: str
    group: str
    label: int
    name: str
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """The columns of the table; None where a number is not defined."""
        scores = dataclasses.asdict(self.scores)
        return {
            "case": self.case,
            "group": self.group,
            "label": self.label,
            "class": self.name,
        } | {name: _defined(value) for name, value in scores.items()}


@dataclass(frozen=True)
class ClassSummary:
    """One class over all cases.

    Attributes:
        label: Value in the masks.
        name: Its name.
        cases: Predicted cases that have it in the truth; the means of Dice and Jaccard are over these,
            an empty prediction being 0.
        dice: Mean.
        dice_sd: Standard deviation (n − 1).
        jaccard: Mean.
        measured: Cases with a distance: both masks are there.
        hd95_mm: Mean over these.
        asd_mm: Mean over these.
        empty: Cases where the prediction is empty and the truth is not.
        false_positives: Cases where it is the other way round; they are in no mean.
        missing: Cases without a prediction; they are in no mean.
    """

    label: int
    name: str
    cases: int
    dice: float
    dice_sd: float
    jaccard: float
    measured: int
    hd95_mm: float
    asd_mm: float
    empty: int
    false_positives: int
    missing: int


@dataclass(frozen=True)
class Summary:
    """All cases together.

    Attributes:
        dice: Mean over the cases of each case's mean over the classes that its truth has; an empty
            prediction counts as 0.
        cases: How many cases that is the mean of.
        classes: One entry a class.
    """

    dice: float
    cases: int
    classes: tuple[ClassSummary, ...]


@dataclass(frozen=True)
class Table:
    """The scores of every class in every case."""

    rows: tuple[Row, ...]

    def summary(self) -> Summary:
        """Means over the cases."""
        cases: dict[str, list[float]] = {}
        for row in _present(self.rows):
            cases.setdefault(row.case, []).append(row.scores.dice)
        labels = {row.label: row.name for row in self.rows}
        return Summary(
            dice=_mean([fmean(values) for values in cases.values()]),
            cases=len(cases),
            classes=tuple(
                _summary(label, name, [row for row in self.rows if row.label == label])
                for label, name in labels.items()
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Rows and summary as JSON values; None where a number is not defined."""
        summary = dataclasses.asdict(self.summary())
        summary["classes"] = [{name: _defined(value) for name, value in entry.items()} for entry in summary["classes"]]
        return {
            "rows": [row.to_dict() for row in self.rows],
            "summary": summary | {"dice": _defined(summary["dice"])},
        }

    def to_csv(self, path: Path | str) -> Path:
        """Writes one line a row; a cell is empty where a number is not defined.

        Raises:
            UserError: The file cannot be written; one that was there is as it was.
        """
        path = Path(path)
        write_rows(path, [row.to_dict() for row in self.rows], _COLUMNS)
        return path


def _present(rows: Iterable[Row]) -> list[Row]:
    """Rows with a prediction whose class is in the truth: those that Dice is averaged over."""
    return [row for row in rows if row.scores.status in ("ok", "empty prediction")]


def _summary(label: int, name: str, rows: list[Row]) -> ClassSummary:
    present = [row.scores for row in _present(rows)]
    measured = [scores for scores in present if not math.isnan(scores.hd95_mm)]
    status = [row.scores.status for row in rows]
    dices = [scores.dice for scores in present]
    return ClassSummary(
        label=label,
        name=name,
        cases=len(present),
        dice=_mean(dices),
        dice_sd=stdev(dices) if len(dices) > 1 else math.nan,
        jaccard=_mean([scores.jaccard for scores in present]),
        measured=len(measured),
        hd95_mm=_mean([scores.hd95_mm for scores in measured]),
        asd_mm=_mean([scores.asd_mm for scores in measured]),
        empty=status.count("empty prediction"),
        false_positives=status.count("false positive"),
        missing=status.count("no prediction"),
    )


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
