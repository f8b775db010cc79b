"""How doubtful the slices of a mask are, as a bar over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph

from napari_medcl.gui.sliceplot import SlicePlot

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_HEIGHT = 110
_OPEN, _REVIEWED = "#f9844a", "#90be6d"
_LEAST = 0.04
"""Slices without doubt are drawn so high, to be seen."""


class DoubtBar(SlicePlot):
    """A bar for every slice: the higher the more doubtful, green where a person has looked."""

    def __init__(self, theme: str) -> None:
        super().__init__(theme, _HEIGHT, 1, [(0, "sure"), (1, "doubtful")])
        self._bars = pyqtgraph.BarGraphItem(x=[], height=[], width=0.9)
        self._bars.setZValue(-1)  # behind the mark of the slice in view
        self.addItem(self._bars)

    def show_scores(self, scores: NDArray[np.float64], reviewed: Collection[int]) -> None:
        """Draws how doubtful the slices are, and which a person has looked at."""
        self.show_count(len(scores))
        colours = [_REVIEWED if index in reviewed else _OPEN for index in range(len(scores))]
        heights = np.maximum(scores, _LEAST)
        self._bars.setOpts(x=np.arange(len(scores)), height=heights, brushes=colours, pen=pyqtgraph.mkPen(None))
