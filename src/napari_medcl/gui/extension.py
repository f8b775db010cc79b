"""Asking how much further a run is to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_medcl.gui.editors import FloatEdit, IntEdit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medcl.training.overview import Brief


class ExtensionDialog(QDialog):  # type: ignore[misc]
    """Asks for steps or minutes, by what the runs are counted in.

    Args:
        briefs: The runs, which are all counted alike.
        parent: The window that it belongs to.
    """

    def __init__(self, briefs: Sequence[Brief], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Extend")
        first = briefs[0]

        # widgets
        about = QLabel("How much further? The learning rate becomes that of a run which was meant to be so long.")
        about.setWordWrap(True)
        self.steps = IntEdit(1) if first.steps is not None else None
        self.minutes = FloatEdit(0.1, unit="min") if first.minutes is not None else None
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.button(QDialogButtonBox.StandardButton.Ok).setText("Extend")

        # layout
        layout = QVBoxLayout(self)
        layout.addWidget(about)
        rows = QFormLayout()
        if self.steps is not None:
            self.steps.setValue(first.steps)
            rows.addRow("Steps more", self.steps)
        if self.minutes is not None:
            self.minutes.setValue(first.minutes)
            rows.addRow("Minutes more", self.minutes)
        layout.addLayout(rows)
        layout.addWidget(buttons)

        # connections
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)

    def value(self) -> tuple[int | None, float | None]:
        """Steps and minutes; None for what the runs are not counted in."""
        return self.steps and self.steps.value(), self.minutes and self.minutes.value()
