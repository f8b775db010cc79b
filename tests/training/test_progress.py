"""How far a run is, and what it says of it."""

from __future__ import annotations

import pytest
import torch

from napari_medcl.training import progress
from napari_medcl.training.progress import Clock, Meter


class Time:
    """Time that goes on when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(progress, "time", made)
    return made


def clock(steps: int | None, minutes: float | None, time: Time) -> Clock:
    return Clock(steps, minutes, _began=time.now)


def test_steps_end_a_run(time: Time) -> None:
    found = clock(200, None, time)
    assert (found.progress, found.remaining_s) == (0, 0)
    found.step, time.now = 50, time.now + 30
    assert (found.progress, found.elapsed_s, found.remaining_s) == (0.25, 30, 90)
    found.step = 200
    assert (found.progress, found.remaining_s) == (1, 0)


def test_time_ends_a_run(time: Time) -> None:
    found = clock(None, 2, time)
    found.step, time.now = 5, time.now + 30
    assert (found.progress, found.remaining_s) == (0.25, 90)
    time.now += 1000
    assert found.progress == 1


@pytest.mark.parametrize(("step", "seconds", "expected"), [(80, 6, 0.8), (10, 30, 0.5), (0, 0, 0)])
def test_whichever_comes_first_ends_a_run(step: int, seconds: float, expected: float, time: Time) -> None:
    found = clock(100, 1, time)
    found.step, time.now = step, time.now + seconds
    assert found.progress == expected


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (4, [1, 2, 3, 4]),
        (1999, [*range(1, 1999), 1999]),
        (2003, [*range(2, 2003, 2), 2003]),
        (50_007, [*range(20, 50_007, 20), 50_007]),
    ],
)
def test_losses_are_said_at_steps_that_the_settings_decide(steps: int, said: list[int]) -> None:
    assert [step for step in range(1, steps + 1) if Clock(steps, None, step).says()] == said


def test_without_a_number_of_steps_every_fifth_is_said() -> None:
    assert [step for step in range(1, 21) if Clock(None, 3, step).says()] == [5, 10, 15, 20]


def test_the_time_in_which_it_was_interrupted_does_not_count(time: Time) -> None:
    one = clock(100, 1, time)
    one.step, time.now = 10, time.now + 30
    state = one.state()
    time.now += 10_000
    other = clock(100, 1, time)
    other.restore(state)
    assert (other.step, other.elapsed_s, other.progress) == (10, 30, 0.5)
    assert other.since_joined == 1, "no extension"
    time.now += 15
    assert other.progress == 0.75


@pytest.mark.parametrize(
    ("longer", "joined"), [((200, None), 0.25), ((100, None), None)], ids=["extended", "only interrupted"]
)
def test_more_to_do_is_an_extension_from_there(longer: tuple[int, None], joined: float | None, time: Time) -> None:
    one = clock(100, None, time)
    one.step = 50
    other = clock(*longer, time)
    other.restore(one.state())
    assert other.joined == joined


def test_a_timed_run_is_extended_from_its_time(time: Time) -> None:
    one = clock(None, 1, time)
    one.step, time.now = 7, time.now + 60
    other = clock(None, 4, time)
    other.restore(one.state())
    assert (other.joined, other.progress, other.since_joined) == (0.25, 0.25, 0)
    time.now += 90
    assert other.since_joined == 0.5


def test_an_extension_that_is_interrupted_stays_the_same_one(time: Time) -> None:
    one = clock(100, None, time)
    one.step = 100
    two = clock(200, None, time)
    two.restore(one.state())
    assert (two.joined, two.since_joined) == (0.5, 0)
    two.step = 150
    three = clock(200, None, time)
    three.restore(two.state())
    assert (three.joined, three.since_joined) == (0.5, 0.5)
    four = clock(300, None, time)
    four.restore(three.state())
    assert (four.joined, four.since_joined) == (0.5, 0)


def test_the_meter_says_means_and_begins_anew() -> None:
    meter = Meter()
    assert meter.take() == {}
    for value in (1.0, 3.0):
        meter.add({"a": torch.tensor(value)})
    assert meter.take() == {"a": 2.0}
    meter.add({"a": torch.tensor(5.0), "b": torch.tensor(1.0)})
    assert meter.take() == {"a": 5.0, "b": 1.0}


def test_a_mean_goes_on_after_an_interruption() -> None:
    one = Meter()
    one.add({"a": torch.tensor(1.0)})
    other = Meter()
    other.restore(one.state())
    other.add({"a": torch.tensor(3.0)})
    assert other.take() == {"a": 2.0}
    assert one.take() == {"a": 1.0}
