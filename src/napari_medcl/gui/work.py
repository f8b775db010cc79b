"""The mask that is corrected: the part of it that an edit sees, and what is put back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medcl.errors import UserError
from napari_medcl.gui.layers import to_volume
from napari_medcl.gui.view import Shown, cut, over_scan, over_slice, shown_slice, shown_step, voxel_at
from napari_medcl.inference.correct import changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_medcl.data.volume import Volume
    from napari_medcl.gui.docks import Dock, LayerChoice, MaskChoice
    from napari_medcl.gui.view import Overlay

_SAME = 1e-3
"""Layers lie on one grid where they differ by less than this part of a voxel."""


@dataclass(frozen=True, eq=False)
class Part:
    """A slice of a mask, or all of it.

    Attributes:
        layer: Shows the mask.
        shown: The slice; None for all of the mask.
        labels: (A, B) or (Z, Y, X), as they are now; not to be written to.
        spacing: Millimetres along the axes of `labels`.
        voxel_ml: Millilitres of a voxel.
    """

    layer: Any
    shown: Shown | None
    labels: NDArray[Any]
    spacing: tuple[float, ...]
    voxel_ml: float

    @property
    def now(self) -> Part:
        """The same part, with the labels that it has by now."""
        array = np.asarray(self.layer.data)
        if self.shown is not None and self.shown.axis is not None:
            array = np.take(array, self.shown.index, self.shown.axis)
        return replace(self, labels=array)

    def at(self, indices: tuple[NDArray[np.intp], ...]) -> tuple[NDArray[np.intp], ...]:
        """Indices into the part as indices into the mask."""
        if self.shown is None or self.shown.axis is None:
            return indices
        slices = np.full(len(indices[0]), self.shown.index)
        return (*indices[: self.shown.axis], slices, *indices[self.shown.axis :])

    def voxel(self, position: Sequence[float]) -> tuple[int, ...] | None:
        """The voxel of the part at a position in the world; None outside."""
        shown = Shown(None) if self.shown is None else self.shown
        found = voxel_at(self.layer, shown, position, flat=self.shown is not None)
        return None if found is None else tuple(round(place) for place in found[-self.labels.ndim :])

    def over(self, array: NDArray[Any], first: Sequence[int]) -> Overlay:
        """A map of a piece of the part that begins at voxel `first`, laid over the mask."""
        if self.shown is None:
            return over_scan(self.layer, array, first, np.ones(array.ndim))
        return over_slice(self.layer, self.shown, array, first)


class Work(QObject):  # type: ignore[misc]
    """The mask that is chosen in a dock, and the scan under it.

    Attributes:
        changed: Another mask or scan is chosen.
        moved: Another slice is in view.
        painted: A step was made that can be undone, by whatever tool; with what napari keeps of it.
        refreshed: Something may have changed in another way, such as by undoing.
    """

    changed = Signal()
    moved = Signal()
    painted = Signal(object)
    refreshed = Signal()

    def __init__(self, dock: Dock, mask: MaskChoice, scan: LayerChoice) -> None:
        super().__init__(dock)
        self.viewer, self._mask, self._scan = dock.viewer, mask, scan
        self.layer: Any = None
        self._volume: tuple[Any, int, Volume] | None = None
        self._stepping: Any = None

        mask.valueChanged.connect(self._choose)
        scan.valueChanged.connect(lambda _: self.changed.emit())
        for event in self._dims_events():
            event.connect(self._moved)
        dock.closed.connect(self._close_down)
        self._choose(mask.value())

    @property
    def scan(self) -> Any:
        """The layer of the scan, if one is chosen."""
        return self._scan.value()

    @property
    def label(self) -> int:
        """The label that is chosen in the viewer."""
        return int(self.chosen().selected_label)

    def chosen(self) -> Any:
        """The layer of the mask.

        Raises:
            UserError: There is none, or it is no mask of one volume.
        """
        if self.layer is None or self.layer not in self.viewer.layers:  # dims tell of one that goes before it is gone
            raise UserError("There is no mask to correct. Open one, apply a model, or press New.")
        if self.layer.ndim not in (2, 3):
            raise UserError(f"“{self.layer.name}” has {self.layer.ndim} dimensions: choose the mask of one volume.")
        return self.layer

    def part(self, *, whole: bool) -> Part:
        """The slice in view, or all of the mask.

        Raises:
            UserError: There is no mask, or no slice of it in view.
        """
        layer = self.chosen()
        array = np.asarray(layer.data)
        spacing = [float(step) for step in layer.scale]
        ml = float(np.prod(spacing)) / 1000
        shown = None if whole else shown_slice(layer, self.viewer.dims)
        if shown is None or shown.axis is None:
            return Part(layer, shown, array, tuple(spacing), ml)
        del spacing[shown.axis]
        return Part(layer, shown, np.take(array, shown.index, shown.axis), tuple(spacing), ml)

    def volume(self) -> Volume:
        """The scan; it is read once.

        Raises:
            UserError: There is none, or it lies on another grid than the mask.
        """
        mask, scan = self.chosen(), self.scan
        if scan is None:
            raise UserError("There is no scan open. Open the one that the mask belongs to.")
        if not _on_one_grid(mask, scan):
            raise UserError(
                f"“{mask.name}” does not lie on the voxels of “{scan.name}”. Choose the scan that it is of."
            )
        step = shown_step(scan, self.viewer.dims)
        if self._volume is None or self._volume[:2] != (scan, step):
            self._volume = scan, step, to_volume([scan], step)
        return self._volume[2]

    def image(self, part: Part) -> NDArray[Any]:
        """The scan (C, *S) under a part of the mask; all of it may still be on the disk, see `volume`."""
        volume = self.volume()
        if part.shown is None:
            return volume.array if part.layer.ndim == 3 else volume.array[:, 0]
        return cut(volume.array, part.shown)

    def put(self, part: Part, after: NDArray[Any], box: tuple[slice, ...] = ()) -> int:
        """Puts what has changed in a part, or in a box of it, into the mask, as one step that can be undone.

        Returns:
            How many voxels have changed.
        """
        indices, values = changed(part.labels[box], after)
        moved = [found + one.start for found, one in zip(indices, box, strict=False)] if box else indices
        if len(values):
            with self.step(part.layer):
                part.layer.data_setitem(part.at(tuple(moved)), values)
        return len(values)

    @contextmanager
    def step(self, layer: Any) -> Iterator[None]:
        """Makes one step of all that is put into a mask meanwhile; napari tells of it when it is there, not before."""
        if layer is self._stepping:
            yield
            return
        self._stepping = layer
        try:
            with layer.block_history():
                yield
        finally:
            self._stepping = None

    def _choose(self, layer: Any) -> None:
        if layer is self.layer:
            return
        self._listen(on=False)
        self.layer = layer
        self._listen(on=True)
        self.changed.emit()

    def _listen(self, *, on: bool) -> None:
        if self.layer is not None:
            for event, slot in (
                (self.layer.events.paint, self._painted),
                (self.layer.events.set_data, self._refreshed),
            ):
                (event.connect if on else event.disconnect)(slot)

    def _painted(self, event: Any) -> None:
        self.painted.emit(event.value)

    def _refreshed(self, _: Any) -> None:
        self.refreshed.emit()

    def _moved(self, _: Any) -> None:
        self.moved.emit()

    def _dims_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _close_down(self) -> None:
        self._listen(on=False)
        for event in self._dims_events():
            event.disconnect(self._moved)


def _on_one_grid(mask: Any, scan: Any) -> bool:
    """Whether a mask lies on the voxels of a scan, or of every time point of a series."""
    n = mask.ndim
    if min(scan.ndim, 3) != n or scan.data.shape[: scan.ndim][-n:] != mask.data.shape:
        return False
    apart = (scan.translate[-n:] - mask.translate) / mask.scale
    return bool(np.abs(apart).max() <= _SAME and np.allclose(scan.scale[-n:], mask.scale, rtol=_SAME))
