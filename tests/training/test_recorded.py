"""A run is written down as it goes on, however it ends."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import platformdirs
import pytest
import torch

from napari_medcl.errors import Stopped, UserError
from napari_medcl.training import queue
from napari_medcl.training.events import Failed, Finished, Paused, Preparing, Resumed, Started, Stepped
from napari_medcl.training.queue import Ticket
from napari_medcl.training.recorded import recorded, taken_up
from napari_medcl.training.run import Run, create
from napari_medcl.training.state import write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_medcl.training.events import Event

PREPARING = Preparing(progress=0, message="reads")
STARTED = Started(
    run="r", stage="finetune", device="cpu", precision="float32", steps=5, minutes=None, cases=2, message="go"
)
STEPPED = Stepped(step=4, progress=0.8, terms={}, rate=0, remaining_s=1)
FINISHED = Finished(step=5, reason="done", message="over")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create("finetune", {"folder": "x"}, tmp_path / "run")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_LOOK_EVERY_S", 0.01)


def ending(*first: Event, by: BaseException) -> Callable[[], Iterator[Event]]:
    """Events, and then an error."""

    def events() -> Iterator[Event]:
        yield from first
        raise by

    return events


def waiting() -> list[Path]:
    return [*platformdirs.user_state_path("medcl", appauthor=False).rglob("*.ticket")]


def cpu() -> str:
    return "cpu"


def test_what_happens_is_in_the_folder_when_it_is_passed_on(run: Run) -> None:
    assert run.state == "starting"
    for number, event in enumerate(recorded(run, lambda: iter([PREPARING, STARTED, FINISHED]), cpu)):
        assert run.events()[0][number:] == [event]
        assert run.state == "running"
        assert len(waiting()) == 1
    assert run.state == "finished"
    assert not waiting()


def test_a_run_that_is_let_go_of_is_dead_and_holds_nothing(run: Run) -> None:
    with closing(recorded(run, lambda: iter([PREPARING, STARTED, FINISHED]), cpu)) as events:  # type: ignore[type-var]
        next(events)
        next(events)
    assert run.state == "dead"
    assert not waiting()


def test_two_do_not_write_one_folder(run: Run) -> None:
    first = recorded(run, lambda: iter([PREPARING, FINISHED]), None)
    next(first)
    run.call()
    with pytest.raises(UserError, match=f"Another process is training in {run.folder}"):
        next(recorded(run, lambda: iter([FINISHED]), None))
    assert [event.kind for event in run.events()[0]] == ["preparing"]
    assert run.state == "running"
    assert next(first) == FINISHED
    assert [*first] == []
    assert run.state == "finished", "not about to start"


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (UserError("No scan here."), UserError, "No scan here."),
        (OSError(28, "No space left on device"), UserError, r"cannot go on: .*No space left.* then resume it"),
        (torch.OutOfMemoryError("CUDA out of memory."), UserError, r"does not suffice: CUDA out of memory\..*smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), UserError, "does not suffice"),
        (MemoryError("17 GiB"), UserError, "does not suffice: 17 GiB"),
        (RuntimeError("shapes differ"), RuntimeError, r"RuntimeError: shapes differ .*fault of the program.*log\.txt"),
    ],
)
def test_what_went_wrong_is_written_down(error: Exception, raised: type[Exception], told: str, run: Run) -> None:
    with pytest.raises(raised):
        list(recorded(run, ending(STARTED, STEPPED, by=error), cpu))
    last = run.last_event()
    assert isinstance(last, Failed)
    assert last.step == 4
    assert run.state == "failed"
    assert not waiting()
    assert re.search(told, run.message)


def test_an_interruption_from_the_keyboard_is_no_failure(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(recorded(run, ending(STARTED, STEPPED, by=KeyboardInterrupt()), cpu))
    assert run.state == "dead"
    assert not waiting()


@pytest.mark.parametrize(("how", "state"), [("stop", "stopped"), ("pause", "paused")])
def test_an_end_while_the_data_are_read(how: str, state: str, run: Run) -> None:
    run.ask(how)  # type: ignore[arg-type]
    events = list(recorded(run, ending(PREPARING, by=Stopped()), None))
    assert run.state == state
    assert isinstance(events[-1], Finished | Paused)
    assert run.message == f"{state.capitalize()} before it began to train."


def test_it_waits_for_its_turn_and_says_for_whom(run: Run) -> None:
    ahead = Ticket("cpu", "the one before")
    events = recorded(run, lambda: iter([PREPARING, FINISHED]), cpu)
    first = next(events)
    assert (first.kind, run.state) == ("waiting", "queued")
    assert run.last_event() == first
    ahead.leave()
    assert [event.kind for event in events] == ["preparing", "finished"]


@pytest.mark.parametrize(("how", "state"), [("stop", "stopped"), ("pause", "paused")])
def test_an_end_while_it_waits(how: str, state: str, run: Run) -> None:
    ahead = Ticket("cpu", "the one before")
    events = recorded(run, lambda: iter([PREPARING, FINISHED]), cpu)
    next(events)
    run.ask(how)  # type: ignore[arg-type]
    assert len(list(events)) == 1
    assert run.state == state
    assert len(waiting()) == 1, "only the one before"
    ahead.leave()


def test_it_may_go_on_beside_others(run: Run) -> None:
    ahead = Ticket("cpu", "the one before")
    assert list(recorded(run, lambda: iter([PREPARING, FINISHED]), None)) == [PREPARING, FINISHED]
    ahead.leave()


def test_half_a_line_of_a_killed_process_does_not_spoil_the_next(run: Run) -> None:
    run.append(STARTED)
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "ste')
    list(recorded(run, lambda: iter([STEPPED, FINISHED]), None))
    assert run.events()[0] == [STARTED, STEPPED, FINISHED]


def said(run: Run) -> tuple[list[Event], object]:
    """What a run says first, and what it goes on from."""
    events: list[Event] = []
    words = taken_up(run)
    while True:
        try:
            events.append(next(words))
        except StopIteration as end:
            return events, end.value


def test_the_first_word(run: Run) -> None:
    events, state = said(run)
    assert (state, [event.kind for event in events]) == (None, ["preparing"])
    run.append(STARTED)
    events, state = said(run)
    assert (state, events[0].message) == (None, "Begins anew: no state was saved before it was interrupted.")
    write_state(run.checkpoints, 4, {"clock": {"step": 4}})
    (event,), state = said(run)
    assert isinstance(event, Resumed)
    assert (event.step, event.message, state) == (4, "Goes on after step 4.", {"clock": {"step": 4}})
