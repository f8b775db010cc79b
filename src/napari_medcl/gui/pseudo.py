"""The superpixels as a network's innermost map sees them, and the cells that the loss pulls together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QFormLayout, QGroupBox, QPushButton

from napari_medcl.gui.docks import Dock, Message
from napari_medcl.gui.editors import IntEdit, tip
from napari_medcl.gui.view import CHOSEN, POSITIVE, SAMPLED, Overlay, bottleneck, positives_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLOURS = {None: "transparent", 0: "transparent", POSITIVE: "#00b4d8", SAMPLED: "#caf0f8", CHOSEN: "#ffd60a"}


class PseudoMasks(QGroupBox):  # type: ignore[misc]
    """Shows the pseudo masks of the superpixels that a dock has made, as layers over the scan."""

    def __init__(self, dock: Dock) -> None:
        super().__init__("Pseudo masks as the methods use them")
        self._dock = dock
        self._superpixels: Overlay | None = None
        self._grid: Overlay | None = None
        self._position: tuple[float, ...] | None = None
        self._grid_layer: Any = None
        self._positives_layer: Any = None

        # widgets
        self.setCheckable(True)
        self.setChecked(False)
        self.setToolTip(
            tip("The superpixels on the grid of the network's innermost map, where the loss compares them.")
        )
        self.depth = IntEdit(1, 6)
        self.depth.setValue(4)
        self.depth.setToolTip("Poolings of the network; after 4 a cell is 16 pixels wide")
        self.stride = IntEdit(1, 1000)
        self.stride.setValue(16)
        self.stride.setToolTip(tip("The loss looks at one cell in so many, counted row by row."))
        self.pick = QPushButton("Pick a pixel")
        self.pick.setCheckable(True)
        self.pick.setToolTip(tip("Click into the scan: the cells that the loss pulls towards that one light up."))
        self.message = Message()

        # layout
        rows = QFormLayout(self)
        rows.addRow("Poolings", self.depth)
        rows.addRow("One cell in", self.stride)
        rows.addRow(self.pick)
        rows.addRow(self.message)

        # connections
        self.toggled.connect(self._show)
        self.depth.valueChanged.connect(self._show)
        self.stride.valueChanged.connect(self._show)
        self.pick.toggled.connect(self._listen)
        dock.closed.connect(self.clear)

    def setSuperpixels(self, superpixels: Overlay | None) -> None:  # noqa: N802
        """Takes other superpixels; a pixel once picked stays picked."""
        self._superpixels = superpixels
        self._show()

    def clear(self) -> None:
        """Removes what it shows."""
        self.pick.setChecked(False)
        self._superpixels = None
        self._show()

    def pick_at(self, position: tuple[float, ...]) -> None:
        """Shows the positives of the cell at a position in the world."""
        self._position = position
        self._show_positives()

    def _show(self, _: Any = None) -> None:
        if self._superpixels is None or not self.isChecked():
            self._dock.drop_layer(self._grid_layer)
            self._dock.drop_layer(self._positives_layer)
            self._grid = self._grid_layer = self._positives_layer = None
            self.pick.setChecked(False)
            self.message.say("")
            return
        self._grid = bottleneck(self._superpixels, int(self.depth.value() or 1))
        self._grid_layer = self._dock.show_overlay(self._grid_layer, self._grid, "pseudo masks", opacity=0.4)
        self._show_positives()

    def _show_positives(self) -> None:
        if self._grid is None or self._position is None:
            return
        cell = self._grid.cell(self._position)
        if cell is None:
            self.message.say("That is outside the scan: click into it.")
            return
        found = positives_of(self._grid, cell, int(self.stride.value() or 1))
        colours = DirectLabelColormap(color_dict=_COLOURS)
        self._positives_layer = self._dock.show_overlay(
            self._positives_layer, found, "positives", opacity=0.8, colormap=colours
        )
        self.message.say(_describe(self._grid, found, cell))

    def _listen(self, on: bool) -> None:
        callbacks = self._dock.viewer.mouse_drag_callbacks
        if self._clicked in callbacks:
            callbacks.remove(self._clicked)
        if on:
            callbacks.append(self._clicked)

    def _clicked(self, _: Any, event: Any) -> Iterator[None]:
        """A click picks; a drag moves the picture as always."""
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved:
            self.pick_at(tuple(event.position))


def _describe(grid: Overlay, found: Overlay, cell: tuple[int, ...]) -> str:
    cells = " × ".join(str(size) for size in grid.array.shape if size > 1)
    same = int(np.count_nonzero(found.array)) - 1
    looked_at = int(np.count_nonzero(found.array == SAMPLED))
    return (
        f"Superpixel {grid.array[cell]} on the grid of {cells} cells: {same} more cells belong to it (blue), "
        f"{looked_at} of them are looked at by the loss (light blue)."
    )
