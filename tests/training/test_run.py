"""The run folder: whoever reads it knows how it stands, at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training import run as runs
from napari_medcl.training.events import (
    Evaluated,
    Failed,
    Finished,
    Noted,
    Paused,
    Preparing,
    Resumed,
    Saved,
    Started,
    Stepped,
    Waiting,
    read_event,
)
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from pathlib import Path

PREPARING = Preparing(progress=0.5, message="scan 2 of 4")

EVENTS = [
    Started(run="r", stage="pretrain", device="cpu", precision="float32", steps=5, minutes=None, cases=2, message="go"),
    Stepped(step=1, progress=0.2, terms={"dice": float("nan")}, rate=0.1, remaining_s=4),
    Evaluated(step=1, dice={"a": 0.5}, mean=0.5, best=True),
    Saved(step=1, path="checkpoints/best.safetensors", best=True),
    Finished(step=5, reason="done", message="over"),
    Failed(step=5, message="no", hint="so"),
    Waiting(ahead=("one", "two"), message="waits"),
    Resumed(step=3, message="goes on"),
    Noted(step=3, message="smaller parts"),
    Paused(step=3, message="rests"),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return runs.create("finetune", {"folder": "x"}, tmp_path / "run")


@pytest.mark.parametrize("event", [PREPARING, *EVENTS], ids=lambda event: event.kind)
def test_an_event_survives_its_line(event: object) -> None:
    again = read_event(event.model_dump_json())  # type: ignore[attr-defined]
    assert type(again) is type(event)
    assert again.model_dump_json() == event.model_dump_json()  # type: ignore[attr-defined]


def test_events_are_read_on_from_where_one_stopped_and_half_a_line_waits(run: Run) -> None:
    run.append(EVENTS[0])
    first, offset = run.events()
    assert [event.kind for event in first] == ["started"]
    line = EVENTS[1].model_dump_json().encode()
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(line[:20])
    assert run.events(offset) == ([], offset)
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(line[20:] + b"\n")
    assert [event.kind for event in run.events(offset)[0]] == ["stepped"]


@pytest.mark.parametrize("length", [10, 5000, 300_000])
def test_the_last_event_may_be_long(length: int, run: Run) -> None:
    run.answer()
    run.append(EVENTS[0])
    run.append(Failed(step=5, message="x" * length))
    assert (run.state, run.message) == ("failed", "x" * length)


def test_all_that_is_said_but_the_steps_is_flushed_to_the_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: flushed.append(len(run.events()[0])))
    for event in (*EVENTS[:2], EVENTS[1], EVENTS[3]):
        run.append(event)
    assert flushed == [1, 4]


def test_a_line_that_a_crash_cut_short_does_not_hide_the_others(run: Run) -> None:
    run.append(EVENTS[0])
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "stepp\n')
    run.append(EVENTS[4])
    assert [event.kind for event in run.events()[0]] == ["started", "finished"]
    assert isinstance(run.last_event(), Finished)


def test_states(run: Run) -> None:
    assert run.state == "starting"
    run.answer()
    assert run.state == "dead"
    with run.locked():
        assert run.state == "running"
        run.append(Waiting(ahead=("other",), message="waits"))
        assert run.state == "queued"
        run.ask("pause")
        assert run.state == "pausing"
        run.ask("stop")
        assert run.state == "stopping"
    run.append(Paused(step=3, message="rests"))
    assert (run.state, run.message) == ("paused", "rests")
    run.append(EVENTS[4].model_copy(update={"reason": "stopped"}))
    assert (run.state, run.message) == ("stopped", "over")
    run.append(EVENTS[5])
    assert (run.state, run.message) == ("failed", "no so")
    run.append(EVENTS[4])
    assert run.state == "finished"


def test_a_run_that_was_called_and_never_came_is_what_it_was(run: Run) -> None:
    run.append(EVENTS[5])
    run.call()
    assert run.state == "starting"
    long_ago = time.time() - 1000
    os.utime(run.folder / "called", (long_ago, long_ago))
    assert run.state == "failed"


def test_what_was_asked_of_a_run_before_it_goes_on_does_not_count(run: Run) -> None:
    run.answer()
    run.ask("pause")
    run.ask("stop")
    run.call()
    assert run.asked() is None
    run.ask("stop")
    run.call()
    assert run.asked() == "stop", "asked after the first call, before the process took the run in hand"


def test_half_a_line_ends_before_the_next_event(run: Run) -> None:
    run.mend()
    run.append(EVENTS[0])
    whole = (run.folder / "events.jsonl").read_bytes()
    run.mend()
    assert (run.folder / "events.jsonl").read_bytes() == whole
    (run.folder / "events.jsonl").write_bytes(whole + b'{"kind": "stepp')
    assert isinstance(run.last_event(), Started)
    run.mend()
    run.append(EVENTS[4])
    assert [event.kind for event in run.events()[0]] == ["started", "finished"]


def test_a_second_run_in_a_folder_is_refused(run: Run) -> None:
    run.append(EVENTS[0])
    with pytest.raises(UserError, match="already holds a run"):
        runs.create("pretrain", {}, run.folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        runs.create("pretrain", {}, tmp_path / "file" / "run")


def test_no_run_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        _ = Run(tmp_path).config
    with pytest.raises(UserError, match="no model file"):
        runs.find_checkpoint(tmp_path / "nothing")
    with pytest.raises(UserError, match="no checkpoint yet"):
        runs.find_checkpoint(tmp_path)


def test_the_best_checkpoint_goes_before_the_last(run: Run) -> None:
    assert run.checkpoint is None
    for name in ("last", "best"):
        path = run.folder / "checkpoints" / f"{name}.safetensors"
        path.touch()
        assert run.checkpoint == path
    assert runs.find_checkpoint(run.folder) == run.folder / "checkpoints" / "best.safetensors"


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for name in ("20260101-a", "20260301-c", "20260201-b"):
        runs.create("pretrain", {}, tmp_path / name)
    (tmp_path / "not-a-run").mkdir()
    assert [run.name for run in runs.list_runs(tmp_path)] == ["20260301-c", "20260201-b", "20260101-a"]
    assert runs.list_runs(tmp_path / "nowhere") == []


def test_watching_a_run_loads_neither_torch_nor_qt() -> None:
    code = "import sys, napari_medcl.training.run; print({'torch', 'qtpy', 'napari'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_a_folder_that_cannot_be_listed_has_no_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert runs.list_runs(tmp_path / "file") == []


def test_what_goes_on_here(run: Run) -> None:
    assert run.goes_on_here(), "it was called a moment ago"
    run.answer()
    assert not run.goes_on_here()
    with run.locked():
        assert run.goes_on_here()
        (run.folder / "owner.json").write_text('{"host": "another-machine", "process": 1}')
        assert not run.goes_on_here()
