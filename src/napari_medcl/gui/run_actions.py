"""What can be done with runs: buttons for those that are chosen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QGridLayout, QMessageBox, QPushButton, QWidget

from napari_medcl.gui.editors import tip
from napari_medcl.gui.extension import ExtensionDialog
from napari_medcl.gui.tasks import Task
from napari_medcl.training import launch
from napari_medcl.training.delete import delete, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_medcl.training.overview import Brief
    from napari_medcl.training.run import Request, Run

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
_ROW = 4
_MOST_NAMES = 10


def possible(briefs: Sequence[Brief]) -> set[str]:
    """What can be done with these runs."""
    states = {brief.state for brief in briefs}
    known, ended = all(brief.stage for brief in briefs), not any(brief.alive for brief in briefs)
    alike = len({(brief.steps is None, brief.minutes is None) for brief in briefs}) == 1
    holds = {
        "pause": bool(states & {"starting", "queued", "running"}),
        "stop": bool(states & {"starting", "queued", "running", "pausing"}),
        "resume": known and bool(states & {"paused", "stopped", "failed", "dead"}),
        "extend": known and ended and alike,
        "repeat": known and bool(briefs),
        "apply": len(briefs) == 1 and briefs[0].stage == "finetune" and briefs[0].usable,
        "folder": len(briefs) == 1,
        "delete": bool(briefs) and ended,
    }
    return {name for name, held in holds.items() if held}


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
        self._root: Path | None = None
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

    def _do(self, function: Callable[..., Any], *args: Any) -> None:
        self._task.start(function, *args)
        self._enable()

    def _done(self, told: tuple[str, Run | None]) -> None:
        said, run = told
        self.acted.emit(said)
        if run is not None:
            self.began.emit(run)

    def _request(self, what: Request) -> None:
        goes_on = {"pause": ("starting", "queued", "running"), "stop": ("starting", "queued", "running", "pausing")}
        self._do(request, [brief.run for brief in self._briefs if brief.state in goes_on[what]], what)

    def _resume(self) -> None:
        self._do(resume, [one.run for one in self._briefs if one.state in ("paused", "stopped", "failed", "dead")])

    def _extend(self) -> None:
        dialog, runs = ExtensionDialog(self._briefs, self), [brief.run for brief in self._briefs]
        if dialog.exec():
            self._do(extend, runs, *dialog.value())
        dialog.deleteLater()

    def _repeat(self) -> None:
        self._do(repeat, [(brief.run, brief.data) for brief in self._briefs], self._root)

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
            self._do(delete_all, runs, self._root)
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


def request(runs: list[Run], what: Request, **_: Any) -> tuple[str, None]:
    """Asks runs to pause or to stop."""
    for run in runs:
        run.ask(what)
    return f"{_named(runs)} asked to {what}; it saves its model first.", None


def resume(runs: list[Run], **_: Any) -> tuple[str, None]:
    """Lets runs go on."""
    for run in runs:
        launch.start_again(run)
    return f"{_named(runs)} told to go on.", None


def extend(runs: list[Run], steps: int | None, minutes: float | None, **_: Any) -> tuple[str, None]:
    """Lets runs train on beyond what was asked for."""
    for run in runs:
        launch.extend(run, steps=steps, minutes=minutes)
    return f"{_named(runs)} told to train on.", None


def repeat(runs: list[tuple[Run, str]], root: Path, **_: Any) -> tuple[str, Run]:
    """Starts runs that do again what these did."""
    again = [launch.repeat(run, launch.new_folder(root, run.stage, data)) for run, data in runs]
    return f"Started: {', '.join(run.name for run in again)}.", again[-1]


def sizes(runs: list[Run], **_: Any) -> tuple[list[Run], int]:
    """How much room runs take."""
    return runs, sum(map(size_of, runs))


def delete_all(runs: list[Run], root: Path, **_: Any) -> tuple[str, None]:
    """Deletes runs."""
    for run in runs:
        delete(run, root)
    return f"{_named(runs)} deleted.", None


def _named(runs: list[Run]) -> str:
    return f"{runs[0].name} was" if len(runs) == 1 else f"{len(runs)} runs were"
