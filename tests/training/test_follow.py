from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_medcl.training import follow
from napari_medcl.training.events import Evaluated, Finished, Resumed, Stepped
from napari_medcl.training.follow import Follower
from napari_medcl.training.history import MEAN
from napari_medcl.training.run import Run, create

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create("finetune", {"folder": "x"}, tmp_path / "run")


def stepped(step: int) -> Stepped:
    return Stepped(step=step, progress=step / 100, terms={"dice": 1 / step}, rate=0.1, remaining_s=100 - step)


def steps(follower: Follower) -> list[float]:
    return follower.history.terms["dice"].steps


def test_each_look_takes_in_what_is_new(run: Run) -> None:
    follower = Follower(run)
    assert follower.look() == 0
    run.append(stepped(1))
    read = follower.look()
    assert read == follower.look() > 0
    run.append(stepped(2))
    assert follower.look() > read
    assert steps(follower) == [1, 2]


def test_half_a_line_waits_and_a_broken_one_is_passed_over(run: Run) -> None:
    follower, line = Follower(run), stepped(1).model_dump_json().encode()
    events = run.folder / "events.jsonl"
    events.write_bytes(b'{"kind": "stepp\n' + line[:20])
    assert follower.look() == follower.look() == len('{"kind": "stepp\n')
    assert follower.history.terms == {}
    events.write_bytes(events.read_bytes() + line[20:] + b"\n")
    follower.look()
    assert steps(follower) == [1]


@pytest.mark.parametrize("block", [1, 300, 1 << 18])
def test_without_curves_the_rest_is_told_the_same(run: Run, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_BLOCK", block)
    for step in range(1, 41):
        run.append(stepped(step))
        if step in (10, 30):
            run.append(Evaluated(step=step, dice={"liver": step / 100}, mean=step / 100, best=True))
    run.append(Resumed(step=20, message="Goes on after step 20."))
    run.append(stepped(21))
    whole, brief = Follower(run), Follower(run, curves=False)
    whole.look()
    brief.look()
    assert steps(whole) == [*range(1, 21), 21]
    assert set(steps(brief)) <= set(steps(whole))
    for name in ("dice", "lines", "progress", "remaining_s", "step", "best_dice", "began"):
        assert getattr(brief.history, name) == getattr(whole.history, name), name
    assert brief.history.dice[MEAN].values == [0.1]


def test_without_curves_most_steps_are_passed_over(run: Run) -> None:
    for step in range(1, 41):
        run.append(stepped(step))
    brief = Follower(run, curves=False)
    brief.look()
    assert steps(brief) == [1, 40]


def test_another_run_in_the_folder_is_read_from_its_beginning(run: Run) -> None:
    follower = Follower(run)
    for event in (stepped(1), stepped(2), Finished(step=2, reason="done", message="Done.")):
        run.append(event)
    follower.look()
    (run.folder / "events.jsonl").unlink()
    follower.look()
    run.append(stepped(7))
    follower.look()
    assert steps(follower) == [7]
