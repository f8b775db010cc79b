"""Picking a place of a scan with a click into the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medcl.gui.view import middle, voxel_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.subject import Asked


class Picker(QObject):  # type: ignore[misc]
    """Keeps the place that was clicked at; a drag moves the picture as always, and a tool in use keeps its clicks.

    Attributes:
        picked: There is another place.
        missed: The click was beside the scan.
    """

    picked = Signal()
    missed = Signal(str)

    def __init__(self, dock: Dock) -> None:
        super().__init__(dock)
        self._viewer = dock.viewer
        self._asked: Asked | None = None
        self._kept: tuple[Any, tuple[float, ...]] | None = None

    def follow(self, asked: Asked | None) -> None:
        """Listens to clicks into what is looked at; None: to nothing."""
        self._asked = asked
        callbacks = self._viewer.mouse_drag_callbacks
        if asked is not None and self.clicked not in callbacks:
            callbacks.append(self.clicked)
        elif asked is None and self.clicked in callbacks:
            callbacks.remove(self.clicked)

    def pick_at(self, position: tuple[float, ...]) -> None:
        """Takes another place, a position in the world."""
        if self._asked is None:
            return
        if _voxel(self._asked, position) is None:
            self.missed.emit("That is outside the scan: click into it.")
        else:
            self._kept = self._asked.layer, position
            self.picked.emit()

    def voxel(self, asked: Asked) -> tuple[float, ...]:
        """The voxel of the slice or volume that was picked, else the one in the middle of the slice in view."""
        layer, position = self._kept or (None, ())
        found = _voxel(asked, position) if layer is asked.layer else None
        return found or _voxel(asked, middle(asked.layer, asked.shown)) or ()

    def clicked(self, _: Any, event: Any) -> Iterator[None]:
        """What napari calls when the mouse is pressed."""
        active = self._viewer.layers.selection.active
        if self._viewer.dims.ndisplay == 3 or str(getattr(active, "mode", "pan_zoom")) != "pan_zoom":
            return
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved:
            self.pick_at(tuple(event.position))


def _voxel(asked: Asked, position: tuple[float, ...]) -> tuple[float, ...] | None:
    return voxel_at(asked.layer, asked.shown, position, flat=asked.dims == 2)
