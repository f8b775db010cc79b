"""The dock that shows superpixels: live on the slice in view, and of the whole scan on demand."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QPushButton

from napari_medcl.data.superpixels import ROUNDS, SuperpixelSettings, cached_superpixels, superpixel_slice
from napari_medcl.data.volume import Labels
from napari_medcl.errors import Stopped, UserError
from napari_medcl.gui.docks import HELPER, Dock, LayerChoice, Progress
from napari_medcl.gui.editors import BoolEdit, tip
from napari_medcl.gui.form import Form
from napari_medcl.gui.layers import labels_layer, to_volume
from napari_medcl.gui.settings import settings
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import Shown, cut, over_slice, shown_slice, shown_step

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from numpy.typing import NDArray

    from napari_medcl.data.volume import Volume

_WAIT_MS = 150
"""The preview follows when the slider or a setting has rested so long."""


def slice_map(
    volume: Volume,
    shown: Shown,
    how: SuperpixelSettings,
    rounds: int = ROUNDS,
    *,
    stop: Callable[[], bool],
    progress: Callable[[float], None],
) -> NDArray[np.int32]:
    """Superpixels (A, B) of the slice that is shown, after so many rounds of SLIC.

    Raises:
        Stopped: The answer is not wanted any more.
    """
    del progress
    if stop():
        raise Stopped
    return superpixel_slice(np.ascontiguousarray(cut(volume.array, shown)), how, rounds)


def scan_map(
    volume: Volume, axis: int, how: SuperpixelSettings, *, stop: Callable[[], bool], progress: Callable[[float], None]
) -> NDArray[np.int32]:
    """Superpixels (Z, Y, X) of a scan; per slice along `axis`, the one that counts the slices on the screen."""
    axis = axis if how.per == "slice" else 0
    array = np.moveaxis(volume.array, axis + 1, 1)
    found = cached_superpixels(array, how, volume.spacing, progress=progress, stop=stop)
    return np.moveaxis(found.astype(np.int32), 0, axis)


class SuperpixelsDock(Dock):
    """Superpixels of an image layer."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        kept = settings()
        self._preview_layer: Any = None
        self._preview_task, self._scan_task = Task(self), Task(self)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(_WAIT_MS)

        # widgets
        self.scan = LayerChoice(self)
        self.scan.setToolTip("The image layer to divide")
        self.form = Form(SuperpixelSettings)
        self.form.setValue({"segments": kept.segments, "compactness": kept.compactness})
        self.preview = BoolEdit("Preview on the slice in view")
        self.preview.setValue(True)
        self.compute = QPushButton("Compute whole scan")
        self.compute.setToolTip(tip("Superpixels of the whole scan, as a labels layer that lies over it."))
        self.progress = Progress()

        # layout
        column = self.add_column()
        top = QFormLayout()
        top.addRow("Scan", self.scan)
        column.addLayout(top)
        for widget in (self.form, self.preview, self.compute, self.progress, self.message):
            column.addWidget(widget)
        column.addStretch()

        # connections
        for changed in (self.scan.valueChanged, self.form.valueChanged, self.preview.valueChanged):
            changed.connect(self._soon)
        self._wait.timeout.connect(self._start_preview)
        self._preview_task.done.connect(self._show_preview)
        self._preview_task.failed.connect(self.message.warn)
        self._scan_task.progressed.connect(self.progress.setValue)
        self._scan_task.done.connect(self._show_scan)
        self._scan_task.failed.connect(self.message.warn)
        self._scan_task.ended.connect(self._scan_ended)
        self.compute.clicked.connect(self._start_scan)
        self.progress.stopped.connect(self._scan_task.stop)
        self.closed.connect(self._close_down)
        for event in self._dims_events():
            event.connect(self._soon)
        self._soon()

    def _dims_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    def _soon(self, _: Any = None) -> None:
        self._wait.start()

    def _asked(self) -> tuple[Any, Volume, SuperpixelSettings]:
        """The layer, its scan and the settings."""
        layer = self.scan.value()
        if layer is None:
            raise UserError("There is no scan open. Open one with File ▸ Open, or the sample under File ▸ Open Sample.")
        how = self.form.value()
        assert isinstance(how, SuperpixelSettings)
        return layer, to_volume([layer], shown_step(layer, self.viewer.dims)), how

    def _start_preview(self) -> None:
        self._preview_task.stop()
        try:
            layer, volume, how = self._asked()
            shown = shown_slice(layer, self.viewer.dims)
        except UserError as error:
            self._no_preview(str(error))
            return
        if not self.preview.value():
            self._no_preview("")
        elif how.per == "volume" and not volume.planar:
            self._no_preview("Superpixels in 3D have no preview: press Compute whole scan.")
        else:
            self.message.say("")
            self._asked_for = layer, shown
            self._preview_task.start(slice_map, volume, shown, how)

    def _no_preview(self, why: str) -> None:
        self.message.say(why)
        self.drop_layer(self._preview_layer)
        self._preview_layer = None

    def _show_preview(self, found: NDArray[np.int32]) -> None:
        layer, shown = self._asked_for
        overlay = over_slice(layer, shown, found)
        self._preview_layer = self.show_overlay(self._preview_layer, overlay, "superpixels (preview)", contour=1)

    def _start_scan(self) -> None:
        try:
            layer, volume, how = self._asked()
        except UserError as error:
            self.message.warn(str(error))
            return
        axis = 0
        with suppress(UserError):  # in the 3D view no axis is that of the slices: z then
            axis = shown_slice(layer, self.viewer.dims).axis or 0
        self.message.say("")
        self._asked_of = layer, volume
        self.compute.setEnabled(False)
        self.progress.begin()
        self._scan_task.start(scan_map, volume, axis, how)

    def _show_scan(self, found: NDArray[np.int32]) -> None:
        layer, volume = self._asked_of
        mask = Labels(found, volume.spacing, volume.origin, volume.source)
        data, meta, _ = labels_layer(mask, f"{layer.name} superpixels")
        meta["metadata"]["medcl"][HELPER] = True
        result = self.viewer.add_labels(data, **meta)
        if self.viewer.dims.ndisplay == 2:  # napari warns of contours in 3D
            result.contour = 1

    def _scan_ended(self) -> None:
        self.compute.setEnabled(True)
        self.progress.hide()

    def _close_down(self) -> None:
        self._wait.stop()
        self._preview_task.stop()
        self._scan_task.stop()
        self.drop_layer(self._preview_layer)
        for event in self._dims_events():
            event.disconnect(self._soon)
