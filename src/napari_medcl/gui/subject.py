"""Choosing what to look at: a scan, as slices or as a volume, and how superpixels are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.errors import UserError
from napari_medcl.gui.docks import LayerChoice, images_of
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.form import Form
from napari_medcl.gui.layers import same_scan, to_volume
from napari_medcl.gui.settings import settings
from napari_medcl.gui.view import Shown, over_scan, over_slice, shown_slice, shown_step

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_medcl.data.volume import Volume
    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.view import Overlay


@dataclass(frozen=True, eq=False)
class Asked:
    """What is looked at.

    Attributes:
        layer: Shows the scan.
        volume: The scan.
        shown: The slice on the screen.
        how: Superpixels; `per` says whether slices or the volume are looked at.
    """

    layer: Any
    volume: Volume
    shown: Shown
    how: SuperpixelSettings

    @property
    def dims(self) -> Literal[2, 3]:
        """2 for slices, 3 for the volume."""
        return 2 if self.how.per == "slice" else 3

    @property
    def axis(self) -> int:
        """Which of z, y, x counts the slices on the screen."""
        return self.shown.axis or 0

    def over(self, array: NDArray[Any], first: ArrayLike | None = None, cell: ArrayLike | None = None) -> Overlay:
        """A map of the slice on the screen, or of the volume, laid over it; see `over_scan`."""
        first = np.zeros(array.ndim) if first is None else first
        cell = np.ones(array.ndim) if cell is None else cell
        if self.dims == 2:
            return over_slice(self.layer, self.shown, array, first, cell)
        return over_scan(self.layer, array, first, cell)

    def same_volume(self, other: Asked) -> bool:
        """Whether scan and settings are those of another question; the slice on the screen may differ."""
        return (self.layer, self.shown.step, self.how) == (other.layer, other.shown.step, other.how)


class Subject(QWidget):  # type: ignore[misc]
    """The scan, 2D or 3D, and the superpixels' settings."""

    valueChanged = Signal()  # noqa: N815

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        kept, self._viewer = settings(), dock.viewer

        # widgets
        self.scan = LayerChoice(dock)
        self.scan.setToolTip("The image layer to look at")
        self.per = Choice([("slices (2D)", "slice"), ("the volume (3D)", "volume")])
        self.per.setToolTip(tip("Whether the method learns from the slices in view or from the volume."))
        self.form = Form(SuperpixelSettings, without={"per"})
        self.form.setValue({"segments": kept.segments, "compactness": kept.compactness})

        # layout
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Scan", self.scan)
        rows.addRow("Learn from", self.per)
        rows.addRow(self.form)

        # connections
        for changed in (self.scan.valueChanged, self.per.valueChanged, self.form.valueChanged):
            changed.connect(lambda *_: self.valueChanged.emit())

    def value(self) -> Asked:
        """What is looked at.

        Raises:
            UserError: No scan is open, or none of its slices is on the screen.
        """
        layer = self.scan.value()
        if layer is None:
            raise UserError("There is no scan open. Open one with File ▸ Open, or the sample under File ▸ Open Sample.")
        volume = to_volume([layer], shown_step(layer, self._viewer.dims))
        how = self.form.value(per="slice" if volume.planar else self.per.value())
        assert isinstance(how, SuperpixelSettings)
        return Asked(layer, volume, self._shown(layer, flat=how.per == "slice"), how)

    def scans(self, asked: Asked) -> dict[int, Volume]:
        """The scan by its number of channels: as it is, and with the other channels of its file."""
        whole = same_scan(asked.layer, images_of(self._viewer))
        return {scan.channels: scan for scan in (asked.volume, to_volume(whole, asked.shown.step))}

    def _shown(self, layer: Any, *, flat: bool) -> Shown:
        """In the 3D view there is no slice on the screen, but the sliders keep their places."""
        dims = self._viewer.dims
        if flat or dims.ndisplay == 2:
            return shown_slice(layer, dims)
        place = round(float(layer.world_to_data(dims.point)[-3]))
        return Shown(0, min(max(place, 0), layer.data.shape[layer.ndim - 3] - 1), shown_step(layer, dims))
