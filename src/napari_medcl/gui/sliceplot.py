"""A plot over the slices of a volume, with the one in view marked; a click goes to a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph
from napari.utils.theme import get_theme
from qtpy.QtCore import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence


class SlicePlot(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """The frame of such a plot, which neither zooms nor moves.

    Args:
        theme: The viewer's, see `setTheme`.
        height: In pixels.
        top: Where the vertical axis ends; it begins at 0.
        ticks: What stands beside it, by place.

    Attributes:
        jumped: A slice was clicked at.
    """

    jumped = Signal(int)

    def __init__(self, theme: str, height: int, top: float, ticks: Sequence[tuple[float, str]]) -> None:
        super().__init__(enableMenu=False)
        item = self.getPlotItem()
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.ctrlMenu.setParent(self, item.ctrlMenu.windowFlags())  # pyqtgraph leaves it without, for ever
        item.setYRange(0, top, padding=0.06 / top)
        item.getAxis("left").setTicks([list(ticks)])
        self.setFixedHeight(height)
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

    def show_count(self, count: int) -> None:
        """Makes room for so many slices."""
        self._count = count
        self.getPlotItem().setXRange(-0.5, count - 0.5, padding=0.01)

    def show_place(self, index: int) -> None:
        """Marks the slice in view."""
        self._here.setValue(index)

    def _clicked(self, event: Any) -> None:
        place = self.getPlotItem().vb.mapSceneToView(event.scenePos())
        self.jumped.emit(int(np.clip(round(place.x()), 0, self._count - 1)))
