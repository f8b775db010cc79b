"""The dock that shows what each method takes for alike: pixels, slices, patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QTabWidget

from napari_medcl.gui.docks import Dock
from napari_medcl.gui.patches import PatchesTab
from napari_medcl.gui.pixels import PixelsTab
from napari_medcl.gui.slices import SlicesTab
from napari_medcl.gui.subject import Subject

if TYPE_CHECKING:
    import napari

    from napari_medcl.gui.tab import PairsTab


class PairsDock(Dock):
    """What is alike, and so pulled together in training, for the scan in view; a tab for each kind of thing."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._front: PairsTab | None = None

        # widgets
        self.subject = Subject(self)
        self.pixels = PixelsTab(self, self.subject)
        self.slices = SlicesTab(self, self.subject)
        self.patches = PatchesTab(self, self.subject)
        self.tabs = QTabWidget()
        for tab, name in ((self.pixels, "Pixels"), (self.slices, "Slices"), (self.patches, "Patches")):
            self.tabs.addTab(tab, name)

        # layout
        column = self.add_column()
        column.addWidget(self.subject)
        column.addWidget(self.message)
        column.addWidget(self.tabs)
        column.addStretch()

        # connections
        self.tabs.currentChanged.connect(self._turn)
        self.subject.valueChanged.connect(self._soon)
        self.closed.connect(self._close_down)
        self.viewer.events.theme.connect(self._follow_theme)
        for event in self._dims_events():
            event.connect(self._soon)
        self._turn()

    def _dims_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _turn(self, _: int = 0) -> None:
        """Another tab has come to the front."""
        if self._front is not None:
            self._front.leave()
        self._front = self.tabs.currentWidget()
        self._front.come()

    def _soon(self, _: Any = None) -> None:
        if self._front is not None:
            self._front.soon()

    def _follow_theme(self, _: Any = None) -> None:
        for widget in (self.slices.bar, self.slices.list):
            widget.setTheme(self.viewer.theme)

    def _close_down(self) -> None:
        self.viewer.events.theme.disconnect(self._follow_theme)
        for event in self._dims_events():
            event.disconnect(self._soon)
        if self._front is not None:
            self._front.leave()
