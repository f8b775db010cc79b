"""Which slices of a scan are alike, as a bar over them and as a list; a click goes to a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel

from napari_medcl.gui.sliceplot import SlicePlot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_medcl.inference.groups import Groups

COLOURS = ("#4cc9f0", "#f9844a", "#90be6d", "#f94144", "#c77dff", "#f9c74f", "#ff8fab", "#43aa8b")
"""Of groups with several slices, over and over again."""
ALONE = "#adb5bd"
"""Of slices that are alike to no other."""
_POSITION, _LIKENESS, _GROUPS = 0, 1, 2
"""The rows from below; view 2 is the lower half of the row of groups."""
_GAP = 0.08
_HEIGHT = 130


class SliceBar(SlicePlot):
    """Three rows over the slices: groups, likeness to the slice in view, nearness to it."""

    def __init__(self, theme: str) -> None:
        ticks = [(_GROUPS + 0.5, "groups"), (_LIKENESS + 0.5, "likeness"), (_POSITION + 0.5, "position")]
        super().__init__(theme, _HEIGHT, 3, ticks)
        self._bars = {row: self._add_bars() for row in (_POSITION, _LIKENESS, _GROUPS)}

    def show_position(self, index: int, alike: NDArray[np.bool_]) -> None:
        """Marks the slice in view and those that are near it."""
        self.show_count(len(alike))
        self.show_place(index)
        found = np.flatnonzero(alike)
        self._draw(_POSITION, found - 0.5, found + 0.5, [COLOURS[0]] * len(found), pen=None)

    def show_groups(self, groups: Groups | None, chosen: int | None = None) -> None:
        """Draws groups, and how alike all are to the chosen one of the batch."""
        if groups is None:
            self._draw(_GROUPS, [], [], [])
            self._draw(_LIKENESS, [], [], [])
            return
        begins, ends = shares(groups.slices, self._count)
        colours = [colour_of(groups, group) for group in groups.views.ravel().tolist()]
        low = np.repeat([_GROUPS + 0.5, _GROUPS], len(begins))
        self._draw(_GROUPS, np.tile(begins, 2), np.tile(ends, 2), colours, low=low, height=0.5)
        shades = [] if chosen is None else likeness_shades(groups.likeness, chosen)
        self._draw(_LIKENESS, *((begins, ends) if shades else ([], [])), shades)

    def _add_bars(self) -> Any:
        bars = pyqtgraph.BarGraphItem(x0=[], x1=[], y0=[], height=[])
        bars.setZValue(-1)  # behind the mark of the slice in view
        self.addItem(bars)
        return bars

    def _draw(
        self,
        row: int,
        begins: Any,
        ends: Any,
        colours: Sequence[str],
        *,
        low: Any = None,
        height: float = 1 - _GAP,
        pen: Any = "k",
    ) -> None:
        base = np.full(len(begins), float(row)) if low is None else low
        pens = pyqtgraph.mkPen(pen) if pen else pyqtgraph.mkPen(None)
        self._bars[row].setOpts(
            x0=begins, x1=ends, y0=base, height=np.full(len(begins), height), brushes=list(colours), pen=pens
        )


class GroupList(QLabel):  # type: ignore[misc]
    """The groups with several slices, a line each, and the slices that are alone; the numbers are links.

    Attributes:
        jumped: A slice was clicked at.
    """

    jumped = Signal(int)

    def __init__(self, theme: str) -> None:
        super().__init__()
        self._groups: Groups | None = None
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        self.linkActivated.connect(lambda link: self.jumped.emit(int(link)))
        self.setTheme(theme)

    def setTheme(self, name: str) -> None:  # noqa: N802
        """Takes the colours of the viewer's theme."""
        self._ink = get_theme(name).text.as_hex()
        self.show_groups(self._groups)

    def show_groups(self, groups: Groups | None) -> None:
        """Lists groups, or nothing."""
        self._groups = groups
        lines = []
        if groups is not None:
            lines = [self._line(colour_of(groups, group), "", groups.members(group)) for group in groups.shared]
            if groups.alone:
                lines.append(self._line(ALONE, "alike to no other: ", groups.alone))
        self.setText("<br>".join(lines))

    def _line(self, colour: str, what: str, numbers: Sequence[int]) -> str:
        links = (f'<a href="{number}" style="color:{self._ink}">{number}</a>' for number in numbers)
        return f'<span style="color:{colour}">■</span> {what}{", ".join(links)}'


def shares(slices: NDArray[np.intp], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Begin and end of the part of the axis that is nearest to each slice of a batch."""
    middles = (slices[1:] + slices[:-1]) / 2
    return np.concatenate([[-0.5], middles]), np.concatenate([middles, [count - 0.5]])


def colour_of(groups: Groups, group: int) -> str:
    """A group's colour: grey for one slice alone."""
    shared = groups.shared
    return COLOURS[shared.index(group) % len(COLOURS)] if group in shared else ALONE


def likeness_shades(likeness: NDArray[np.float32], chosen: int) -> list[str]:
    """Grey for each slice, from the least alike (dark) to the one most alike (light); the chosen one is white."""
    row = np.delete(likeness[chosen], chosen)
    span = max(float(row.max() - row.min()), 1e-6)
    parts = np.clip((likeness[chosen] - row.min()) / span, 0, 1)
    return ["#" + f"{round(40 + 180 * part):02x}" * 3 for part in parts]
