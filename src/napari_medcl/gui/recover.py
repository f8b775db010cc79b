"""Offers the edits that a viewer left behind when it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QMessageBox, QPushButton, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.docks import Message, images_of
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.keeping import give_up, layer_of, left_behind
from napari_medcl.gui.layers import source_of
from napari_medcl.gui.reader import layers_of

if TYPE_CHECKING:
    from napari_medcl.correction.journal import Recovered
    from napari_medcl.gui.docks import Dock


class RecoverRow(QWidget):  # type: ignore[misc]
    """Masks with edits that were never saved; there only where there are some.

    Attributes:
        recovered: The layer of a mask as it was left, and what was left; its journal is to be gone on with.
    """

    recovered = Signal(object, object)

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._dock = dock

        # widgets
        self.message = Message()
        self.found = Choice()
        self.found.setToolTip(tip("Masks with edits that no file has: their viewer ended before they were saved."))
        self.take = QPushButton("Recover")
        self.take.setToolTip(tip("Opens the mask with all edits, over its scan."))
        self.drop = QPushButton("Discard…")
        self.drop.setToolTip(tip("Deletes these edits for good; the mask's file stays as it is."))

        # layout
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        buttons = QHBoxLayout()
        buttons.addWidget(self.take)
        buttons.addWidget(self.drop)
        rows.addRow(self.message)
        rows.addRow("Not saved", self.found)
        rows.addRow(buttons)

        # connections
        self.take.clicked.connect(self._take)
        self.drop.clicked.connect(self._ask)
        self.refresh()

    def refresh(self) -> None:
        """Looks for what was left behind."""
        found = left_behind()
        self.found.setChoices((in_words(one), one) for one in found)
        self.setVisible(bool(found))
        if found:
            self.message.warn("There are edits that were never saved.")

    def _take(self) -> None:
        chosen: Recovered = self.found.value()
        try:
            self._open_scan(chosen)
            layer = Layer.create(*layer_of(chosen))
        except UserError as error:
            self.message.warn(str(error))
            return
        self._dock.viewer.add_layer(layer)
        self.recovered.emit(layer, chosen)
        self.refresh()

    def _open_scan(self, chosen: Recovered) -> None:
        """Opens the scan of the mask if it is not open and still there."""
        path = chosen.about.get("scan")
        sources = [source_of(layer.metadata) for layer in images_of(self._dock.viewer)]
        is_open = any(source is not None and str(source.path) == path for source in sources)
        if path is not None and Path(path).exists() and not is_open:
            for data in layers_of(path):
                self._dock.viewer.add_layer(Layer.create(*data))

    def _ask(self) -> None:
        chosen: Recovered = self.found.value()
        answer = QMessageBox.question(
            self, "Discard edits", f"Delete the edits of {in_words(chosen)} for good? The mask's file stays as it is."
        )
        if answer == QMessageBox.StandardButton.Yes:
            give_up(chosen)
            self.refresh()


def in_words(found: Recovered) -> str:
    """What was left behind."""
    about: dict[str, Any] = found.about
    name = about["layer"]["name"]
    return f"{name}, {found.changes} edit{'s' * (found.changes != 1)}"
