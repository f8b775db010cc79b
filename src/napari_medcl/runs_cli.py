"""The commands `medcl runs`: what became of runs, and what is to become of them."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from napari_medcl.errors import UserError
from napari_medcl.terminal import attend, clock, journal, number, say, table
from napari_medcl.training.compare import (
    COUNTS,
    Record,
    differing,
    ordered,
    record,
    remarks,
    settings,
    shown,
    unusual,
    write_records,
)
from napari_medcl.training.history import duration
from napari_medcl.training.launch import new_folder, several
from napari_medcl.training.metrics import Metrics
from napari_medcl.training.overview import Brief, Overview
from napari_medcl.training.run import ALIVE, Run, default_root, list_runs

runs = App(name="runs", help="List, compare and look at runs; pause, stop, resume, extend and repeat them.")
console = Console()
if not console.is_terminal:
    console.width = 500  # a table is as wide as it must be where nobody sees a screen

_Flag = Annotated[bool, Parameter(negative=())]
_STAMP = re.compile(r"\d{8}-\d{6}-(pretrain|finetune)-")
_LOG_LINES = 10


@runs.command(name="list")
def list_(folder: Path | None = None) -> None:
    """List the runs of a folder.

    Args:
        folder: The runs folder; without it MEDCL_RUNS, or medcl/runs in the home folder.
    """
    root = folder or default_root()
    found = Overview(root).look()
    if not found:
        say(console, f"There are no runs in {root}.")
        return
    columns = ["run", "state", "stage", "method", "data", "step", "best Dice", "left, or ended"]
    console.print(table(str(root), columns, [_row(brief) for brief in found], words=5))


def _row(brief: Brief) -> list[str]:
    steps = str(brief.step) if brief.steps is None else f"{brief.step}/{brief.steps}"
    dice = "" if brief.dice is None else number(brief.dice)
    if brief.ahead:
        when = f"waits for {brief.ahead[0]}"
    elif brief.alive:
        when = "" if brief.remaining_s is None else duration(brief.remaining_s)
    else:
        when = clock(brief.heard)
    return [brief.run.name, brief.state, brief.stage or "", brief.method, brief.data, steps, dice, when]


@runs.command
def show(run: str, /, *, all_: Annotated[bool, Parameter(name="--all", negative=())] = False) -> None:
    """Say what a run was asked for, what it said, what it left, and how to go on with it.

    Args:
        run: Run folder, or the name of a run in the runs folder.
        all_: Show all settings; without it those that are not at their defaults.
    """
    one = find_run(run)
    asked = settings(one) if all_ else unusual(one)
    say(console, "All settings:" if all_ else "Settings that are not at their defaults:")
    console.print(table("", ["setting", "value"], [[name, shown(value)] for name, value in asked.items()], words=2))
    events, state = one.events()[0], one.state
    for line in journal(events):
        say(console, line)
    if state == "dead" and (log := one.log_tail(_LOG_LINES)):
        say(console, f"The last lines that it printed:\n{log}")
    metrics = Metrics(events)
    trained = f", after {metrics.step} steps in {duration(metrics.seconds)}" if metrics.step else ""
    say(console, f"State: {state}{trained}.")
    say(console, f"Model: {one.checkpoint or 'none yet'}")
    say(console, _further(one))


def _further(run: Run) -> str:
    """How to go on with a run."""
    if run.state in ALIVE:
        return f"To end it: medcl runs pause {run.folder}, or stop in place of pause."
    if run.state == "finished":
        return f"To train on: {run.to_extend}"
    return f"To go on: medcl runs resume {run.folder}"


@runs.command
def pause(run: str, /) -> None:
    """Ask a run to save its state and end; it goes on from there another day.

    Args:
        run: Run folder, or the name of a run in the runs folder.
    """
    one = _alive(run)
    one.ask("pause")
    say(console, f"{one.name} was asked to pause; it saves its state first. To go on: medcl runs resume {one.folder}")


@runs.command
def stop(run: str, /) -> None:
    """Ask a run to save its model, measure it and end.

    Args:
        run: Run folder, or the name of a run in the runs folder.
    """
    one = _alive(run)
    one.ask("stop")
    say(console, f"{one.name} was asked to stop; it saves its model first.")


@runs.command
def resume(run: str, /, *, now: _Flag = False) -> None:
    """Go on with a run that was paused, stopped or killed, or has failed, from its last saved state.

    Args:
        run: Run folder, or the name of a run in the runs folder.
        now: Start beside other runs on the device; without it the run waits until those before it have ended.
    """
    from napari_medcl.training.resume import resume as go_on

    one = find_run(run)
    attend(one, go_on(one.folder, queue=not now), console)


@runs.command
def extend(run: str, /, *, steps: int | None = None, minutes: float | None = None, now: _Flag = False) -> None:
    """Train on beyond what a run was asked for.

    Args:
        run: Run folder, or the name of a run in the runs folder.
        steps: Gradient steps more, for a run that is counted in steps.
        minutes: Minutes more, for one that is timed.
        now: Start beside other runs on the device; without it the run waits until those before it have ended.
    """
    from napari_medcl.training.resume import extend as train_on

    one = find_run(run)
    attend(one, train_on(one.folder, steps=steps, minutes=minutes, queue=not now), console)


@runs.command(name="repeat")
def repeat_(run: str, /, *, new: Annotated[Path | None, Parameter(name="--run")] = None, now: _Flag = False) -> None:
    """Do again what a run did, from what stands in its folder, in a folder of its own.

    Args:
        run: Run folder, or the name of a run in the runs folder.
        new: The new run folder; without it one is made beside the other.
        now: Start beside other runs on the device; without it the run waits until those before it have ended.
    """
    from napari_medcl.training.resume import repeat

    if new is None and several():
        raise UserError("Several processes make one run: name its folder with --run.")
    one = find_run(run)
    folder = new or new_folder(one.folder.absolute().parent, one.stage, _STAMP.sub("", one.folder.absolute().name))
    attend(Run(folder), repeat(one.folder, folder, queue=not now), console)


@runs.command
def compare(*run: str, csv: Path | None = None, metric: str | None = None) -> None:
    """Show runs beside each other: the settings in which they differ, how long they trained, and what came of it.

    Args:
        run: Run folders, or names of runs in the runs folder.
        csv: Where to write all settings and numbers, a line a run.
        metric: Show this number only, such as dice or loss/intra, the best run first.
    """
    records = [record(find_run(one)) for one in run]
    if len(records) < 2:
        raise UserError("Name two runs or more to compare.")
    if metric is not None:
        records = ordered(records, metric)
    columns = ["", *(one.run.name for one in records)]
    console.print(table("", columns, [*_asked(records), *_came_of_it(records, metric)]))
    for line in remarks(records):
        say(console, line)
    if csv is not None:
        write_records(records, csv)
        say(console, f"All settings and numbers: {csv}")


def _asked(records: list[Record]) -> list[list[str]]:
    about = [[what, *(getattr(one.run, what) for one in records)] for what in ("stage", "state")]
    return about + [[name, *(shown(one.settings.get(name)) for one in records)] for name in differing(records)]


def _came_of_it(records: list[Record], metric: str | None) -> list[list[str]]:
    names = dict.fromkeys(name for one in records for name in one.numbers) if metric is None else [metric]
    return [[name, *(_figure(name, one.numbers.get(name)) for one in records)] for name in names]


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return str(round(value)) if name in COUNTS else number(value)


def find_run(name: str) -> Run:
    """The run that a path, or a name in the runs folder, stands for.

    Raises:
        UserError: There is none; says which names are near.
    """
    root = default_root()
    for folder in (Path(name), root / name):
        if (folder / "config.json").is_file():
            return Run(folder)
    if Path(name).exists():
        raise UserError(f"{name} is not a run folder: there is no config.json in it.")
    known = {one.name: one.folder for parent in (root, Path(name).parent) for one in list_runs(parent)}
    near = difflib.get_close_matches(Path(name).name, known, cutoff=0.5)
    meant = f"Did you mean {', '.join(near)}?" if near else "These are there: medcl runs list"
    raise UserError(f"There is no run “{name}”, neither at that path nor in {root}. {meant}")


def _alive(name: str) -> Run:
    run = find_run(name)
    if (state := run.state) not in ALIVE:
        raise UserError(f"{run.name} is not running: it is {state}.")
    return run
