"""The commands `medcl runs`: list, show, stop."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - read at run time

from cyclopts import App
from rich.console import Console

from napari_medcl.errors import UserError
from napari_medcl.terminal import describe, table
from napari_medcl.training.run import ALIVE, Run, default_root, list_runs

runs = App(name="runs", help="List runs, look at one, stop one.")
console = Console()


@runs.command(name="list")
def list_(folder: Path | None = None) -> None:
    """List the runs of a folder.

    Args:
        folder: The runs folder; without it MEDCL_RUNS, or medcl/runs in the home folder.
    """
    root = folder or default_root()
    found = list_runs(root)
    if not found:
        console.print(f"There are no runs in {root}.")
        return
    console.print(
        table(
            str(root),
            ["run", "stage", "state", "message"],
            [[r.name, r.stage, r.state, r.message] for r in found],
        )
    )


@runs.command
def show(run: Path) -> None:
    """Say what a run was asked, what it said and what it left.

    Args:
        run: The run folder.
    """
    one = Run(run)
    console.print_json(json.dumps(one.config))
    for event in one.events()[0]:
        if (line := describe(event)) is not None:
            console.print(line, highlight=False)
    console.print(f"State: {one.state}. Model: {one.checkpoint or 'none yet'}", soft_wrap=True, highlight=False)


@runs.command
def stop(run: Path) -> None:
    """Ask a run to save its model and end.

    Args:
        run: The run folder.
    """
    one = Run(run)
    if one.state not in ALIVE:
        raise UserError(f"{one.name} is not running: it is {one.state}.")
    one.ask("stop")
    console.print(f"{one.name} was asked to stop; it saves its model first.")
