"""The runs of a folder, with what a table of them shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from napari_medcl.errors import Stopped, UserError
from napari_medcl.methods.choices import titled
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.follow import Follower
from napari_medcl.training.run import ALIVE, Run, list_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.training.events import Stage
    from napari_medcl.training.run import State


@dataclass(frozen=True)
class Brief:
    """What is to be known of a run at a glance.

    Attributes:
        run: The run.
        state: How it stands with it.
        stage: Pre-training or fine-tuning; None where its configuration cannot be read.
        method: The name of its method; empty for none.
        data: The name of the data folder, or of the scan that was open.
        began: When it was first heard of, in seconds since 1970.
        heard: When it was last heard of.
        step: The last step that it told of.
        steps: Steps that it was asked for; None where only time ends it.
        minutes: The time that it was given.
        progress: How far it is, from 0 to 1.
        remaining_s: Seconds that are left, while it trains.
        dice: The best mean Dice on the validation cases so far.
        ahead: The runs that it waits for.
        usable: Whether it has a model.
    """

    run: Run
    state: State
    stage: Stage | None = None
    method: str = ""
    data: str = ""
    began: float = 0.0
    heard: float = 0.0
    step: int = 0
    steps: int | None = None
    minutes: float | None = None
    progress: float = 0.0
    remaining_s: float | None = None
    dice: float | None = None
    ahead: tuple[str, ...] = ()
    usable: bool = False

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return self.state in ALIVE


class Overview:
    """Looks at the runs of a folder again and again; what has not changed is not read anew.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, _Known] = {}

    def look(self, stop: Callable[[], bool] = lambda: False) -> tuple[Brief, ...]:
        """The runs as they are now, the one that began last first.

        Raises:
            Stopped: `stop` said so.
        """
        runs = list_runs(self.root)
        self._known = {run.folder: self._known.get(run.folder) or _Known(run) for run in runs}
        briefs = []
        for known in self._known.values():
            if stop():
                raise Stopped
            briefs.append(known.look())
        return tuple(sorted(briefs, key=lambda brief: (brief.began, brief.run.name), reverse=True))


class _Known:
    """What is known of a run."""

    def __init__(self, run: Run) -> None:
        self._follower = Follower(run, curves=False)
        self._mark: tuple[float, ...] = ()
        self._brief = Brief(run, "dead")

    def look(self) -> Brief:
        run = self._follower.run
        try:
            mark = _mark(run)
            if mark != self._mark or self._brief.alive:
                self._follower.look()
                self._brief, self._mark = _brief(self._follower), mark
        except (OSError, UserError):  # it was deleted just now, or may not be read
            self._mark = ()
        return self._brief


def _mark(run: Run) -> tuple[float, ...]:
    """Changes whenever a file comes or goes in the folder, or the run says something."""
    events = run.folder / "events.jsonl"
    return run.folder.stat().st_mtime_ns, events.stat().st_size if events.exists() else 0


def _brief(follower: Follower) -> Brief:
    run, history = follower.run, follower.history
    made = (run.folder / "config.json").stat().st_mtime
    told: dict[str, Any] = {
        "began": history.began or made,
        "heard": history.heard or made,
        "step": history.step,
        "progress": history.progress,
        "remaining_s": history.remaining_s,
        "dice": history.best_dice,
        "ahead": history.ahead,
        "usable": run.checkpoint is not None,
    }
    try:
        return Brief(run, run.state, **_asked(run), **told)
    except UserError:
        return Brief(run, run.state, **told)


def _asked(run: Run) -> dict[str, Any]:
    """What `config.json` says of the run."""
    stage, config = run.stage, run.config
    default = (PretrainConfig if stage == "pretrain" else FinetuneConfig).default_steps
    minutes, folder = config.get("minutes"), PureWindowsPath(str(config.get("folder"))).name
    return {
        "stage": stage,
        "method": titled(stage, config.get("method")),
        "data": "open scans" if folder == "inputs" else folder,
        "steps": config.get("steps") or (None if minutes else default),
        "minutes": minutes,
    }
