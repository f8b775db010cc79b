"""Which pixels of an image SuperCL takes for alike: superpixels on the grid of the network's innermost map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QFormLayout, QPushButton

from napari_medcl.data.superpixels import at_grid
from napari_medcl.gui.docks import Dock, Progress
from napari_medcl.gui.editors import IntEdit, tip
from napari_medcl.gui.picking import Picker
from napari_medcl.gui.superpixels import scan_map, slice_map
from napari_medcl.gui.tab import PairsTab
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import CHOSEN, POSITIVE, SAMPLED, positives_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medcl.gui.subject import Asked, Subject

_COLOURS = {None: "transparent", 0: "transparent", POSITIVE: "#00b4d8", SAMPLED: "#caf0f8", CHOSEN: "#ffd60a"}


class PixelsTab(PairsTab):
    """The superpixels as the network sees them, and the positives of a pixel that is picked."""

    def __init__(self, dock: Dock, subject: Subject) -> None:
        super().__init__(
            dock, subject, "SuperCL takes pixels of one superpixel for alike, on the grid of the innermost map."
        )
        self._task = Task(self)
        self._asked: Asked | None = None
        self._found: NDArray[np.int32] | None = None
        self._grid: NDArray[np.int32] | None = None
        self._cell: tuple[int, ...] = ()
        self._grid_layer: Any = None
        self._positives_layer: Any = None

        # widgets
        self.depth = IntEdit(1, 5)
        self.depth.setValue(4)
        self.depth.setToolTip("Poolings of the network; after 4 a cell is 16 pixels wide")
        self.stride = IntEdit(1, 1000)
        self.stride.setValue(16)
        self.stride.setToolTip(tip("The loss looks at one cell in so many, counted row by row."))
        self.compute = QPushButton("Compute superpixels of the volume")
        self.progress = Progress()
        self._picker = Picker(dock)

        # layout
        rows = QFormLayout()
        rows.addRow("Poolings", self.depth)
        rows.addRow("One cell in", self.stride)
        self.column.addLayout(rows)
        for widget in (self.compute, self.progress, self.message):
            self.column.addWidget(widget)
        self.column.addStretch()
        self.compute.hide()

        # connections
        self.depth.valueChanged.connect(self.soon)
        self.stride.valueChanged.connect(self.soon)
        self.compute.clicked.connect(self._start_volume)
        self._picker.picked.connect(self._show_positives)
        self._picker.missed.connect(self.message.say)
        self._task.progressed.connect(self.progress.setValue)
        self._task.done.connect(self._take)
        self._task.failed.connect(self.message.warn)
        self._task.ended.connect(self.progress.hide)
        self.progress.stopped.connect(self._task.stop)

    def show_what(self, asked: Asked) -> None:
        """The superpixels of the slice in view, at once; those of a volume when they have been computed."""
        self.compute.setVisible(asked.dims == 3)
        if asked.dims == 2:
            self._start(asked)
        elif self._asked is None or not asked.same_volume(self._asked):
            self.clear()
            self.message.say("Superpixels of a volume take longer: press the button.")
        elif self._found is not None:
            self._asked = asked
            self._lay()

    def clear(self) -> None:
        """Removes what it shows."""
        self._task.stop()
        self._picker.follow(None)
        self.dock.drop_layer(self._grid_layer)
        self.dock.drop_layer(self._positives_layer)
        self._asked = self._found = self._grid = self._grid_layer = self._positives_layer = None
        self.message.say("")

    def _start(self, asked: Asked) -> None:
        self._asked, self._found = asked, None
        if asked.dims == 2:
            self._task.start(slice_map, asked.volume, asked.shown, asked.how)
        else:
            self.progress.begin()
            self._task.start(scan_map, asked.volume, 0, asked.how)

    def _start_volume(self) -> None:
        if (asked := self.asked()) is not None:
            self._start(asked)

    def _take(self, found: NDArray[np.int32]) -> None:
        self._found = found
        self._lay()

    def _lay(self) -> None:
        """Lays what was found over the scan, as the network sees it."""
        assert self._asked is not None
        assert self._found is not None
        self._cell = (2 ** int(self.depth.value() or 1),) * self._found.ndim
        self._grid = at_grid(self._found, self._cell)
        overlay = self._asked.over(self._grid, cell=self._cell)
        self._grid_layer = self.dock.show_overlay(self._grid_layer, overlay, "pseudo masks", opacity=0.25)
        self._picker.follow(self._asked)
        self._show_positives()

    def _show_positives(self) -> None:
        asked, grid = self._asked, self._grid
        if asked is None or grid is None:
            return
        voxel = self._picker.voxel(asked)
        index = tuple(round(place) // size for place, size in zip(voxel, self._cell, strict=True))
        found = positives_of(grid, index, int(self.stride.value() or 1))
        self._positives_layer = self.dock.show_overlay(
            self._positives_layer,
            asked.over(found, cell=self._cell),
            "positives",
            opacity=0.8,
            colormap=DirectLabelColormap(color_dict=_COLOURS),
        )
        self.message.say(described(grid, found, index))


def described(grid: NDArray[np.int32], found: NDArray[np.uint8], index: tuple[int, ...]) -> str:
    """What is alike to a cell, in words.

    Args:
        grid: Superpixels on the grid.
        found: Positives of the cell (see `positives_of`).
        index: The cell.
    """
    cells = " × ".join(map(str, grid.shape))
    same = int(np.count_nonzero(found)) - 1
    looked_at = int(np.count_nonzero(found == SAMPLED))
    return (
        f"Superpixel {grid[index]} (yellow) on the grid of {cells} cells: {same} more cells belong to it (blue), "
        f"{looked_at} of them are looked at by the loss (light blue). Click into the scan to pick another."
    )
