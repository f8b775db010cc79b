"""Curves that grow while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyqtgraph
from napari.utils.theme import get_theme

from napari_medcl.training.history import MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medcl.training.history import Curve

_COLOURS = ("#4cc9f0", "#f9844a", "#90be6d", "#f94144", "#c77dff", "#f9c74f", "#adb5bd", "#43aa8b")
_HEIGHT = 190


class CurvePlot(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """Named curves over the step."""

    def __init__(self, title: str, *, fraction: bool = False, theme: str = "dark") -> None:
        super().__init__(enableMenu=False)
        self._curves: dict[str, Any] = {}
        self._title = title
        item = self.getPlotItem()
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.showGrid(x=True, y=True, alpha=0.2)
        if fraction:
            item.setYRange(0, 1)
        item.ctrlMenu.setParent(self, item.ctrlMenu.windowFlags())  # pyqtgraph leaves it without, for ever
        self._legend = item.addLegend(offset=(-5, 5), labelTextSize="8pt")
        self.setFixedHeight(_HEIGHT)
        self.setTheme(theme)

    def setTheme(self, name: str) -> None:  # noqa: N802
        """Takes the colours of the viewer's theme."""
        theme = get_theme(name)
        text = theme.text.as_hex()
        self.setBackground(theme.canvas.as_hex() if name == "dark" else theme.background.as_hex())
        item = self.getPlotItem()
        item.setTitle(self._title, color=text, size="9pt")
        for side in ("left", "bottom"):
            item.getAxis(side).setPen(text)
            item.getAxis(side).setTextPen(text)
        self._legend.setLabelTextColor(text)
        for _, label in self._legend.items:
            label.setText(label.text, color=text)

    def draw(self, curves: Mapping[str, Curve]) -> None:
        """Shows these curves and no others."""
        for name in [*self._curves]:
            if name not in curves:
                self.removeItem(self._curves.pop(name))
        for name, curve in curves.items():
            if name not in self._curves:
                self._curves[name] = self._add(name, len(self._curves))
            self._curves[name].setData(curve.steps, curve.values)

    def _add(self, name: str, number: int) -> Any:
        pen = pyqtgraph.mkPen(_COLOURS[number % len(_COLOURS)], width=3 if name == MEAN else 1.5)
        return self.plot([], [], pen=pen, name=name)
