"""What a run shows of itself on the terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from napari_medcl.terminal import follow
from napari_medcl.training.events import Noted, Paused, Preparing, Resumed, Started, Stepped, Waiting

STEP = Stepped(step=5, progress=0.5, terms={"dice": 0.25}, rate=0.1, remaining_s=90)
EVENTS = [
    Waiting(ahead=("first",), message="Waits for first to leave the device."),
    Resumed(step=4, message="Goes on after step 4."),
    Preparing(progress=0.2, message="scan 2 of 9"),
    Started(
        run="r", stage="finetune", device="cpu", precision="float32", steps=9, minutes=None, cases=3, message="[i] go"
    ),
    STEP,
    STEP.model_copy(update={"step": 6, "progress": 0.52}),
    Noted(step=6, message="It goes on in 2 parts."),
    Paused(step=6, message="Paused after 6 steps."),
]
LINES = [
    "Waits for first to leave the device.",
    "Goes on after step 4.",
    "finetune on cpu (float32): [i] go",
    "It goes on in 2 parts.",
    "Paused after 6 steps.",
]


def test_without_a_screen_there_is_a_line_now_and_then() -> None:
    console = Console(file=StringIO(), width=40)
    assert follow(iter(EVENTS), console) is EVENTS[-1]
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == [*LINES[:3], " 50%  step 5  dice 0.250  2 min left", *LINES[3:]]


@pytest.mark.parametrize(
    ("last", "bar"),
    [(1, "waiting  "), (2, "waiting  "), (3, "reading ━"), (4, "finetune  "), (5, "50 % dice 0.250  2 min left")],
)
def test_on_a_screen_a_bar_says_what_it_does(last: int, bar: str) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=120, height=20, color_system=None)
    follow(iter(EVENTS[:last]), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert bar in shown
    assert all(line in shown for line in LINES[: min(last, 2)])
