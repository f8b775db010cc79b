"""The dock that corrects a mask: with the mouse, with edits, slice by slice, and nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QTabWidget

from napari_medcl.gui.account import Account
from napari_medcl.gui.docks import Dock, LayerChoice, MaskChoice
from napari_medcl.gui.editors import tip
from napari_medcl.gui.edits import EditsTab
from napari_medcl.gui.keeping import Keeper
from napari_medcl.gui.learn import LearnTab
from napari_medcl.gui.mouse_tools import MouseTools
from napari_medcl.gui.recover import RecoverRow
from napari_medcl.gui.review import ReviewTab
from napari_medcl.gui.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_medcl.correction.journal import Recovered


class CorrectDock(Dock):
    """Corrects any labels layer over the scan that it lies on."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)

        # widgets
        self.mask = MaskChoice(self, "none")
        self.mask.setToolTip("The labels layer to correct")
        self.new = QPushButton("New")
        self.new.setToolTip(tip("An empty mask on the voxels of the scan."))
        self.scan = LayerChoice(self)
        self.scan.setToolTip("The image layer that the mask is of")
        self.work = Work(self, self.mask, self.scan)
        self.work.changed.connect(self._forget)  # before anything is said of the new mask
        self.keeper = Keeper(self, self.work)
        self.tools = MouseTools(self, self.work)
        self.edits = EditsTab(self, self.work)
        self.review = ReviewTab(self, self.work, self.keeper)
        self.learn = LearnTab(self, self.work, self.keeper)
        self.tabs = QTabWidget()
        for tab, name in ((self.tools, "Mouse"), (self.edits, "Edits"), (self.review, "Next"), (self.learn, "Learn")):
            self.tabs.addTab(tab, name)
        self.account = Account(self.work, self.keeper)
        self.recover = RecoverRow(self)

        # layout
        column = self.add_column()
        rows = QFormLayout()
        masks = QHBoxLayout()
        masks.addWidget(self.mask)
        masks.addWidget(self.new)
        rows.addRow("Mask", masks)
        rows.addRow("Scan", self.scan)
        column.addWidget(self.recover)
        column.addLayout(rows)
        column.addWidget(self.account)
        column.addWidget(self.message)
        column.addWidget(self.tabs)
        column.addStretch()

        # connections
        self.work.changed.connect(self._bind)
        self.new.clicked.connect(self.add_mask)
        self.recover.recovered.connect(self._take_up)
        self.closed.connect(self._release)
        self._bound: Any = None
        self._choose_first()
        self._bind()

    def _forget(self) -> None:
        """What was said was about another mask."""
        for part in (self, self.account, self.tools, self.edits, self.learn):
            part.message.say("")

    def _choose_first(self) -> None:
        """The mask that is selected in the viewer, else the topmost one."""
        layers = [self.mask.itemData(index) for index in range(1, self.mask.count())]
        active = self.viewer.layers.selection.active
        if layers and self.mask.value() is None:
            self.mask.setValue(active if active in layers else layers[0])

    def add_mask(self) -> None:
        """An empty mask on the voxels of the scan, chosen."""
        scan = self.scan.value()
        if scan is None:
            self.message.warn("There is no scan open. Open one with File ▸ Open, then press New.")
            return
        layer = empty_mask(scan)
        self.viewer.add_layer(layer)
        self.mask.refresh()
        self.mask.setValue(layer)

    def _take_up(self, layer: Labels, left: Recovered) -> None:
        """Corrects a mask that was left behind, in the journal that it has."""
        self.mask.setValue(layer)
        self.keeper.resume(left.path, left.changes)

    def keys(self) -> dict[str, Callable[[], None]]:
        """What a key does while the mask is selected in the viewer."""
        return {
            "S": self.tools.buttons["superpixels"].toggle,
            "G": self.tools.buttons["edge"].toggle,
            "N": self.review.go_on,
            "R": self.review.turn_reviewed,
            "I": lambda: self.edits.run("interpolate"),
        }

    def _bind(self) -> None:
        """The keys go with the mask."""
        if self.work.layer is self._bound:
            return
        self._release()
        self._bound = self.work.layer
        for key, act in self.keys().items() if self._bound is not None else ():
            self._bound.bind_key(key, lambda _, act=act: act(), overwrite=True)

    def _release(self) -> None:
        if self._bound is not None:
            for key in self.keys():
                self._bound.bind_key(key, None, overwrite=True)
        self._bound = None


def empty_mask(scan: Any) -> Labels:
    """A labels layer without labels on the voxels of an image layer."""
    shape = scan.data.shape[: scan.ndim][-3:]
    kept = {name: value for name, value in scan.metadata.get("medcl", {}).items() if name == "source"}
    return Labels(
        np.zeros(shape, np.uint8),
        name=f"{scan.name} mask",
        scale=scan.scale[-len(shape) :],
        translate=scan.translate[-len(shape) :],
        units=scan.units[-len(shape) :],
        axis_labels=scan.axis_labels[-len(shape) :],
        metadata={"medcl": kept},
    )
