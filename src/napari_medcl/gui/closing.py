"""What becomes of runs that go on when the user closes the viewer."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QThread
from qtpy.QtWidgets import QMainWindow, QMessageBox, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.editors import tip
from napari_medcl.gui.settings import settings
from napari_medcl.training.run import Run, list_runs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_medcl.training.run import Request

_PATIENCE_S = 0.2
"""So long the window waits for a slow file share before it closes; the runs that were found by then are asked about."""
_AT_ONCE = 16
"""A run that goes on takes some 20 ms to be told from one that was killed: so many of a folder are looked at."""
_MOST_NAMES = 8


class ClosingGuard(QObject):  # type: ignore[misc]
    """Asks what becomes of the runs that go on on this machine, when the user closes the viewer.

    The runs live on in any case, until somebody asks them to end: that is what it offers.

    Attributes:
        folders: Where to look for runs, beside the folder of the preferences.
    """

    def __init__(self, window: QMainWindow) -> None:
        super().__init__(window)
        self.folders: set[Path] = set()
        self._asked: tuple[Request, list[Run]] | None = None
        window.installEventFilter(self)

    @classmethod
    def of(cls, widget: QWidget) -> ClosingGuard | None:
        """The one of the window that a widget is in; None where it is in none."""
        while widget is not None and not isinstance(widget, QMainWindow):
            widget = widget.parentWidget()
        if widget is None:
            return None
        return widget.findChild(cls) or cls(widget)

    def eventFilter(self, watched: Any, event: QEvent | None) -> bool:  # noqa: N802
        """Asks before the window closes, and does what was asked for when it has closed."""
        if event is None:
            return False
        if event.type() == QEvent.Type.Close:
            self._asked = None
            if by_user(watched, event) and (runs := going_on({settings().runs, *self.folders})):
                return self._ask(event, runs)
        elif event.type() == QEvent.Type.Hide and not event.spontaneous() and self._asked is not None:
            what, runs = self._asked
            self._asked = None
            for run in runs:
                with contextlib.suppress(UserError):  # its folder is gone; the window closes all the same
                    run.ask(what)
        return False

    def _ask(self, event: QEvent, runs: list[Run]) -> bool:
        answer = ask(self.parent(), runs)
        if answer == "cancel":
            event.ignore()
            return True
        if answer != "leave":
            self._asked = answer, runs
        return False


def by_user(window: QMainWindow, event: QEvent) -> bool:
    """Whether somebody at the screen closes a window: by its cross, its menu or a key.

    A script calls `viewer.close()`, which closes the canvas before the window; or it runs while no event loop does,
    so that nobody could answer a question.
    """
    canvas = window.centralWidget().findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly)
    if any(widget.isHidden() for widget in canvas):
        return False
    return bool(event.spontaneous() or QThread.currentThread().loopLevel() > 0)


def going_on(folders: Iterable[Path]) -> list[Run]:
    """The runs that go on on this machine and that nobody has asked to end, as far as they are found at once."""
    found: list[Run] = []

    def look(run: Run) -> None:
        if run.goes_on_here() and run.asked() is None:
            found.append(run)

    def look_in(folder: Path) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            pool.map(look, list_runs(folder))

    threads = [threading.Thread(target=look_in, args=[folder], daemon=True) for folder in folders]
    end = time.monotonic() + _PATIENCE_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return sorted(found, key=lambda run: run.name, reverse=True)


def ask(window: QMainWindow, runs: list[Run]) -> Any:
    """What becomes of runs: `leave`, `pause`, `stop`, or `cancel` for a viewer that stays open."""
    names = [f"• {run.name}" for run in runs[:_MOST_NAMES]]
    more = [f"• and {len(runs) - _MOST_NAMES} more"] if len(runs) > _MOST_NAMES else []
    goes_on = "A run goes on:" if len(runs) == 1 else f"{len(runs)} runs go on:"
    text = "\n".join([goes_on, *names, *more])
    box = QMessageBox(QMessageBox.Icon.Question, "Runs go on", text, parent=window)
    box.setInformativeText("Left running, they go on without the viewer; the dock Runs shows them at the next start.")
    roles = QMessageBox.ButtonRole
    offers = {
        "leave": ("Leave running", roles.AcceptRole, "Closes the viewer; the runs go on."),
        "pause": (
            "Pause",
            roles.AcceptRole,
            "Closes the viewer; the runs save and end, and can be resumed from there.",
        ),
        "stop": ("Stop", roles.DestructiveRole, "Closes the viewer; the runs end with a checkpoint that can be used."),
        "cancel": ("Cancel", roles.RejectRole, "The viewer stays open."),
    }
    buttons = {}
    for name, (title, role, about) in offers.items():
        buttons[name] = box.addButton(title, role)
        buttons[name].setToolTip(tip(about))
    box.setDefaultButton(buttons["leave"])
    box.setEscapeButton(buttons["cancel"])
    box.exec()
    box.deleteLater()
    return next((name for name, button in buttons.items() if button is box.clickedButton()), "cancel")
