"""The run folder: what a run was asked, what it said, and what it left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.training.events import Event, Failed, Finished, Stage, read_event

if TYPE_CHECKING:
    from collections.abc import Iterator

State = Literal["waiting", "running", "stopping", "finished", "stopped", "failed", "dead"]

_STALE_S = 20.0
"""A lock that was not touched for so long belongs to a process that is gone."""
_STARTING_S = 90.0
"""So long a new run may take to hold its lock: a slow disk loads torch in a minute."""
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Run:
    """A folder that a run was, is or will be written to.

    Whoever wants to know about a run reads its folder: the process that trains, a viewer that started
    it, a viewer on another machine.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for.

        Raises:
            UserError: `config.json` is missing or unreadable.
        """
        try:
            return cast("dict[str, Any]", json.loads((self.folder / "config.json").read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder} is not a run folder: its config.json cannot be read ({error}).") from error

    @property
    def stage(self) -> Stage:
        """Pre-training or fine-tuning."""
        return "pretrain" if self.config.get("stage") == "pretrain" else "finetune"

    @property
    def state(self) -> State:
        """How it stands with the run, as its folder tells."""
        last = self.last_event()
        if isinstance(last, Finished):
            return "finished" if last.reason == "done" else "stopped"
        if isinstance(last, Failed):
            return "failed"
        if self.is_alive():
            return "stopping" if self.stop_asked() else "running"
        return "waiting" if self._age() < _STARTING_S and last is None else "dead"

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, else the last one, else None."""
        for name in ("best.safetensors", "last.safetensors"):
            if (path := self.folder / "checkpoints" / name).is_file():
                return path
        return None

    @property
    def message(self) -> str:
        """What the run said when it ended; empty while it goes on."""
        last = self.last_event()
        if isinstance(last, Failed):
            return f"{last.message} {last.hint}".strip()
        return last.message if isinstance(last, Finished) else ""

    def events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Events after a byte offset, and the offset to ask from next time. A half-written line waits."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                file.seek(offset)
                text = file.read()
        except FileNotFoundError:
            return [], offset
        complete = text[: text.rfind(b"\n") + 1]
        events = []
        for line in complete.splitlines():
            with contextlib.suppress(ValidationError):  # a line that a crash cut short
                events.append(read_event(line))
        return events, offset + len(complete)

    def last_event(self) -> Event | None:
        """The last complete event, read from the end of the file."""
        try:
            size = (self.folder / "events.jsonl").stat().st_size
        except FileNotFoundError:
            return None
        events, _ = self.events(max(0, size - _TAIL_BYTES))
        return events[-1] if events else None

    def append(self, event: Event) -> None:
        """Writes an event; it is on the disk when this returns."""
        with (self.folder / "events.jsonl").open("ab") as file:
            file.write(event.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def ask_stop(self) -> None:
        """Asks the run to save and end after the step it is in."""
        (self.folder / "stop").touch()

    def stop_asked(self) -> bool:
        """Whether somebody asked for a stop."""
        return (self.folder / "stop").exists()

    def is_alive(self) -> bool:
        """Whether a process holds the run's lock."""
        try:
            return time.time() - (self.folder / "lock").stat().st_mtime < _STALE_S
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's lock.

        Raises:
            UserError: Another process trains in this folder.
        """
        lock = self.folder / "lock"
        if self.is_alive():
            raise UserError(f"Another process is training in {self.folder}. Wait for it, or choose another folder.")
        lock.write_text(str(os.getpid()))
        ended = threading.Event()
        beat = threading.Thread(target=_keep_fresh, args=(lock, ended), daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            lock.unlink(missing_ok=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the process printed."""
        try:
            text = (self.folder / "log.txt").read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _age(self) -> float:
        with contextlib.suppress(FileNotFoundError):
            return time.time() - (self.folder / "config.json").stat().st_mtime
        return float("inf")


def _keep_fresh(lock: Path, ended: threading.Event) -> None:
    while not ended.wait(_STALE_S / 4):
        with contextlib.suppress(OSError):
            os.utime(lock)


def create(stage: Stage, config: dict[str, Any], folder: Path) -> Run:
    """Makes a run folder that holds the configuration.

    Raises:
        UserError: The folder already holds a run that has begun, or cannot be written.
    """
    if (folder / "events.jsonl").exists():
        raise UserError(f"{folder} already holds a run. Choose another folder for the new one.")
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"stage": stage, **config})
    except OSError as error:
        raise UserError(f"The run folder {folder} cannot be written: {error}.") from error
    return Run(folder)


def start(stage: Stage, config: dict[str, Any], folder: Path) -> Run:
    """Starts a run in a process of its own, which outlives the one that asks.

    Raises:
        UserError: As `create`.
    """
    run = create(stage, config, folder)
    command = [
        sys.executable,
        "-m",
        "napari_medcl",
        stage,
        "--config",
        str(folder / "config.json"),
        "--run",
        str(folder),
    ]
    with (folder / "log.txt").open("ab") as log:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return run


def default_root() -> Path:
    """Where runs are kept: the environment variable MEDCL_RUNS, else `medcl/runs` in the home folder."""
    named = os.environ.get("MEDCL_RUNS")
    return Path(named) if named else Path.home() / "medcl" / "runs"


def new_folder(root: Path, stage: Stage, name: str) -> Path:
    """A folder name that is not taken: date, time, stage and what the run is about."""
    about = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{stage}-{about}"
    folder, number = root / stem, 2
    while folder.exists():
        folder, number = root / f"{stem}-{number}", number + 1
    return folder


def list_runs(root: Path) -> list[Run]:
    """The runs of a folder, newest first; a folder that is not there or cannot be read has none."""
    try:
        found = [entry for entry in root.iterdir() if (entry / "config.json").is_file()]
    except OSError:
        return []
    return [Run(folder) for folder in sorted(found, key=lambda folder: folder.name, reverse=True)]


def find_checkpoint(path: Path) -> Path:
    """The model file that a run folder or a file name stands for.

    Raises:
        UserError: There is none.
    """
    if path.is_dir():
        if (found := Run(path).checkpoint) is None:
            raise UserError(f"The run {path} has no checkpoint yet. Let it train on, or choose another run.")
        return found
    if not path.is_file():
        raise UserError(f"There is no model file or run folder at {path}.")
    return path
