"""Runs and tables on the terminal."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from napari_medcl.training.events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    Preparing,
    Previewed,
    Resumed,
    Saved,
    Started,
    Stepped,
    Waiting,
)
from napari_medcl.training.history import duration
from napari_medcl.training.launch import follows, several

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from rich.console import Console

    from napari_medcl.inference.table import Table as Scored
    from napari_medcl.training.run import Run

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
_PLAIN_EVERY = 0.05
"""Without a terminal a line is printed each time so much of the run is done."""


def attend(run: Run, events: Iterator[Event], console: Console) -> None:
    """Shows a run of this process to its end; of several processes that train together the first one does.

    The first interruption, Ctrl+C or the signal TERM, asks for a pause; the next one ends the process at once.
    `torchrun` passes an interruption on, perhaps twice, and ends what has not ended half a minute later.
    """
    if follows():
        for number in _INTERRUPTIONS:
            signal.signal(number, signal.SIG_IGN)
        deque(events, maxlen=0)
        return
    say(console, f"Run folder: {run.folder}")
    watch(run, events, console, f"medcl runs resume {run.folder}")
    state, model = run.state, run.checkpoint
    if state != "paused" and model is not None:
        say(console, f"Model: {model}")
    if state != "finished":
        say(console, f"To go on: medcl runs resume {run.folder}")


def watch(run: Run, events: Iterator[Event], console: Console, again: str) -> None:
    """Shows what happens in a run of this process, which the first interruption pauses and the next one ends at once.

    Args:
        run: The run.
        events: What happens.
        console: Where to show it.
        again: What goes on with a run that was ended at once.

    Raises:
        SystemExit: It was ended at once.
    """
    try:
        with _pausing(run, console):
            follow(events, console)
    except KeyboardInterrupt:
        say(console, f"Ended at once. To go on from the last saved state: {again}")
        raise SystemExit(130) from None


def say(console: Console, line: str) -> None:
    """Prints a line as it is: nothing in it is markup, and a path in it can be copied."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)


@contextlib.contextmanager
def _pausing(run: Run, console: Console) -> Iterator[None]:
    interrupted = False

    def pause(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            if several():
                return
            raise KeyboardInterrupt
        interrupted = True
        run.ask("pause")
        with contextlib.suppress(RuntimeError):  # it came in the middle of a word to the same stream
            say(console, f"Pauses after this step{'' if several() else '; once more ends it at once'}.")

    before = {number: signal.signal(number, pause) for number in _INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(events: Iterator[Event], console: Console) -> Event | None:
    """Shows a run while it goes on: a bar on a terminal, plain lines elsewhere.

    Returns:
        The last event.
    """
    last: Event | None = None
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[told]}"), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("starting", total=1.0, told="")
        said = -_PLAIN_EVERY
        for last in events:
            match last:
                case Waiting():
                    bar.update(task, description="waiting", told="")
                case Preparing():
                    bar.update(task, description="reading", completed=last.progress, told=last.message)
                case Started():
                    bar.update(task, description=last.stage, completed=0, told="")
                case Stepped():
                    told = _told(last)
                    bar.update(task, completed=last.progress, told=told)
                    if not console.is_terminal and last.progress - said >= _PLAIN_EVERY:
                        said = last.progress
                        say(console, f"{last.progress:4.0%}  step {last.step}  {told}")
            if (line := describe(last)) is not None:
                say(console, line)
    return last


def _told(event: Stepped) -> str:
    terms = ", ".join(f"{name} {value:.3f}" for name, value in event.terms.items())
    return f"{terms}  {duration(event.remaining_s)} left" if event.remaining_s else terms


def describe(event: Event) -> str | None:
    """An event as a line; None for those that are too many to be printed."""
    match event:
        case Started():
            return f"{event.stage} on {event.device} ({event.precision}): {event.message}"
        case Evaluated():
            dice = ", ".join(f"{name} {number(value)}" for name, value in event.dice.items())
            best = "  best so far" if event.best else ""
            return f"step {event.step}: validation Dice {event.mean:.4f} ({dice}){best}"
        case Finished():
            return f"{'Stopped' if event.reason == 'stopped' else 'Done'}: {event.message}"
        case Failed():
            return f"Failed: {event.message} {event.hint}".rstrip()
        case Preparing() | Saved() | Previewed() | Stepped():
            return None
        case _:
            return event.message


def journal(events: Iterable[Event]) -> list[str]:
    """What a run said, with the time; each thing once, however often it was resumed, and no wait that is over."""
    told: list[tuple[Event, str]] = []
    for event in events:
        if isinstance(event, Resumed):
            told = [(one, line) for one, line in told if not _said_again(one, event.step)]
        told = [(one, line) for one, line in told if not isinstance(one, Waiting)]
        line = describe(event)
        if line is not None and line not in [before for _, before in told]:
            told.append((event, line))
    return [f"{clock(event.time)}  {line}" for event, line in told]


def _said_again(event: Event, step: int) -> bool:
    """Whether a run that goes on after a step comes by this once more."""
    return isinstance(event, Evaluated | Noted) and event.step > step


def clock(seconds: float) -> str:
    """Date and time of day of so many seconds after 1970."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def number(value: float) -> str:
    """Three decimals; a dash where nothing is defined."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def table(title: str, columns: list[str], rows: list[list[str]], words: int = 1) -> Table:
    """A table for the console; the first columns are text, as many as `words` says, the others numbers."""
    made = Table(title=escape(title), title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(escape(column), justify="left" if index < words else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def scores(found: Scored, console: Console) -> None:
    """Shows the means of an evaluation, and how many predictions they leave out."""
    summary = found.summary()
    rows = [
        [
            one.name,
            str(one.cases),
            f"{number(one.dice)} ± {number(one.dice_sd)}",
            *(number(value) for value in (one.jaccard, one.hd95_mm, one.asd_mm)),
        ]
        for one in summary.classes
    ]
    console.print(table("Means over the cases", ["class", "cases", "Dice", "Jaccard", "HD95 mm", "ASD mm"], rows))
    for one in summary.classes:
        counts = {"empty": one.empty, "where there is none": one.false_positives, "missing": one.missing}
        if told := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
            console.print(f"{one.name}, predictions: {told}", highlight=False)
    console.print(f"Mean Dice {number(summary.dice)} over {summary.cases} cases; an empty prediction counts as 0.")
