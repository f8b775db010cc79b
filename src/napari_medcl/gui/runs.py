"""The dock that lists the runs of a folder, shows them, and lets them be stopped, resumed and deleted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSplitter, QVBoxLayout, QWidget

from napari_medcl.gui.closing import ClosingGuard
from napari_medcl.gui.compare import Comparison
from napari_medcl.gui.docks import Dock, Scroll
from napari_medcl.gui.editors import PathEdit, tip
from napari_medcl.gui.monitor import RunMonitor
from napari_medcl.gui.preview import PreviewRow
from napari_medcl.gui.run_actions import RunActions
from napari_medcl.gui.run_table import RunTable
from napari_medcl.gui.settings import settings
from napari_medcl.gui.watch import Watch
from napari_medcl.training.overview import Overview

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari

    from napari_medcl.training.overview import Brief
    from napari_medcl.training.run import Run

_EVERY_MS = 3000
"""Where the viewer draws in software, each change of a text redraws the whole window, in 30 ms or more."""
_SIZES = [320, 480]
_REST_MS = 400
"""A folder that is typed is looked at when the typing has rested so long."""


@dataclass(frozen=True)
class Seen:
    """The runs of a folder, and whether it is there."""

    root: Path
    there: bool
    briefs: tuple[Brief, ...]


def look_over(overview: Overview, *, stop: Callable[[], bool], **_: Callable[..., Any]) -> Seen:
    """The runs as they are now."""
    return Seen(overview.root, overview.root.is_dir(), overview.look(stop))


class RunsDock(Dock):
    """A table of the runs; below it, what is to be known of those that are chosen."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._overview = Overview(settings().runs)
        self._warning = ""
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)

        # widgets
        self.folder = PathEdit(folder=True)
        self.folder.setToolTip(tip("Where to look for runs, such as a file share; the default is in the preferences."))
        self.folder.setValue(self._overview.root)
        self.table = RunTable()
        self.actions = RunActions()
        self.monitor = RunMonitor(self.viewer.theme)
        self.preview = PreviewRow(self)
        self.comparison = Comparison(self.viewer.theme)

        # layout
        upper, lower = QWidget(), QWidget()
        above, below = QVBoxLayout(upper), QVBoxLayout(lower)
        above.setContentsMargins(0, 6, 0, 0)
        row = QHBoxLayout()
        row.addWidget(QLabel("Folder"))
        row.addWidget(self.folder)
        above.addLayout(row)
        for widget in (self.table, self.actions, self.message):
            above.addWidget(widget)
        below.setContentsMargins(0, 0, 0, 0)
        for widget in (self.monitor, self.comparison):
            below.addWidget(widget)
        self.monitor.extra.addWidget(self.preview)
        self.comparison.hide()
        splitter = QSplitter(Qt.Orientation.Vertical)
        splitter.addWidget(upper)
        splitter.addWidget(Scroll(lower))
        splitter.setChildrenCollapsible(False)
        splitter.setSizes(_SIZES)
        splitter.setStretchFactor(1, 1)
        self.outer.addWidget(splitter)

        # connections
        self._watch = Watch(self, _EVERY_MS, self._look)
        self._watch.looked.connect(self._show)
        self._watch.failed.connect(self._warn)
        self._rest.timeout.connect(self._turn_to)
        self.folder.valueChanged.connect(lambda _: self._rest.start())
        self.table.chosen.connect(self._follow)
        self.monitor.runChanged.connect(self.preview.follow)
        self.actions.acted.connect(self._acted)
        self.actions.failed.connect(self._failed)
        self.actions.began.connect(self.show_run)
        self.actions.applyAsked.connect(self._apply)
        self.viewer.events.theme.connect(self._follow_theme)
        self.closed.connect(self._close_down)

    def show_run(self, run: Run) -> None:
        """Chooses a run, as soon as it is listed; the folder that it lies in is looked at."""
        if run.folder.parent != self._overview.root:
            self.folder.setValue(run.folder.parent)
            self._turn_to()
        self.table.choose(run.folder)
        self._watch.now()

    def _turn_to(self) -> None:
        """Another folder is looked at."""
        root = self.folder.value() or settings().runs
        if root == self._overview.root:
            return
        self._overview = Overview(root)
        self.message.say("")
        self.table.show_briefs(())
        if (guard := ClosingGuard.of(self)) is not None:
            guard.folders.add(root)
        self._watch.now()

    def _look(self) -> Callable[..., Seen]:
        return partial(look_over, self._overview)

    def _show(self, seen: Seen) -> None:
        if seen.root != self._overview.root:
            return
        if not seen.there and seen.root != settings().runs:
            self._warn(f"There is no folder {seen.root}. Choose another one.")
        elif self.message.text() == self._warning:
            self.message.say("")
        self.table.show_briefs(seen.briefs)
        if not self.table.briefs():
            self._follow()

    def _warn(self, text: str) -> None:
        """Of what the last look found; the next good one takes it back."""
        self.message.warn(text)
        self._warning = self.message.text()

    def _follow(self) -> None:
        """Shows the runs that are chosen."""
        briefs = self.table.briefs()
        self.actions.show_briefs(briefs, self._overview.root)
        several = len(briefs) > 1
        self.monitor.setVisible(not several)
        self.comparison.setVisible(several)
        if several:
            self.comparison.show_runs([brief.run for brief in briefs])
        else:
            self.monitor.show_run(briefs[0].run if briefs else None, others=self.table.model().rowCount() > 0)

    def _acted(self, said: str) -> None:
        self.message.say(said)
        self._look_again()

    def _failed(self, said: str) -> None:
        self.message.warn(said)
        self._look_again()

    def _look_again(self) -> None:
        self._watch.now()
        self.monitor.look()

    def _apply(self, run: Run) -> None:
        self.open_dock("Apply").use(run.folder)

    def _follow_theme(self, _: Any = None) -> None:
        self.monitor.setTheme(self.viewer.theme)
        self.comparison.plot.setTheme(self.viewer.theme)

    def _close_down(self) -> None:
        self.viewer.events.theme.disconnect(self._follow_theme)
