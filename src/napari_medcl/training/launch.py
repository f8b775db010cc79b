"""Starting runs in processes of their own, which outlive the one that asks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from napari_medcl.training.run import Run, create

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.training.events import Stage


def start(stage: Stage, config: dict[str, Any], folder: Path, *, now: bool = False) -> Run:
    """Starts a run.

    Args:
        stage: Pre-training or fine-tuning.
        config: Its settings.
        folder: The run folder; made where it is missing.
        now: Whether to run beside others on the device; else it waits for its turn.

    Raises:
        UserError: As `create`.
    """
    run = create(stage, config, folder)
    _spawn(run, [stage, "--config", str(folder / "config.json"), "--run", str(folder)], now=now)
    return run


def start_again(run: Run, *, now: bool = False) -> None:
    """Lets a run go on from its last saved state, see `resume`."""
    run.call()
    _spawn(run, ["runs", "resume", str(run.folder)], now=now)


def extend(run: Run, *, steps: int | None = None, minutes: float | None = None, now: bool = False) -> None:
    """Lets a run train on beyond what was asked for, see `resume.extend`."""
    more = {"--steps": steps, "--minutes": minutes}
    run.call()
    _spawn(run, ["runs", "extend", str(run.folder), *_options(more)], now=now)


def repeat(run: Run, folder: Path, *, now: bool = False) -> Run:
    """Starts a run that does again what another one did, see `resume.repeat`.

    Raises:
        UserError: As `create`, or the run's configuration cannot be read.
    """
    again = create(run.stage, run.config, folder)
    _spawn(again, ["runs", "repeat", str(run.folder), "--run", str(folder)], now=now)
    return again


def new_folder(root: Path, stage: Stage, name: str) -> Path:
    """A folder name that is not taken: date, time, stage and what the run is about."""
    about = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{stage}-{about}"
    folder, number = root / stem, 2
    while folder.exists():
        folder, number = root / f"{stem}-{number}", number + 1
    return folder


def _options(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def several() -> bool:
    """Whether `torchrun` started this process and others to train one run together."""
    return "LOCAL_WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def follows() -> bool:
    """Whether another process than this speaks and writes for all of them."""
    return several() and int(os.environ["RANK"]) > 0


def _spawn(run: Run, arguments: list[str], *, now: bool) -> None:
    command = [sys.executable, "-m", "napari_medcl", *arguments, *(["--now"] if now else [])]
    alone: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        alone = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with (run.folder / "log.txt").open("ab") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **alone)
