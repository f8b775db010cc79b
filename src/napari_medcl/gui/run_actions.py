"""What can be done with runs: buttons for those that are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QGridLayout, QMessageBox, QPushButton, QWidget

from napari_medcl.gui.editors import tip
from napari_medcl.gui.extension import ExtensionDialog
from napari_medcl.gui.tasks import Task, in_words
from napari_medcl.training import launch
from napari_medcl.training.delete import delete, size_of
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_medcl.training.overview import Brief
    from napari_medcl.training.run import Request, State

_BUTTONS = {
    "pause": ("Pause", "Ends the run after the step it is in; it can be resumed as if nothing had been."),
    "stop": ("Stop", "Ends the run after the step it is in, with a checkpoint that can be used."),
    "resume": ("Resume", "Goes on from the last saved state. The run waits for its turn on the device."),
    "extend": ("Extend…", "Trains on beyond what was asked for."),
    "repeat": ("Repeat", "Starts a new run that does again what this one did: same settings, patients and start."),
    "apply": ("Apply…", "Use the model of this run on a scan"),
    "folder": ("Open folder", "Show the files of this run"),
    "delete": ("Delete…", "Deletes the run's folder with its models. A run that goes on must be stopped first."),
}
_STATES: dict[str, tuple[State, ...]] = {
    "pause": ("starting", "queued", "running"),
    "stop": ("starting", "queued", "running", "pausing"),
    "resume": ("paused", "stopped", "failed", "dead"),
}
"""What can be done only with runs that it stands so with."""
_ROW = 4
_MOST_NAMES = 10


def possible(briefs: Sequence[Brief]) -> set[str]:
    """What can be done with these runs."""
    suits = {name: any(brief.state in states for brief in briefs) for name, states in _STATES.items()}
    known, ended = all(brief.stage for brief in briefs), not any(brief.alive for brief in briefs)
    alike = len({(brief.steps is None, brief.minutes is None) for brief in briefs}) == 1
    holds = {
        **suits,
        "resume": known and suits["resume"],
        "extend": known and ended and alike,
        "repeat": known and bool(briefs),
        "apply": len(briefs) == 1 and briefs[0].stage == "finetune" and briefs[0].usable,
        "folder": len(briefs) == 1,
        "delete": bool(briefs) and ended,
    }
    return {name for name, held in holds.items() if held}


@dataclass(frozen=True)
class Outcome:
    """What came of an action.

    Attributes:
        said: What was done, in words; empty where nothing was.
        begun: The run that was started last, if any.
        trouble: What went wrong.
    """

    said: str
    begun: Run | None
    trouble: str


class RunActions(QWidget):  # type: ignore[misc]
    """The buttons.

    Attributes:
        acted: Something was done with some runs, said in words.
        failed: What went wrong.
        began: A run that was started.
        applyAsked: A run whose model is to be used.
    """

    acted = Signal(str)
    failed = Signal(str)
    began = Signal(object)
    applyAsked = Signal(object)  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self._briefs: list[Brief] = []
        self._root = Path()
        self._task, self._sizing = Task(self), Task(self)

        # widgets
        self.buttons = {name: QPushButton(title) for name, (title, _) in _BUTTONS.items()}
        for name, button in self.buttons.items():
            button.setToolTip(tip(_BUTTONS[name][1]))

        # layout
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for number, button in enumerate(self.buttons.values()):
            layout.addWidget(button, number // _ROW, number % _ROW)

        # connections
        ask: dict[str, Callable[[], None]] = {
            "pause": partial(self._request, "pause"),
            "stop": partial(self._request, "stop"),
            "resume": self._resume,
            "extend": self._extend,
            "repeat": self._repeat,
            "apply": lambda: self.applyAsked.emit(self._briefs[0].run),
            "folder": self._open_folder,
            "delete": self._delete,
        }
        for name, button in self.buttons.items():
            button.clicked.connect(lambda _=False, name=name: ask[name]())
        self._task.done.connect(self._done)
        self._sizing.done.connect(self._confirm)
        for task in (self._task, self._sizing):
            task.failed.connect(self.failed)
            task.ended.connect(self._enable)
        self._enable()

    def show_briefs(self, briefs: list[Brief], root: Path) -> None:
        """Takes these runs, which lie in a folder, as those that something is to be done with."""
        self._briefs, self._root = briefs, root
        self._enable()

    def _enable(self) -> None:
        can = set() if self._task.running or self._sizing.running else possible(self._briefs)
        for name, button in self.buttons.items():
            button.setEnabled(name in can)

    def _do(self, act: Callable[[Run], Run | None], runs: list[Run], done: str) -> None:
        self._task.start(each, act, runs, done)
        self._enable()

    def _done(self, outcome: Outcome) -> None:
        if outcome.said:
            self.acted.emit(outcome.said)
        if outcome.begun is not None:
            self.began.emit(outcome.begun)
        if outcome.trouble:
            self.failed.emit(f"{outcome.trouble} {outcome.said}".strip())

    def _those(self, what: str) -> list[Run]:
        """The runs that something can be done with."""
        return [brief.run for brief in self._briefs if brief.state in _STATES[what]]

    def _request(self, what: Request) -> None:
        self._do(partial(Run.ask, what=what), self._those(what), f"asked to {what}; it saves its model first")

    def _resume(self) -> None:
        self._do(launch.start_again, self._those("resume"), "told to go on")

    def _extend(self) -> None:
        dialog, runs = ExtensionDialog(self._briefs, self), [brief.run for brief in self._briefs]
        if dialog.exec():
            steps, minutes = dialog.value()
            self._do(partial(launch.extend, steps=steps, minutes=minutes), runs, "told to train on")
        dialog.deleteLater()

    def _repeat(self) -> None:
        data = {brief.run: brief.data for brief in self._briefs}
        self._do(partial(repeat, root=self._root, data=data), [*data], "repeated")

    def _open_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._briefs[0].run.folder)))

    def _delete(self) -> None:
        self._sizing.start(sizes, [brief.run for brief in self._briefs])
        self._enable()

    def _confirm(self, found: tuple[list[Run], int]) -> None:
        runs, size = found
        asked = QMessageBox(QMessageBox.Icon.Warning, "Delete runs", question(runs, size), parent=self)
        button = asked.addButton("Delete", QMessageBox.ButtonRole.DestructiveRole)
        asked.setDefaultButton(asked.addButton(QMessageBox.StandardButton.Cancel))
        asked.exec()
        if asked.clickedButton() is button:
            self._do(partial(delete, root=self._root), runs, "deleted")
        asked.deleteLater()


def question(runs: list[Run], size: int) -> str:
    """What is to be confirmed before runs are deleted."""
    names = "\n".join(f"• {run.name}" for run in runs[:_MOST_NAMES])
    more = f"\n• and {len(runs) - _MOST_NAMES} more" if len(runs) > _MOST_NAMES else ""
    which = "this run" if len(runs) == 1 else f"these {len(runs)} runs"
    return f"Delete {which} with models and curves, {in_bytes(size)}? There is no way back.\n\n{names}{more}"


def in_bytes(size: int) -> str:
    """A size as one says it: 12 kB, 3.4 MB."""
    for unit, each in (("GB", 1e9), ("MB", 1e6)):
        if size >= each:
            return f"{size / each:.1f} {unit}"
    return f"{max(1, round(size / 1e3))} kB"


def each(act: Callable[[Run], Run | None], runs: list[Run], done: str, **_: Any) -> Outcome:
    """Does something with runs, one by one; what goes wrong with one keeps it from no other.

    Args:
        act: What to do; gives the run that it starts, if any.
        runs: The runs.
        done: What was done with them then, in words.
    """
    did, begun, troubles = [], None, []
    for run in runs:
        try:
            begun = act(run) or begun
        except Exception as error:
            troubles.append(in_words(error))
        else:
            did.append(run)
    which = f"{did[0].name} was" if len(did) == 1 else f"{len(did)} runs were"
    return Outcome(f"{which} {done}." if did else "", begun, " ".join(troubles))


def repeat(run: Run, root: Path, data: dict[Run, str]) -> Run:
    """Starts a run that does again what this one did."""
    return launch.repeat(run, launch.new_folder(root, run.stage, data[run]))


def sizes(runs: list[Run], **_: Any) -> tuple[list[Run], int]:
    """How much room runs take."""
    return runs, sum(map(size_of, runs))
