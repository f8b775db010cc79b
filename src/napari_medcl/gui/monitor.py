"""Watching one run: also one that was started before, or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.curves import CurvePlot, Line
from napari_medcl.gui.docks import Message
from napari_medcl.gui.watch import Watch
from napari_medcl.training.follow import Follower
from napari_medcl.training.history import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medcl.training.history import History
    from napari_medcl.training.run import Run, State

_EVERY_MS = 1500
_STAGES = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}
_STATES = {
    "starting": "is starting",
    "queued": "waits for its turn",
    "running": "is running",
    "pausing": "is pausing",
    "paused": "is paused",
    "stopping": "is stopping and will leave a checkpoint",
    "finished": "has finished",
    "stopped": "was stopped",
    "failed": "has failed",
    "dead": "has ended without a word",
}
_NONE = "No run yet. Start one in the dock Train; it goes on when the viewer is closed."
_CHOOSE = "Choose a run in the table."


@dataclass(frozen=True)
class Look:
    """What there is to be seen of a run.

    Attributes:
        follower: Who reads it.
        offset: How much of it was read; tells whether there is anything new.
        headline: How it stands.
        message: What it said last, or what went wrong.
        wrong: Whether something did.
        progress: From 0 to 1.
        losses: The terms of the loss; None where they are as they were.
        dice: The validation Dice; None where it is as it was.
    """

    follower: Follower
    offset: int
    headline: str
    message: str
    wrong: bool
    progress: float
    losses: dict[str, Line] | None
    dice: dict[str, Line] | None


def look_at(follower: Follower, seen: int, **_: Callable[..., object]) -> Look:
    """Reads on in a run.

    Args:
        follower: Reads it.
        seen: How much of it was shown.

    Raises:
        UserError: The folder cannot be read.
    """
    run = follower.run
    offset, state, history = follower.look(), run.state, follower.history
    wrong = state in ("failed", "dead")
    said = what_went_wrong(run, state) if wrong else "".join(history.lines[-1:])
    losses = dice = None
    if offset != seen:
        losses, dice = ({name: Line.of(curve) for name, curve in of.items()} for of in (history.terms, history.dice))
    return Look(follower, offset, headline(run, state, history), said, wrong, history.progress, losses, dice)


class RunMonitor(QWidget):  # type: ignore[misc]
    """Shows one run: how far it is, its curves, what it said. Looks only while it is visible.

    Attributes:
        extra: Room under the curves for what others show of the run.
        run: The run that is shown, if any.
        runChanged: Another run is shown; None for none.
    """

    runChanged = Signal(object)  # noqa: N815

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.run: Run | None = None
        self._follower: Follower | None = None
        self._seen = 0

        # widgets
        self.state = QLabel(_NONE)
        self.state.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.losses = CurvePlot("terms of the loss, by step", theme=theme)
        self.dice = CurvePlot("validation Dice, by step", fraction=True, theme=theme)
        self.message = Message()

        # layout
        layout = QVBoxLayout(self)
        for widget in (self.state, self.bar, self.losses, self.dice):
            layout.addWidget(widget)
        self.extra = QVBoxLayout()
        layout.addLayout(self.extra)
        layout.addWidget(self.message)
        layout.addStretch()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._empty()

        # connections
        self._watch = Watch(self, _EVERY_MS, self._look)
        self._watch.looked.connect(self._show)
        self._watch.failed.connect(self.message.warn)

    def show_run(self, run: Run | None, *, others: bool = False) -> None:
        """Shows this run, or that there is none, or that one of the others can be chosen."""
        if run is None:
            self.state.setText(_CHOOSE if others else _NONE)
        if run == self.run:
            return
        self.run = run
        self._follower, self._seen = None if run is None else Follower(run), 0
        self._empty()
        self.runChanged.emit(run)
        self.look()

    def look(self) -> None:
        """Reads what is new."""
        self._watch.now()

    def setTheme(self, name: str) -> None:  # noqa: N802
        """Takes the colours of the viewer's theme."""
        for plot in (self.losses, self.dice):
            plot.setTheme(name)

    def _empty(self) -> None:
        if self.run is not None:
            self.state.setText(self.run.name)
        self.message.say("")
        self.bar.setValue(0)
        for plot in (self.losses, self.dice):
            plot.draw({})
            plot.hide()
        self.bar.setVisible(self.run is not None)

    def _look(self) -> Callable[..., Look] | None:
        return None if self._follower is None else partial(look_at, self._follower, self._seen)

    def _show(self, look: Look) -> None:
        if look.follower is not self._follower:
            return
        self._seen = look.offset
        self.state.setText(look.headline)
        self.bar.setValue(round(1000 * look.progress))
        for plot, lines in ((self.losses, look.losses), (self.dice, look.dice)):
            if lines is not None:
                plot.draw(lines)
                plot.setVisible(bool(lines))
        if look.wrong:
            self.message.warn(look.message)
        else:
            self.message.say(look.message)


def stage_of(run: Run) -> str:
    """The run's stage; empty where its configuration cannot be read."""
    try:
        return run.stage
    except UserError:
        return ""


def headline(run: Run, state: State, history: History) -> str:
    """How it stands with a run, in a line."""
    parts = [f"{_STAGES.get(stage_of(run), 'The run')} {_STATES[state]}"]
    if history.device:
        parts.append(f"on {history.device}")
    if history.step:
        parts.append(f"step {history.step}" + (f" of {history.steps}" if history.steps else ""))
    if state == "running" and history.remaining_s is not None:
        parts.append(f"{duration(history.remaining_s)} left")
    return ", ".join(parts) + "."


def what_went_wrong(run: Run, state: State) -> str:
    """What a run that did not end well said last."""
    if state == "failed":
        return run.message
    tail = run.log_tail(8)
    said = f" The last lines of its log:\n{tail}" if tail else ""
    return f"The process that trained is gone: it was killed, or the machine ran out of memory.{said}"
