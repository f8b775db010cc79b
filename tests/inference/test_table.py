from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING

import pytest

from napari_medcl.errors import UserError
from napari_medcl.inference.metrics import Scores
from napari_medcl.inference.table import Row, Table

if TYPE_CHECKING:
    from pathlib import Path


def row(case: str, label: int, scores: Scores) -> Row:
    return Row(case, f"patient of {case}", label, {1: "head", 2: "tail"}[label], scores)


def good(dice: float, hd95_mm: float = 2.0) -> Scores:
    return Scores("ok", dice, dice / (2 - dice), hd95_mm, hd95_mm / 4, 1.5, 1.25)


EMPTY = Scores("empty prediction", 0, 0, truth_ml=1, prediction_ml=0)
FALSE = Scores("false positive", 0, 0, truth_ml=0, prediction_ml=2)
ABSENT = Scores("absent in both", truth_ml=0, prediction_ml=0)
MISSING = Scores("no prediction", truth_ml=1)

TABLE = Table(
    (
        row("a", 1, good(0.9, 1)),
        row("a", 2, good(0.7, 3)),
        row("b", 1, good(0.6, 5)),
        row("b", 2, EMPTY),
        row("c", 1, good(0.8, 3)),
        row("c", 2, FALSE),
        row("d", 1, ABSENT),
        row("d", 2, ABSENT),
        row("e", 1, MISSING),
        row("e", 2, MISSING),
    )
)


def test_the_mean_is_over_cases_of_the_mean_over_classes_that_are_there() -> None:
    summary = TABLE.summary()
    assert summary.dice == pytest.approx((0.8 + 0.3 + 0.8) / 3)
    assert summary.cases == 3


def test_every_class_has_its_mean_and_its_failures() -> None:
    head, tail = TABLE.summary().classes
    assert (head.label, head.name, head.cases, head.measured) == (1, "head", 3, 3)
    assert head.dice == pytest.approx((0.9 + 0.6 + 0.8) / 3)
    assert head.dice_sd == pytest.approx(
        math.sqrt(((0.9 - head.dice) ** 2 + (0.6 - head.dice) ** 2 + (0.8 - head.dice) ** 2) / 2)
    )
    assert (head.hd95_mm, head.asd_mm) == (pytest.approx(3), pytest.approx(0.75))
    assert (head.empty, head.false_positives, head.missing) == (0, 0, 1)
    assert (tail.cases, tail.measured) == (2, 1)
    assert tail.dice == pytest.approx(0.35), "an empty prediction counts as 0"
    assert tail.hd95_mm == pytest.approx(3), "and has no distance"
    assert (tail.empty, tail.false_positives, tail.missing) == (1, 1, 1)


def test_nothing_to_average_is_not_a_number() -> None:
    summary = Table((row("d", 1, ABSENT),)).summary()
    assert math.isnan(summary.dice)
    assert (summary.cases, summary.classes[0].cases) == (0, 0)
    assert math.isnan(summary.classes[0].dice_sd)
    assert Table(()).summary().classes == ()


def test_the_csv_has_a_line_a_row_and_empty_cells_for_the_undefined(tmp_path: Path) -> None:
    path = TABLE.to_csv(tmp_path / "new" / "table.csv")
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [
        *("case", "group", "label", "class", "status", "dice", "jaccard"),
        *("hd95_mm", "asd_mm", "truth_ml", "prediction_ml"),
    ]
    assert len(lines) == len(TABLE.rows)
    assert (lines[0]["case"], lines[0]["group"], lines[0]["class"], lines[0]["dice"]) == (
        "a",
        "patient of a",
        "head",
        "0.9",
    )
    assert (lines[3]["status"], lines[3]["dice"], lines[3]["hd95_mm"]) == ("empty prediction", "0", "")
    assert (lines[8]["status"], lines[8]["dice"]) == ("no prediction", "")


def test_a_csv_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"table\.csv cannot be written"):
        TABLE.to_csv(tmp_path / "file" / "table.csv")


def test_the_table_is_plain_json_for_the_viewer() -> None:
    plain = TABLE.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["rows"][3] == {
        "case": "b",
        "group": "patient of b",
        "label": 2,
        "class": "tail",
        "status": "empty prediction",
        "dice": 0,
        "jaccard": 0,
        "hd95_mm": None,
        "asd_mm": None,
        "truth_ml": 1,
        "prediction_ml": 0,
    }
    assert plain["summary"]["dice"] == pytest.approx(TABLE.summary().dice)
    assert plain["summary"]["classes"][0]["name"] == "head"
    assert Table(()).to_dict()["summary"]["dice"] is None
