"""Asking what the UAFS blocks of a model are unsure of, and laying it over the scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.view import Shown, over_scan, over_slice, shown_slice

if TYPE_CHECKING:
    from napari_medcl.data.volume import Volume
    from napari_medcl.gui.docks import Dock

_ABOUT = "What every UAFS block of the model is unsure of, from 0 (sure) to 1 (every class equally likely): a map each."
_NONE = "The model has no UAFS blocks. Fine-tune one with UAFS blocks to see what they are unsure of."


class BlockMaps(QWidget):  # type: ignore[misc]
    """Of the slice in view or the whole scan; there is something to ask only of a model with blocks."""

    asked = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock
        self._layer: Any = None
        self._shown: Shown | None = None
        self._kept: dict[str, Any] = {}

        self.extent = Choice([("slice in view", True), ("whole scan", False)])
        self.show_maps = QPushButton("Show")

        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.extent)
        row.addWidget(self.show_maps)

        self.show_maps.clicked.connect(lambda: self.asked.emit())
        self.offer(())

    def offer(self, blocks: tuple[str, ...]) -> None:
        """Follows the model: the maps that it has blocks behind."""
        self.setEnabled(bool(blocks))
        self.setToolTip(tip(f"{_ABOUT} Behind {', '.join(blocks)}." if blocks else _NONE))

    def ask(self, layer: Any) -> tuple[int, int] | None:
        """Remembers what is asked about a scan: axis and number of the slice, None for all of it.

        Raises:
            UserError: No slice of it is in view.
        """
        shown = shown_slice(layer, self._dock.viewer.dims) if self.extent.value() else None
        if layer is not self._layer:
            self._kept = {}
        self._layer, self._shown = layer, shown
        return None if shown is None or shown.axis is None else (shown.axis, shown.index)

    def show_found(self, found: dict[str, Volume]) -> None:
        """Lays the maps over the scan, the last one to be seen; those of before are brought up to date."""
        for name in self._kept.keys() - found.keys():
            self._dock.drop_layer(self._kept.pop(name))
        last = [*found][-1]
        for name, volume in found.items():
            array = volume.array[0]
            if self._shown is None or self._shown.axis is None:
                overlay = over_scan(self._layer, array)
            else:
                overlay = over_slice(self._layer, self._shown, array.take(0, self._shown.axis))
            self._kept[name] = self._dock.show_overlay(
                self._kept.get(name),
                overlay,
                f"{self._layer.name} UAFS {name}",
                image=True,
                colormap="inferno",
                contrast_limits=(0, 1),
                blending="additive",
                opacity=0.6,
                visible=name == last,
            )
