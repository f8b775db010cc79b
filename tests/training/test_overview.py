from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.errors import Stopped
from napari_medcl.methods import JCL, SuperCL
from napari_medcl.training.events import Evaluated, Finished, Paused, Stepped, Waiting
from napari_medcl.training.overview import Overview
from napari_medcl.training.run import Run, create

if TYPE_CHECKING:
    from pathlib import Path


def a_run(root: Path, name: str, *events: Any, stage: Any = "finetune", **config: Any) -> Run:
    run = create(stage, {"folder": "/data/ACDC", **config}, root / name)
    run.answer()
    for event in events:
        run.append(event)
    return run


def step(number: int, time: float = 10.0) -> Stepped:
    return Stepped(time=time, step=number, progress=number / 10, terms={"dice": 0.5}, rate=0.1, remaining_s=90)


def test_what_is_known_at_a_glance(tmp_path: Path) -> None:
    score = Evaluated(time=11, step=4, dice={"liver": 0.75}, mean=0.75, best=True)
    worse = Evaluated(time=12, step=5, dice={"liver": 0.5}, mean=0.5, best=False)
    run = a_run(tmp_path, "b", step(4), score, worse, Paused(step=5, message="rests"), steps=10)
    (run.folder / "checkpoints" / "last.safetensors").touch()
    (brief,) = Overview(tmp_path).look()
    assert (brief.run, brief.state, brief.stage, brief.method, brief.data) == (run, "paused", "finetune", "", "ACDC")
    assert (brief.steps, brief.minutes, brief.progress, brief.remaining_s) == (10, None, 0.4, None)
    assert (brief.dice, brief.began, brief.usable, brief.alive) == (0.75, 10, True, False)


def test_whom_a_run_waits_for(tmp_path: Path) -> None:
    run = a_run(tmp_path, "a", Waiting(ahead=("x", "y"), message="Waits for x and 1 more to leave the device."))
    with run.locked():
        (brief,) = Overview(tmp_path).look()
        assert (brief.state, brief.ahead, brief.alive) == ("queued", ("x", "y"), True)
        run.append(step(1))
        (brief,) = Overview(tmp_path).look()
        assert (brief.state, brief.ahead) == ("running", ())


@pytest.mark.parametrize(
    ("stage", "method", "title"),
    [
        ("pretrain", {"name": "supercl", "positives": "supercl", "intra": 1.0}, "SuperCL"),
        ("pretrain", {"name": "supercl", "positives": "position", "intra": 0.0, "inter": 0.0}, "PCL"),
        ("pretrain", SuperCL().model_dump(), "SuperCL"),
        ("pretrain", SuperCL(positives="position").model_dump(), "SuperCL"),
        ("pretrain", JCL(positives="position", head_norm=False).model_dump(), "JCL-paper"),
        ("finetune", {"name": "pdcr"}, "PDCR"),
        ("finetune", {"name": "of tomorrow"}, "of tomorrow"),
        ("finetune", None, ""),
        ("finetune", 3, ""),
    ],
)
def test_methods_have_the_names_they_were_chosen_by(tmp_path: Path, stage: Any, method: Any, title: str) -> None:
    a_run(tmp_path, "a", stage=stage, method=method)
    (brief,) = Overview(tmp_path).look()
    assert brief.method == title


@pytest.mark.parametrize(
    ("folder", "data"), [(r"C:\data\ACDC", "ACDC"), ("/runs/a/inputs", "open scans"), ("/data/ACDC/", "ACDC")]
)
def test_data_are_named_after_their_folder(tmp_path: Path, folder: str, data: str) -> None:
    a_run(tmp_path, "a", folder=folder)
    (brief,) = Overview(tmp_path).look()
    assert brief.data == data


@pytest.mark.parametrize(
    ("asked", "steps", "minutes"),
    [({}, 2000, None), ({"minutes": 5.0}, None, 5.0), ({"steps": 7, "minutes": 5.0}, 7, 5.0)],
)
def test_by_what_a_run_is_counted(tmp_path: Path, asked: Any, steps: int | None, minutes: float | None) -> None:
    a_run(tmp_path, "a", **asked)
    (brief,) = Overview(tmp_path).look()
    assert (brief.steps, brief.minutes) == (steps, minutes)


def test_newest_comes_first_whatever_the_names(tmp_path: Path) -> None:
    for name, time in (("a", 30.0), ("b", 10.0), ("c", 20.0)):
        a_run(tmp_path, name, step(1, time))
    assert [brief.run.name for brief in Overview(tmp_path).look()] == ["a", "c", "b"]


def test_each_look_sees_what_has_changed(tmp_path: Path) -> None:
    first, second = a_run(tmp_path, "1", step(1)), a_run(tmp_path, "2", step(1))
    overview = Overview(tmp_path)
    assert [brief.state for brief in overview.look()] == ["dead", "dead"]
    first.append(Finished(step=10, reason="done", message="Done."))
    second.call()
    third = a_run(tmp_path, "3", step(1))
    assert {brief.run.name: brief.state for brief in overview.look()} == {"1": "finished", "2": "starting", "3": "dead"}
    shutil.rmtree(third.folder)
    second.answer()
    assert {brief.run.name: brief.state for brief in overview.look()} == {"1": "finished", "2": "dead"}


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path, "1", step(8), Finished(step=8, reason="done", message="Done."))
    overview = Overview(tmp_path)
    before = overview.look()
    monkeypatch.setattr(Run, "config", property(lambda _: pytest.fail("read again")))
    assert overview.look() == before


def test_bad_folders_harm_nothing(tmp_path: Path) -> None:
    assert Overview(tmp_path / "nowhere").look() == ()
    for name, text in (("1", "{"), ("2", "[]"), ("3", '{"folder": 3, "method": "x", "steps": "many"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "file").touch()
    found = {brief.run.name: brief for brief in Overview(tmp_path).look()}
    assert set(found) == {"1", "2", "3"}
    assert found["1"].stage is found["2"].stage is None
    assert {brief.state for brief in found.values()} == {"dead"}


def test_a_look_can_be_given_up(tmp_path: Path) -> None:
    a_run(tmp_path, "1")
    with pytest.raises(Stopped):
        Overview(tmp_path).look(stop=lambda: True)
