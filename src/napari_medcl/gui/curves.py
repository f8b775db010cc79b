"""Curves that grow while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt

from napari_medcl.training.history import MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from qtpy.QtGui import QPen

    from napari_medcl.training.history import Curve

_COLOURS = ("#2f9fd0", "#f3722c", "#6a9e3f", "#e5383b", "#a05bd6", "#c99700", "#7d8790", "#2a9d8f")
"""Each can be seen on dark and on light."""
_STYLES = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine, Qt.PenStyle.DashDotLine)
_HEIGHT = 190
_DOTS = 30
"""So few points are shown as dots, too: one alone is no line."""


@dataclass(frozen=True)
class Line:
    """The points of a curve as they are drawn; made where the window does not wait for it."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, curve: Curve) -> Line:
        """The points of a curve as it is now."""
        return cls(np.array(curve.steps, np.float64), np.array(curve.values, np.float64))

    def same(self, other: Line | None) -> bool:
        """Whether there is nothing to draw anew."""
        return other is not None and all(
            np.array_equal(one, two, equal_nan=True)
            for one, two in ((self.steps, other.steps), (self.values, other.values))
        )


class CurvePlot(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """Named curves over the step.

    Args:
        title: What they show.
        fraction: Whether they lie between 0 and 1.
        beside: Whether they are of the same kind and told apart by dashes as well; then there is no legend inside.
        theme: The viewer's.
    """

    def __init__(self, title: str, *, fraction: bool = False, beside: bool = False, theme: str = "dark") -> None:
        super().__init__(enableMenu=False)
        self._curves: dict[str, Any] = {}
        self._lines: dict[str, Line] = {}
        self._numbers: dict[str, int] = {}
        self._title, self._beside, self._text = title, beside, ""
        item = self.getPlotItem()
        item.hideButtons()
        item.setMouseEnabled(x=False, y=False)
        item.showGrid(x=True, y=True, alpha=0.2)
        item.setDownsampling(auto=True, mode="peak")
        item.setClipToView(True)
        for side in ("left", "bottom"):
            item.getAxis(side).setStyle(maxTickLevel=0)  # a line for every small tick takes longest of all to draw
        item.ctrlMenu.setParent(self, item.ctrlMenu.windowFlags())  # pyqtgraph leaves it without, for ever
        corner = (-5, -5) if fraction else (-5, 5)  # losses fall, and what is a fraction rises
        self._legend = None if beside else item.addLegend(offset=corner, labelTextSize="8pt")
        self.setFixedHeight(_HEIGHT)
        self.setTheme(theme)
        self.setWhat(title, fraction=fraction)

    def setWhat(self, title: str, *, fraction: bool) -> None:  # noqa: N802
        """Says what is shown from now on."""
        self._title = title
        item = self.getPlotItem()
        item.setTitle(title, color=self._text, size="9pt")
        if fraction:
            item.setYRange(0, 1)
        else:
            item.enableAutoRange(y=True)

    def setTheme(self, name: str) -> None:  # noqa: N802
        """Takes the colours of the viewer's theme."""
        theme = get_theme(name)
        self._text = theme.text.as_hex()
        self.setBackground(theme.canvas.as_hex() if name == "dark" else theme.background.as_hex())
        item = self.getPlotItem()
        item.setTitle(self._title, color=self._text, size="9pt")
        for side in ("left", "bottom"):
            item.getAxis(side).setPen(self._text)
            item.getAxis(side).setTextPen(self._text)
        if self._legend is not None:
            self._legend.setLabelTextColor(self._text)
            for _, label in self._legend.items:
                label.setText(label.text, color=self._text)

    def draw(self, lines: Mapping[str, Line]) -> None:
        """Shows these curves and no others."""
        for name in [*self._curves]:
            if name not in lines:
                self.removeItem(self._curves.pop(name))
                del self._numbers[name], self._lines[name]
        for name, line in lines.items():
            if line.same(self._lines.get(name)):
                continue
            if name not in self._curves:
                self._curves[name] = self._add(name)
            self._lines[name] = line
            self._curves[name].setData(
                line.steps, line.values, symbol="o" if len(line.steps) <= _DOTS else None, symbolSize=5,
                symbolBrush=self.pen(name).color(), symbolPen=None,
            )  # fmt: skip

    def pen(self, name: str) -> QPen:
        """How a curve that is shown is drawn."""
        number = self._numbers[name]
        style = _STYLES[number % len(_STYLES)] if self._beside else _STYLES[0]
        width = 3 if name == MEAN and not self._beside else 1.5
        return pyqtgraph.mkPen(_COLOURS[number % len(_COLOURS)], width=width, style=style)

    def _add(self, name: str) -> Any:
        taken = set(self._numbers.values())
        self._numbers[name] = next(number for number in range(len(taken) + 1) if number not in taken)
        return self.plot([], [], pen=self.pen(name), name=None if self._beside else name)
