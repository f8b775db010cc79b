"""How doubtful the slices of a mask are, as a bar over them; a click goes to a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph
from napari.utils.theme import get_theme
from qtpy.QtCore import Signal

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_HEIGHT = 110
_OPEN, _REVIEWED = "#f9844a", "#90be6d"
_LEAST = 0.04
"""Slices without doubt are drawn so high, to be seen."""


class DoubtBar(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """A bar for every slice: the higher the more doubtful, green where a person has looked.

    Attributes:
        jumped: A slice was clicked at.
    """

    jumped = Signal(int)

    def __init__(self, theme: str) -> None:
        super().__init__(enableMenu=False)
        item = self.getPlotItem()
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.ctrlMenu.setParent(self, item.ctrlMenu.windowFlags())  # pyqtgraph leaves it without, for ever
        item.setYRange(0, 1, padding=0.1)
        item.getAxis("left").setTicks([[(0, "sure"), (1, "doubtful")]])
        self.setFixedHeight(_HEIGHT)
        self._bars = pyqtgraph.BarGraphItem(x=[], height=[], width=0.9)
        self.addItem(self._bars)
        self._here = self.addLine(x=0)
        self._count = 1
        self.setTheme(theme)
        self.scene().sigMouseClicked.connect(self._clicked)

    def setTheme(self, name: str) -> None:  # noqa: N802
        """Takes the colours of the viewer's theme."""
        theme = get_theme(name)
        text = theme.text.as_hex()
        self.setBackground(theme.canvas.as_hex() if name == "dark" else theme.background.as_hex())
        for side in ("left", "bottom"):
            self.getPlotItem().getAxis(side).setPen(text)
            self.getPlotItem().getAxis(side).setTextPen(text)
        self._here.setPen(pyqtgraph.mkPen(text, width=2))

    def show_scores(self, scores: NDArray[np.float64], reviewed: Collection[int]) -> None:
        """Draws how doubtful the slices are, and which a person has looked at."""
        self._count = len(scores)
        self.getPlotItem().setXRange(-0.5, self._count - 0.5, padding=0.01)
        colours = [_REVIEWED if index in reviewed else _OPEN for index in range(self._count)]
        heights = np.maximum(scores, _LEAST)
        self._bars.setOpts(x=np.arange(self._count), height=heights, brushes=colours, pen=pyqtgraph.mkPen(None))

    def show_place(self, index: int) -> None:
        """Marks the slice in view."""
        self._here.setValue(index)

    def _clicked(self, event: Any) -> None:
        place = self.getPlotItem().vb.mapSceneToView(event.scenePos())
        self.jumped.emit(int(np.clip(round(place.x()), 0, self._count - 1)))
