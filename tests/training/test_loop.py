"""The loop: schedule, averages, and a clean stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_medcl.training.config import PretrainConfig
from napari_medcl.training.events import Finished, Paused, Stepped
from napari_medcl.training.loop import Loop
from napari_medcl.training.run import Run, create
from tests.training.tasks import Falling

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(folder=tmp_path, steps=40)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create("pretrain", {}, tmp_path / "run")


def test_a_run_learns_measures_saves_and_ends(run: Run, config: PretrainConfig) -> None:
    task = Falling()
    events = list(Loop(run, config, task))
    kinds = [event.kind for event in events]
    assert kinds[-1] == "finished"
    assert [event.step for event in events if event.kind == "evaluated"] == [10, 20, 30, 40]
    assert len(task.rates) == 40
    assert task.weight.item() == pytest.approx(3, abs=0.1)
    assert float(run.checkpoint.read_text()) == pytest.approx(3, abs=0.1)  # type: ignore[union-attr]
    assert task.rates[0] < 0.05 * max(task.rates)
    assert max(task.rates) == pytest.approx(0.1)
    after = task.rates[task.rates.index(max(task.rates)) :]
    assert after == sorted(after, reverse=True)
    assert len(after) > 36


@pytest.mark.parametrize(("how", "measured"), [("stop", 1), ("pause", 0)])
def test_an_end_that_is_asked_for_comes_after_the_step_and_saves(
    how: str, measured: int, run: Run, config: PretrainConfig
) -> None:
    task, events = Falling(), []
    for event in Loop(run, config, task):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 7:
            run.ask(how)  # type: ignore[arg-type]
    assert len(task.rates) == 7
    last = events[-1]
    assert last.step == 7
    assert isinstance(last, Paused) if how == "pause" else isinstance(last, Finished) and last.reason == "stopped"
    assert [event.kind for event in events].count("evaluated") == measured
    assert run.checkpoint is not None
    assert {path.name[:14] for path in (run.folder / "checkpoints").glob("state-*")} == {"state-00000007"}


def test_time_ends_a_run_too(run: Run, config: PretrainConfig) -> None:
    events = list(Loop(run, config.model_copy(update={"steps": None, "minutes": 0.01}), Falling()))
    assert events[-1].kind == "finished"
    assert events[-1].step > 0
