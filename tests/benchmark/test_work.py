"""The work on a benchmark: all runs are made once, however often and by however many it is interrupted."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.benchmark.config import BenchmarkConfig
from napari_medcl.benchmark.report import report
from napari_medcl.benchmark.results import read_results
from napari_medcl.benchmark.work import Benchmark
from napari_medcl.data.cases import find_cases
from napari_medcl.errors import UserError
from napari_medcl.inference.evaluate import evaluate
from napari_medcl.inference.predict import Predictor
from napari_medcl.training.events import Preparing, Stepped
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL: dict[str, Any] = {
    "width": 4, "patch": (16, 16), "dims": "2d", "device": "cpu", "precision": "float32", "steps": 4,
    "pretrain_steps": 3, "finetune": {"batch": 4, "evaluations": 1}, "pretrain": {"batch": 4}, "labelled": (1, "all"),
    "methods": ("scratch", "jcl"), "seeds": (0, 1), "test": 0.3,
}  # fmt: skip


@pytest.fixture
def config(blobs: Callable[..., Path]) -> BenchmarkConfig:
    return BenchmarkConfig(folder=blobs(scans=6, masks=6), **SMALL)


def work(benchmark: Benchmark) -> list[str]:
    """Works to the end and tells which runs were made."""
    made = []
    for cell, events in benchmark.work():
        list(events)
        made.append(cell.folder.name)
    return made


def test_everything_is_made_measured_and_reported(config: BenchmarkConfig, tmp_path: Path) -> None:
    benchmark = Benchmark(config, tmp_path / "out")
    assert report(benchmark) is None
    made = work(benchmark)
    assert made == [cell.folder.name for cell in benchmark.cells]
    assert len(made) == 1 + 2 * 2 * 2
    assert benchmark.left() == []
    assert benchmark.failed == {}

    sides = json.loads((tmp_path / "out" / "split.json").read_text())
    for cell in benchmark.cells:
        split = json.loads((cell.folder / "split.json").read_text())
        assert {*split["test"]} == {*sides["test"]}
        assert not {*split["learned"]} & {*sides["val"], *sides["test"]}
    one = Run(tmp_path / "out" / "runs" / "jcl_1_seed1")
    assert one.config["start"] == str(tmp_path / "out" / "runs" / "pretrain_jcl")

    found = report(benchmark)
    assert found is not None
    assert [(one.labelled, one.method, one.seeds) for one in found.figures] == [
        (1, "scratch", 2), (1, "jcl", 2), (3, "scratch", 2), (3, "jcl", 2),
    ]  # fmt: skip
    lines = found.table.read_text().splitlines()
    assert lines[0].startswith("| labelled | method |")
    assert len([line for line in lines if line.startswith("|")]) == 2 + 4
    assert "3 training patients, 2 test patients. 4 gradient steps" in found.table.read_text()
    (told,) = [line for line in lines if line.startswith("Pre-training on all training images: jcl 3 steps in ")]
    alone = config.model_copy(update={"methods": ("scratch",)})
    again = report(Benchmark(alone, tmp_path / "out"))
    assert again is not None
    assert told in again.table.read_text(), "also where a later call asks for less"
    with found.patients.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * len(sides["test"]) * 2
    assert {row["patient"] for row in rows} == {*sides["test"]}
    assert found.picture.read_bytes().startswith(b"\x89PNG")


def test_the_scores_are_those_of_the_chosen_model_on_the_test_cases(config: BenchmarkConfig, tmp_path: Path) -> None:
    few = config.model_copy(update={"methods": ("scratch",), "labelled": (1,), "seeds": (0,)})
    benchmark = Benchmark(few, tmp_path / "out")
    work(benchmark)
    cell = benchmark.cells[0]
    sides = json.loads((tmp_path / "out" / "split.json").read_text())
    predictor = Predictor(cell.folder / "checkpoints" / "best.safetensors", "cpu")
    wanted = evaluate(predictor, find_cases(config.folder), sides["test"])
    (result,) = read_results(benchmark.folder)
    assert [float(row["dice"]) for row in result.rows] == [row.scores.dice for row in wanted.rows]
    assert sum(result.dice.values()) / len(result.dice) == pytest.approx(wanted.summary().dice)


def test_a_pause_ends_the_work_and_the_next_one_goes_on_as_if_it_had_not_been(
    config: BenchmarkConfig, tmp_path: Path
) -> None:
    few = config.model_copy(update={"labelled": (1,), "seeds": (0,)})
    undisturbed = Benchmark(few, tmp_path / "undisturbed")
    work(undisturbed)
    benchmark = Benchmark(few, tmp_path / "out")
    for number, (cell, events) in enumerate(benchmark.work()):
        for event in events:
            if number == 1 and isinstance(event, Stepped) and event.step == 2:
                Run(cell.folder).ask("pause")
    assert number == 1
    assert Run(cell.folder).state == "paused"
    assert len(benchmark.left()) == 2
    assert work(Benchmark(few, tmp_path / "out")) == [cell.folder.name for cell in benchmark.cells[1:]]
    for one, other in zip(read_results(undisturbed.folder), read_results(benchmark.folder), strict=True):
        assert one.rows == other.rows


def test_a_run_that_was_stopped_while_it_was_measured_is_measured_later(
    config: BenchmarkConfig, tmp_path: Path
) -> None:
    few = config.model_copy(update={"methods": ("scratch",), "labelled": (1,), "seeds": (0,)})
    benchmark = Benchmark(few, tmp_path / "out")
    for cell, events in benchmark.work():
        for event in events:
            if isinstance(event, Preparing) and event.message.startswith("test case 2"):
                Run(cell.folder).ask("stop")
    assert Run(cell.folder).state == "finished"
    assert benchmark.left() == [cell]
    steps = (cell.folder / "events.jsonl").read_bytes()
    assert work(Benchmark(few, tmp_path / "out")) == [cell.folder.name]
    assert (cell.folder / "events.jsonl").read_bytes() == steps
    assert len(read_results(benchmark.folder)) == 1


def test_two_that_work_together_make_every_run_once(config: BenchmarkConfig, tmp_path: Path) -> None:
    """One holds a run in hand while the other goes round it."""
    few = config.model_copy(update={"seeds": (0,)})
    one, other = Benchmark(few, tmp_path / "out"), Benchmark(few, tmp_path / "out")
    first = one.work()
    cell, events = next(first)
    assert cell.folder.name == "pretrain_jcl"
    next(events)
    second = other.work()
    made = []
    for _ in range(2):  # all that starts from scratch; what starts from the pre-training has to wait
        taken, happens = next(second)
        list(happens)
        made.append(taken.folder.name)
    assert all(name.startswith("scratch") for name in made)
    list(events)
    made += [cell.folder.name]
    for taken, happens in second:
        list(happens)
        made.append(taken.folder.name)
    assert list(first) == []
    assert sorted(made) == sorted(cell.folder.name for cell in one.cells)
    assert one.left() == other.left() == []


def test_more_methods_and_seeds_are_added_and_other_settings_are_refused(
    config: BenchmarkConfig, tmp_path: Path
) -> None:
    few = config.model_copy(update={"methods": ("scratch",), "seeds": (0,)})
    work(Benchmark(few, tmp_path / "out"))
    more = config.model_copy(update={"methods": ("scratch", "scratch+uafs"), "seeds": (0,)})
    benchmark = Benchmark(more, tmp_path / "out")
    assert sorted(work(benchmark)) == ["scratch+uafs_1_seed0", "scratch+uafs_3_seed0"]
    assert len(read_results(benchmark.folder)) == 4
    with pytest.raises(UserError, match=r"out holds a benchmark with other settings: steps\."):
        Benchmark(config.model_copy(update={"steps": 5}), tmp_path / "out")
    assert len(read_results(benchmark.folder)) == 4


def test_a_run_that_cannot_be_made_is_named_and_the_others_go_on(config: BenchmarkConfig, tmp_path: Path) -> None:
    given = {"methods": ("scratch", "tall"), "labelled": (1,), "seeds": (0,), "starts": {"tall": {"patch": (9, 9, 9)}}}
    benchmark = Benchmark(config.model_copy(update=given), tmp_path / "out")
    assert work(benchmark) == ["scratch_1_seed0"]
    assert list(benchmark.failed) == ["pretrain_tall"]
    assert "patch" in benchmark.failed["pretrain_tall"]
    assert [cell.folder.name for cell in benchmark.left()] == ["pretrain_tall", "tall_1_seed0"]
    found = report(benchmark)
    assert found is not None
    assert [one.method for one in found.figures] == ["scratch"]


def test_a_folder_without_masks_to_test_is_refused(blobs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs labelled cases on the sides train, val and test"):
        Benchmark(BenchmarkConfig(folder=blobs(scans=2, masks=0)), tmp_path / "out")
