"""Patients stand upright in coronal and sagittal views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

if TYPE_CHECKING:
    import napari

_watched: WeakSet[Any] = WeakSet()


def keep_upright(viewer: napari.Viewer) -> None:
    """Turns the camera whenever the user rolls to a plane where z, which grows towards the head, is vertical."""
    if viewer in _watched:
        return
    _watched.add(viewer)
    seen = ref(viewer)

    def turn(_: Any = None) -> None:
        viewer = seen()
        if viewer is not None and viewer.dims.ndisplay == 2 and viewer.dims.ndim > 2:
            vertical = viewer.dims.axis_labels[viewer.dims.displayed[0]]
            camera = getattr(viewer, "scene", viewer).camera  # before napari 0.9 the viewer had it
            camera.orientation2d = ("up" if vertical == "z" else "down", "right")

    viewer.dims.events.order.connect(turn)
