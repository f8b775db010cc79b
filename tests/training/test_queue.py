"""The queue of a device: first come, first served, and nobody waits for the dead."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import platformdirs
import pytest

from napari_medcl.errors import Stopped, UserError
from napari_medcl.training import queue
from napari_medcl.training.queue import Ticket, wait_for_turn

if TYPE_CHECKING:
    from pathlib import Path

WAIT = """
import sys
from napari_medcl.training.queue import Ticket, wait_for_turn
ticket = Ticket("cpu", sys.argv[1])
print("in the queue", flush=True)
for event in wait_for_turn(ticket, lambda: False):
    print(event.message, flush=True)
print("has its turn", flush=True)
input()
ticket.leave()
"""


class Waiter:
    """A process that waits in the queue, keeps its turn until it is told to leave."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-c", WAIT, name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.says() == "in the queue"

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_LOOK_EVERY_S", 0.02)


def tickets() -> list[Path]:
    return [*platformdirs.user_state_path("medcl", appauthor=False).rglob("*.ticket")]


def test_the_first_has_its_turn_at_once() -> None:
    ticket = Ticket("cpu", "one")
    assert not [*wait_for_turn(ticket, lambda: False)]
    ticket.leave()
    assert not tickets()


def test_those_before_are_named_in_their_order_and_the_changes_told() -> None:
    one, two, three = Ticket("cpu", "one"), Ticket("cpu", "two"), Ticket("cpu", "three")
    assert three.ahead() == ("one", "two")
    assert two.ahead() == ("one",)
    waiting = wait_for_turn(three, lambda: False)
    first = next(waiting)
    assert (first.kind, first.message) == ("waiting", "Waits for one and 1 more to leave the device.")
    one.leave()
    assert next(waiting).message == "Waits for two to leave the device."
    assert not two.ahead()
    two.leave()
    assert not [*waiting]
    three.leave()


def test_a_later_one_may_leave_before_it_has_its_turn() -> None:
    one, two, three = Ticket("cpu", "one"), Ticket("cpu", "two"), Ticket("cpu", "three")
    two.leave()
    assert three.ahead() == ("one",)
    one.leave()
    assert not three.ahead()
    three.leave()


def test_a_number_that_is_free_again_is_the_next_ones() -> None:
    one, two = Ticket("cpu", "one"), Ticket("cpu", "two")
    two.leave()
    three = Ticket("cpu", "three")
    four = Ticket("cpu", "four")
    assert four.ahead() == ("one", "three")
    for ticket in (one, three, four):
        ticket.leave()
    assert not tickets()


def test_devices_have_queues_of_their_own() -> None:
    one, other = Ticket("cpu", "one"), Ticket("cuda-0", "other")
    assert not other.ahead()
    one.leave()
    other.leave()


@pytest.mark.parametrize("what", [True, False])
def test_a_stop_ends_the_wait(what: bool) -> None:
    one, two = Ticket("cpu", "one"), Ticket("cpu", "two")
    asked = [what, True]
    waiting = wait_for_turn(two, lambda: asked.pop(0))
    if not what:
        next(waiting)
    with pytest.raises(Stopped):
        next(waiting)
    two.leave()
    one.leave()


def test_a_place_without_a_name_is_still_a_place() -> None:
    one, two = Ticket("cpu", "one"), Ticket("cpu", "two")
    for path in platformdirs.user_state_path("medcl", appauthor=False).rglob("*.name"):
        path.unlink()
    assert two.ahead() == ("another run",)
    one.leave()
    two.leave()


def test_a_queue_that_cannot_be_written_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"The queue in .* cannot be written.*start the run beside others \(--now\)"):
        Ticket("cpu", "one")


def test_three_processes_go_one_after_another() -> None:
    one = Waiter("one")
    assert one.says() == "has its turn"
    two, three = Waiter("two"), Waiter("three")
    assert two.says() == "Waits for one to leave the device."
    assert three.says() == "Waits for one and 1 more to leave the device."
    one.leave()
    assert two.says() == "has its turn"
    assert three.says() == "Waits for two to leave the device."
    two.leave()
    assert three.says() == "has its turn"
    three.leave()
    assert not tickets()


def test_nobody_waits_for_a_process_that_was_killed() -> None:
    one, two, three = Waiter("one"), Waiter("two"), Waiter("three")
    assert one.says() == "has its turn"
    assert three.says() == "Waits for one and 1 more to leave the device."
    two.kill()
    assert three.says() == "Waits for one to leave the device."
    one.kill()
    assert three.says() == "has its turn"
    three.kill()
    four = Ticket("cpu", "four")
    assert not four.ahead()
    four.leave()
    assert not tickets()
