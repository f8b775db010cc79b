"""The table of a run's numbers."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training.config import FinetuneConfig
from napari_medcl.training.events import Evaluated, Resumed, Saved, Started, Stepped
from napari_medcl.training.finetune import finetune
from napari_medcl.training.metrics import Metrics
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.training.events import Event

SMALL: dict[str, Any] = {"dims": "2d", "width": 4, "batch": 4, "steps": 8, "precision": "float32", "device": "cpu"}
STARTED = Started(
    run="r", stage="finetune", device="cpu", precision="float32", steps=8, minutes=None, cases=3, message="3 scans"
)


def started(time: float) -> Started:
    return STARTED.model_copy(update={"time": time})


def stepped(time: float, step: int, rate: float = 0.5, **terms: float) -> Stepped:
    return Stepped(time=time, step=step, progress=step / 8, terms=terms, rate=rate, remaining_s=1)


def evaluated(time: float, step: int, over_all: float, best: bool = False, **dice: float) -> Evaluated:
    return Evaluated(time=time, step=step, dice=dice, mean=over_all, best=best)


def saved(time: float, step: int, best: bool = False) -> Saved:
    return Saved(time=time, step=step, path="checkpoints/last.safetensors", best=best)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


BEGUN: list[Event] = [
    started(100),
    stepped(102, 2, dice=0.9, other=0.5),
    evaluated(103, 2, 0.6, best=True, liver=0.4, mean=0.8),
    saved(104, 2, best=True),
    saved(105, 2),
    stepped(106, 4, dice=0.7, other=0.25),
    evaluated(108, 5, 0.7, best=True, liver=math.nan, mean=0.7),
]


def test_there_is_a_row_a_step_and_a_column_a_number(tmp_path: Path) -> None:
    Metrics(BEGUN).write(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text("utf-8").splitlines() == [
        "step,seconds,rate,loss/dice,loss/other,dice,dice/liver,dice/mean",
        "2,2.0,0.5,0.9,0.5,0.6,0.4,0.8",
        "4,6.0,0.5,0.7,0.25,,,",
        "5,8.0,,,,0.7,,0.7",
    ]


def test_what_is_said_again_after_a_resume_stands_there_once_and_the_pause_is_no_training() -> None:
    again = [Resumed(time=1000, step=2, message=""), started(1010), stepped(1013, 4, dice=0.6)]
    metrics = Metrics([*BEGUN, *again])
    assert (metrics.step, metrics.seconds, metrics.losses) == (4, 8.0, {"loss/dice": 0.6})
    assert metrics.best == {"step": 2, "dice": 0.6, "dice/liver": 0.4, "dice/mean": 0.8}
    metrics.add(Resumed(time=2000, step=0, message="no state was saved"))
    assert (metrics.step, metrics.seconds, metrics.losses, metrics.best) == (0, 0.0, {}, {})


@pytest.mark.parametrize(("chooses", "best"), [(True, {"step": 2, "dice": 0.5}), (False, {"step": 3, "dice": 0.4})])
def test_the_best_is_the_model_that_the_run_chose_else_the_last_that_was_measured(
    chooses: bool, best: dict[str, float]
) -> None:
    measured = [evaluated(1, 1, math.nan), evaluated(2, 2, 0.5, best=chooses), evaluated(3, 3, 0.4)]
    assert Metrics([started(0), *measured, evaluated(4, 4, math.nan)]).best == best


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_run_keeps_its_table_and_after_a_resume_it_is_that_of_a_run_which_was_not_interrupted(
    how: Any, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    config = FinetuneConfig(folder=blobs(), val=0.25, evaluations=2, **SMALL)
    list(finetune(config, tmp_path / "whole"))
    whole = rows(tmp_path / "whole" / "metrics.csv")
    assert [int(row["step"]) for row in whole] == list(range(1, 9))
    assert [row["step"] for row in whole if row["dice"]] == ["4", "8"]
    assert set(whole[0]) == {
        *("step", "seconds", "rate", "loss/dice", "loss/cross-entropy", "dice", "dice/class 1", "dice/class 2")
    }

    run = Run(tmp_path / "run")
    for event in finetune(config, run.folder):
        if isinstance(event, Stepped) and event.step == 5:
            run.ask(how)
    assert [int(row["step"]) for row in rows(run.folder / "metrics.csv")] == list(range(1, 6))
    list(resume(run.folder))
    found = rows(run.folder / "metrics.csv")
    if how == "stop":  # it was measured when it ended
        found[4].update({name: "" for name in found[4] if name.startswith("dice")})
    seconds = [float(row.pop("seconds")) for row in found]
    assert seconds == sorted(seconds)
    assert found == [{name: value for name, value in row.items() if name != "seconds"} for row in whole]


def test_what_was_said_before_a_failure_is_in_the_table(blobs: Callable[..., Path], tmp_path: Path) -> None:
    events = finetune(FinetuneConfig(folder=blobs(), **SMALL), tmp_path / "run")
    for event in events:
        if isinstance(event, Stepped) and event.step == 3:
            events.close()  # type: ignore[attr-defined]
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.csv")] == ["1", "2", "3"]


def test_a_table_that_cannot_be_written_ends_the_run_with_a_word(blobs: Callable[..., Path], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    (run.folder / "metrics.csv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"metrics\.csv"):
        list(finetune(FinetuneConfig(folder=blobs(), evaluations=1, **SMALL), run.folder))
    assert run.state == "failed"
    (run.folder / "metrics.csv").rmdir()
    list(resume(run.folder))
    assert run.state == "finished"
    assert len(rows(run.folder / "metrics.csv")) == 8
