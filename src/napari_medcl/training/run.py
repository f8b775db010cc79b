"""The run folder: what a run was asked, what it said, and what it left."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from napari_medcl.errors import UserError
from napari_medcl.files import delete_parts, write_json
from napari_medcl.training.event_log import EventLog
from napari_medcl.training.events import Event, Failed, Finished, Paused, Stage, Waiting
from napari_medcl.training.lock import FolderLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

Request = Literal["stop", "pause"]
State = Literal[
    "starting", "queued", "running", "pausing", "stopping", "paused", "finished", "stopped", "failed", "dead"
]
ALIVE: tuple[State, ...] = ("starting", "queued", "running", "pausing", "stopping")
"""States in which a process has the run in hand, or is about to."""

_STARTING_S = 90.0
"""So long a run that was started may take to hold its lock: a slow disk loads torch in a minute."""


@dataclass(frozen=True)
class Run:
    """A folder that a run was, is or will be written to.

    Whoever wants to know about a run reads its folder: the process that trains, a viewer that started
    it, a viewer on another machine. Whoever wants something of it leaves a file there.
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
            found = json.loads((self.folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder} is not a run folder: its config.json cannot be read ({error}).") from error
        if not isinstance(found, dict):
            raise UserError(f"{self.folder} is not a run folder: its config.json holds no settings by name.")
        return cast("dict[str, Any]", found)

    @property
    def stage(self) -> Stage:
        """Pre-training or fine-tuning."""
        return "pretrain" if self.config.get("stage") == "pretrain" else "finetune"

    @property
    def state(self) -> State:
        """How it stands with the run, as its folder tells."""
        alive = self.is_alive()  # asked first: a run says its last word before it lets go of its lock
        last = self.last_event()
        if alive:
            if asked := self.asked():
                return "pausing" if asked == "pause" else "stopping"
            return "queued" if isinstance(last, Waiting) else "running"
        if self._starts():
            return "starting"
        match last:
            case Finished():
                return "finished" if last.reason == "done" else "stopped"
            case Paused():
                return "paused"
            case Failed():
                return "failed"
        return "dead"

    @property
    def to_extend(self) -> str:
        """The command that lets it train on beyond what was asked for: whatever limits it has are put off.

        Raises:
            UserError: As `config`.
        """
        asked = self.config
        more = [word for name, word in (("steps", "--steps 1000"), ("minutes", "--minutes 10")) if asked.get(name)]
        return f"medcl runs extend {self.folder} {' '.join(more or ['--steps 1000'])}"

    @property
    def checkpoints(self) -> Path:
        """The folder of the models, and of the states to go on from."""
        return self.folder / "checkpoints"

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, else the last one, else None."""
        for name in ("best.safetensors", "last.safetensors"):
            if (path := self.checkpoints / name).is_file():
                return path
        return None

    @property
    def start_model(self) -> Path:
        """Where a fine-tuning run keeps the model that it started from."""
        return self.folder / "start.safetensors"

    @property
    def message(self) -> str:
        """What the run said when it ended; empty while it goes on."""
        last = self.last_event()
        if isinstance(last, Failed):
            return f"{last.message} {last.hint}".strip()
        return last.message if isinstance(last, Finished | Paused) else ""

    def events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Events after a byte offset, and the offset to ask from next time. A half-written line waits."""
        return self._log.read(offset)

    def last_event(self) -> Event | None:
        """The last complete event."""
        return self._log.last()

    def append(self, event: Event) -> None:
        """Writes an event, see `EventLog.append`.

        Raises:
            UserError: It cannot be written; what was there is as it was.
        """
        self._log.append(event)

    def mend(self) -> None:
        """Tidies up after a killed process."""
        self._log.mend()
        delete_parts(self.checkpoints)

    def ask(self, what: Request) -> None:
        """Asks the run to save and end after the step it is in; after a pause it goes on from there.

        Raises:
            UserError: The folder cannot be written.
        """
        with writing(self.folder):
            (self.folder / what).touch()

    def asked(self) -> Request | None:
        """What somebody asked for; a stop goes before a pause."""
        if (self.folder / "stop").exists():
            return "stop"
        return "pause" if (self.folder / "pause").exists() else None

    def end_asked(self) -> bool:
        """Whether somebody asked for a stop or a pause."""
        return self.asked() is not None

    def call(self) -> None:
        """Says that the run is about to start, or to go on; what was asked of it before does not count any more.

        Raises:
            UserError: The folder cannot be written.
        """
        with writing(self.folder):
            if not self._starts():
                for what in ("stop", "pause"):
                    (self.folder / what).unlink(missing_ok=True)
            (self.folder / "called").touch()

    def answer(self) -> None:
        """Says that the run has started."""
        (self.folder / "called").unlink(missing_ok=True)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Says that the run does not start after all, where that is refused."""
        try:
            yield
        except UserError:
            with contextlib.suppress(OSError):
                self.answer()
            raise

    def is_alive(self) -> bool:
        """Whether a process holds the run's lock."""
        return FolderLock(self.folder).alive()

    def goes_on_here(self) -> bool:
        """Whether a process on this machine has the run in hand, or one that was called a moment ago will."""
        lock = FolderLock(self.folder)
        return lock.here() or (self._starts() and not lock.alive())

    def locked(self) -> AbstractContextManager[None]:
        """Holds the run's lock.

        Raises:
            UserError: Another process trains in this folder, or it cannot be written.
        """
        return FolderLock(self.folder).holding()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the process printed."""
        try:
            text = (self.folder / "log.txt").read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def _log(self) -> EventLog:
        return EventLog(self.folder / "events.jsonl")

    def _starts(self) -> bool:
        """Whether it was called a moment ago."""
        with contextlib.suppress(OSError):
            return time.time() - (self.folder / "called").stat().st_mtime < _STARTING_S
        return False


def create(stage: Stage, config: dict[str, Any], folder: Path) -> Run:
    """Makes a run folder that holds the configuration.

    Raises:
        UserError: The folder already holds a run that has begun, or cannot be written.
    """
    run = Run(folder)
    if (folder / "events.jsonl").exists() or run.is_alive():
        raise UserError(
            f"{folder} already holds a run. Choose another folder for the new one, or go on with that one: "
            f"medcl runs resume {folder}"
        )
    with writing(folder):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"stage": stage, **config})
        run.call()
    return run


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says which run folder it is that cannot be written.

    Raises:
        UserError: It cannot.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"The run folder {folder} cannot be written: {error}.") from error


def default_root() -> Path:
    """Where runs are kept: the environment variable MEDCL_RUNS, else `medcl/runs` in the home folder."""
    named = os.environ.get("MEDCL_RUNS")
    return Path(named) if named else Path.home() / "medcl" / "runs"


def list_runs(root: Path) -> list[Run]:
    """The runs of a folder, newest first; a folder that is not there or cannot be read has none.

    A folder in it that may not be entered is passed over.
    """
    try:
        found = [entry for entry in root.iterdir() if os.path.isfile(entry / "config.json")]  # noqa: PTH113 - never raises
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
