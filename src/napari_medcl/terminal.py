"""Runs and tables on the terminal."""

from __future__ import annotations

import contextlib
import math
import signal
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from napari_medcl.training.events import Evaluated, Event, Finished, Preparing, Previewed, Saved, Started, Stepped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from rich.console import Console

    from napari_medcl.inference.table import Table as Scored
    from napari_medcl.training.run import Run

_PLAIN_EVERY = 0.05
"""Without a terminal a line is printed each time so much of the run is done."""


def attend(run: Run, events: Iterator[Event], console: Console) -> None:
    """Shows a run of this process to its end.

    The first interruption, Ctrl+C or the signal TERM, asks for a pause; the next one ends the process at once.
    """
    console.print(f"Run folder: {run.folder}", soft_wrap=True, highlight=False)
    try:
        with _pausing(run, console):
            follow(events, console)
    except KeyboardInterrupt:
        console.print(f"Ended at once. To go on from the last saved state: medcl runs resume {run.folder}")
        raise SystemExit(130) from None
    if run.state == "paused":
        console.print(f"To go on: medcl runs resume {run.folder}", soft_wrap=True, highlight=False)
    elif (model := run.checkpoint) is not None:
        console.print(f"Model: {model}", soft_wrap=True, highlight=False)


@contextlib.contextmanager
def _pausing(run: Run, console: Console) -> Iterator[None]:
    def pause(number: int, frame: FrameType | None) -> None:
        if run.end_asked():
            raise KeyboardInterrupt
        run.ask("pause")
        console.print("Pauses after this step; once more ends it at once.", highlight=False)

    before = {number: signal.signal(number, pause) for number in (signal.SIGINT, signal.SIGTERM)}
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
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}"), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("reading", total=1.0, terms="")
        said = 0.0
        for last in events:
            if isinstance(last, Stepped):
                terms = ", ".join(f"{name} {value:.3f}" for name, value in last.terms.items())
                bar.update(task, completed=last.progress, terms=terms)
                if not console.is_terminal and last.progress - said >= _PLAIN_EVERY:
                    said = last.progress
                    console.print(
                        f"{last.progress:4.0%}  step {last.step}  {terms}  {last.remaining_s:.0f} s left",
                        highlight=False,
                    )
            elif isinstance(last, Preparing):
                bar.update(task, completed=last.progress, terms=last.message)
            elif isinstance(last, Started):
                bar.update(task, description=last.stage, completed=0)
            if (line := describe(last)) is not None:
                console.print(line, highlight=False)
    return last


def describe(event: Event) -> str | None:
    """An event as a line; None for those that are too many to be printed."""
    match event:
        case Started():
            return f"{event.stage} on {event.device} ({event.precision}): {event.message}"
        case Evaluated():
            dice = ", ".join(f"{name} {value:.3f}" for name, value in event.dice.items())
            best = "  best so far" if event.best else ""
            return f"step {event.step}: validation Dice {event.mean:.4f} ({dice}){best}"
        case Finished():
            return f"{'Stopped' if event.reason == 'stopped' else 'Done'}: {event.message}"
        case Preparing() | Saved() | Previewed() | Stepped():
            return None
        case _:
            return event.message


def number(value: float) -> str:
    """Three decimals; a dash where nothing is defined."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """A table for the console; the first column is text, the others are numbers."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left")
    for row in rows:
        made.add_row(*row)
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
