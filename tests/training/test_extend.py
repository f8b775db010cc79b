"""Runs that are trained on beyond what was asked for."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.training import loop
from napari_medcl.training.events import Finished, Resumed, Stepped
from napari_medcl.training.resume import extend, resume
from napari_medcl.training.run import Run
from tests.training.runs import CONFIGS, begin, end_at, numbers, same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.training.events import Event


@pytest.fixture
def data(blobs: Callable[..., Path]) -> Path:
    return blobs()


@pytest.fixture
def finished(data: Path, tmp_path: Path) -> Run:
    """A run of twelve steps."""
    list(begin(CONFIGS["plain"](data), tmp_path / "run"))
    return Run(tmp_path / "run")


def rates(events: list[Event]) -> dict[int, float]:
    return {event.step: event.rate for event in events if isinstance(event, Stepped)}


def test_the_rate_becomes_that_of_the_longer_run_after_a_rise(finished: Run, data: Path, tmp_path: Path) -> None:
    longer = rates(list(begin(CONFIGS["plain"](data).model_copy(update={"steps": 72}), tmp_path / "longer")))
    events = list(extend(finished.folder, steps=60))
    assert isinstance(events[0], Resumed)
    assert events[0].step == 12
    found = rates(events)
    assert [*found] == [*range(13, 73)]
    assert [found[12 + k] / longer[12 + k] for k in range(1, 3)] == pytest.approx([1 / 3, 2 / 3])
    assert {step: found[step] for step in range(15, 73)} == {step: longer[step] for step in range(15, 73)}
    assert finished.config["steps"] == 72
    assert (finished.state, events[-1].step) == ("finished", 72)  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["plain", "supercl"])
def test_a_crash_in_an_extension_changes_nothing(
    what: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(begin(CONFIGS[what](data), tmp_path / "run"))
    shutil.copytree(tmp_path / "run", tmp_path / "crashed")
    expected = numbers(list(extend(tmp_path / "run", steps=12)))
    crashed = Run(tmp_path / "crashed")
    end_at(extend(crashed.folder, steps=12), crashed, 15, "kill")
    assert (crashed.state, crashed.config["steps"]) == ("dead", 24)
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    first = end_at(resume(crashed.folder), crashed, 17, "kill")
    assert first[0].step == 12, "nothing was saved of the extension yet"  # type: ignore[union-attr]
    last = list(resume(crashed.folder))
    assert last[0].step == 16  # type: ignore[union-attr]
    assert same(crashed.folder, tmp_path / "run")
    found = numbers(crashed.events()[0])
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_run_that_was_ended_early_is_extended_from_there(how: str, data: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    end_at(begin(CONFIGS["plain"](data), run.folder), run, 4, how)
    events = list(extend(run.folder, steps=4))
    assert events[0].step == 4  # type: ignore[union-attr]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.step, last.reason) == (16, "done")


def test_it_is_extended_twice(finished: Run) -> None:
    list(extend(finished.folder, steps=3))
    events = list(extend(finished.folder, steps=5))
    assert [*rates(events)] == [*range(16, 21)]
    assert finished.config["steps"] == 20
    assert [*numbers(finished.events()[0])][-1] == ("dice", 20)


def test_an_extension_that_was_interrupted_before_its_first_word_goes_on(finished: Run) -> None:
    write_json(finished.folder / "config.json", {**finished.config, "steps": 15})
    assert [*rates(list(resume(finished.folder)))] == [13, 14, 15]


def test_a_run_without_a_number_of_steps_had_the_default(data: Path, tmp_path: Path) -> None:
    config = CONFIGS["plain"](data).model_copy(update={"steps": None})
    run = Run(tmp_path / "run")
    end_at(begin(config, run.folder), run, 20, "pause")
    end_at(extend(run.folder, steps=100), run, 20, "pause")
    assert run.config["steps"] == config.default_steps + 100


def test_a_timed_run_is_extended_by_time(data: Path, tmp_path: Path) -> None:
    config = CONFIGS["plain"](data).model_copy(update={"steps": None, "minutes": 0.02})
    begun = list(begin(config, tmp_path / "run"))
    events = list(extend(tmp_path / "run", minutes=0.02))
    assert Run(tmp_path / "run").config["minutes"] == 0.04
    assert events[-1].step > begun[-1].step  # type: ignore[union-attr]
    first = next(event for event in events if isinstance(event, Stepped))
    assert first.progress >= 0.5


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"minutes": 5}, r"run is counted in steps, 12 of them\. Extend it by --steps"),
        ({}, "Say how much further: --steps 1000 or --minutes 10"),
        ({"steps": 0}, "Say how much further"),
        ({"steps": -5}, "Say how much further"),
        ({"minutes": -1.0}, "Say how much further"),
    ],
)
def test_what_makes_no_extension_is_refused(more: dict[str, float], told: str, finished: Run) -> None:
    before = finished.config
    with pytest.raises(UserError, match=told):
        extend(finished.folder, **more)  # type: ignore[arg-type]
    assert finished.config == before
    assert finished.state == "finished"


def test_a_timed_run_is_not_extended_by_steps(data: Path, tmp_path: Path) -> None:
    config = CONFIGS["plain"](data).model_copy(update={"steps": None, "minutes": 0.005})
    list(begin(config, tmp_path / "run"))
    with pytest.raises(UserError, match=r"run is timed, 0\.005 min\. Extend it by --minutes"):
        extend(tmp_path / "run", steps=10)


def test_of_two_limits_both_are_put_off(data: Path, tmp_path: Path) -> None:
    """The one that is left where it is would end the run at once."""
    config = CONFIGS["plain"](data).model_copy(update={"steps": 4, "minutes": 30.0})
    list(begin(config, tmp_path / "run"))
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=rf"has two limits.*{run.to_extend}"):
        extend(run.folder, steps=3)
    assert run.to_extend.endswith("--steps 1000 --minutes 10")
    events = list(extend(run.folder, steps=3, minutes=1))
    assert events[-1].step == 7  # type: ignore[union-attr]


def test_what_is_refused_leaves_the_run_as_it_was(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object) -> None:
        raise UserError("no")

    monkeypatch.setattr("napari_medcl.training.resume.check", refuse)
    before = finished.config
    with pytest.raises(UserError, match="no"):
        extend(finished.folder, steps=3)
    assert finished.config == before


def test_one_that_goes_on_is_not_extended(finished: Run) -> None:
    before = finished.config
    with finished.locked(), pytest.raises(UserError, match="run goes on already"):
        extend(finished.folder, steps=10)
    assert finished.config == before
