"""Watching runs: also those that were started before, or elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.curves import CurvePlot
from napari_medcl.gui.docks import Message
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.settings import settings
from napari_medcl.training.history import History, duration
from napari_medcl.training.run import ALIVE, Run, list_runs

if TYPE_CHECKING:
    from pathlib import Path

    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_medcl.training.run import State

_EVERY_MS = 500
_RELIST = 6
"""The list of runs is read anew every so many looks."""
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


class RunMonitor(QWidget):  # type: ignore[misc]
    """Shows one run: how far it is, its curves, what it said; can stop it. Looks only while it is visible.

    Attributes:
        extra: Room under the curves for what others show of the run.
        runChanged: Another run is shown; None for none.
        looked: What is new in the folder of the run was read.
    """

    applyAsked = Signal(object)  # noqa: N815
    runChanged = Signal(object)  # noqa: N815
    looked = Signal()

    def __init__(self, theme: str) -> None:
        super().__init__()
        self._run: Run | None = None
        self._history = History()
        self._offset = self._looks = 0
        self._timer = QTimer(self)
        self._timer.setInterval(_EVERY_MS)

        # widgets
        self.runs = Choice()
        self.runs.setToolTip(tip("The runs in the runs folder, newest first; the folder is set in the preferences."))
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.losses = CurvePlot("terms of the loss, by step", theme=theme)
        self.dice = CurvePlot("validation Dice, by step", fraction=True, theme=theme)
        self.message = Message()
        self.stop = QPushButton("Stop")
        self.stop.setToolTip(tip("Ends the run after the step it is in, with a checkpoint that can be used."))
        self.apply = QPushButton("Apply…")
        self.apply.setToolTip("Use the model of this run on a scan")
        self.folder = QPushButton("Open folder")
        self.folder.setToolTip("Show the files of this run")

        # layout
        layout = QVBoxLayout(self)
        for widget in (self.runs, self.state, self.bar, self.losses, self.dice):
            layout.addWidget(widget)
        self.extra = QVBoxLayout()
        layout.addLayout(self.extra)
        layout.addWidget(self.message)
        buttons = QHBoxLayout()
        for button in (self.stop, self.apply, self.folder):
            buttons.addWidget(button)
        layout.addLayout(buttons)
        layout.addStretch()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

        # connections
        self.runs.valueChanged.connect(self._choose)
        self.stop.clicked.connect(self._ask_stop)
        self.apply.clicked.connect(lambda: self.applyAsked.emit(self._run))
        self.folder.clicked.connect(self._open_folder)
        self._timer.timeout.connect(self.look)
        self.relist()

    def relist(self) -> None:
        """Lists the runs that there are now; a run that goes on is chosen first."""
        runs, first_time = list_runs(settings().runs), self._run is None
        self.runs.setChoices((run.name, run.folder) for run in runs)
        if first_time and runs:
            alive = [run for run in runs if run.state in ALIVE]
            self.show_run((alive or runs)[0])
        self._show_state()

    def show_run(self, run: Run) -> None:
        """Shows this run."""
        if self.runs.findData(run.folder) < 0:
            self.runs.insertItem(0, run.name, run.folder)
        self.runs.setValue(run.folder)
        self._choose(run.folder)

    def look(self) -> None:
        """Reads what is new."""
        self._looks += 1
        if self._looks % _RELIST == 0:
            self.relist()
        if self._run is None:
            return
        events, self._offset = self._run.events(self._offset)
        if events:
            self._history.add(events)
            self.losses.draw(self._history.terms)
            self.dice.draw(self._history.dice)
        self._show_state()
        self.looked.emit()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Looks while it can be seen."""
        super().showEvent(event)
        self.look()
        self._timer.start()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802
        """Nobody looks."""
        self._timer.stop()
        super().hideEvent(event)

    def _choose(self, folder: Path | None) -> None:
        run = None if folder is None else Run(folder)
        if run == self._run:
            return
        self._run, self._history, self._offset = run, History(), 0
        self.losses.draw({})
        self.dice.draw({})
        self.runChanged.emit(run)
        self.look()

    def _show_state(self) -> None:
        run, history = self._run, self._history
        for widget in (self.bar, self.losses, self.folder):
            widget.setVisible(run is not None)
        if run is None:
            self.state.setText("No run yet. Start one in the other tabs; it goes on when the viewer is closed.")
            for widget in (self.stop, self.apply, self.dice):
                widget.hide()
            return
        state = run.state
        self.state.setText(headline(run, state, history))
        self.bar.setValue(round(1000 * history.progress))
        self.dice.setVisible(bool(history.dice))
        self.stop.setVisible(state in ALIVE)
        self.stop.setEnabled(state != "stopping")
        self.apply.setVisible(stage_of(run) == "finetune" and run.checkpoint is not None)
        if state in ("failed", "dead"):
            self.message.warn(what_went_wrong(run, state))
        else:
            self.message.say(history.lines[-1] if history.lines else "")

    def _ask_stop(self) -> None:
        if self._run is not None:
            self._run.ask("stop")
            self._show_state()

    def _open_folder(self) -> None:
        if self._run is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._run.folder)))


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
