"""The tab with the tools for the mouse: superpixel brush and growing to the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QButtonGroup, QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.gui.brush import SuperpixelBrush
from napari_medcl.gui.docks import Dock, Message
from napari_medcl.gui.editors import Choice, FloatEdit, tip
from napari_medcl.gui.form import Form
from napari_medcl.gui.grower import EdgeGrower
from napari_medcl.gui.settings import settings

if TYPE_CHECKING:
    from napari_medcl.gui.tool import Tool
    from napari_medcl.gui.work import Work

_HINT = "Drag to label, Ctrl + drag to erase, Shift + wheel for the size. Ctrl + Z takes a stroke back."


class MouseTools(QWidget):  # type: ignore[misc]
    """Puts one tool at a time into the hand; napari's own tools put it away."""

    def __init__(self, dock: Dock, work: Work) -> None:
        super().__init__()
        kept = settings()
        self.brush, self.grower = SuperpixelBrush(dock, work), EdgeGrower(dock, work)
        self.tools: dict[str, Tool] = {"superpixels": self.brush, "edge": self.grower}

        # widgets
        self.buttons = {"superpixels": QPushButton("Superpixel brush (S)"), "edge": QPushButton("Grow to the edge (G)")}
        self.buttons["superpixels"].setToolTip(
            tip(
                "Gives the superpixels that you click or drag over to the chosen label; their borders follow the image."
            )
        )
        self.buttons["edge"].setToolTip(
            tip("Click or scribble inside a structure: when you let go, the label grows to the edges round it.")
        )
        self.hint = QLabel(_HINT)
        self.hint.setWordWrap(True)
        self.per = Choice([("the slice in view", "slice"), ("the volume (3D)", "volume")])
        self.per.setToolTip(
            tip("A superpixel of the volume reaches into the slices beside; it takes longer to compute.")
        )
        self.form = Form(SuperpixelSettings, without={"per"})
        self.form.setValue({"segments": 4 * kept.segments, "compactness": kept.compactness})
        self.reach = FloatEdit(1, 500, unit="mm")
        self.reach.setValue(30.0)
        self.reach.setToolTip(tip("Growing looks no further than this from your scribble."))
        self.low, self.high = FloatEdit(optional=True), FloatEdit(optional=True)
        for edit, what in ((self.low, "Darker"), (self.high, "Brighter")):
            edit.setValue(None)
            edit.setToolTip(tip(f"{what} voxels are not painted, whatever the tool; not set is no limit."))
        self.message = Message()

        # layout
        rows = QFormLayout()
        rows.addRow("Work on", self.per)
        rows.addRow(self.form)
        rows.addRow("Reach", self.reach)
        rows.addRow("Paint from", self.low)
        rows.addRow("to", self.high)
        column = QVBoxLayout(self)
        for widget in (*self.buttons.values(), self.hint):
            column.addWidget(widget)
        column.addLayout(rows)
        column.addWidget(self.message)
        column.addStretch()

        # connections
        self._group = QButtonGroup(self)
        self._group.setExclusive(False)
        for name, button in self.buttons.items():
            button.setCheckable(True)
            button.toggled.connect(lambda on, name=name: self._toggled(name, on))
            self.tools[name].turned.connect(button.setChecked)
            self.tools[name].told.connect(self.message.say)
        for changed in (self.per.valueChanged, self.form.valueChanged):
            changed.connect(self._divide)
        self.brush.resized.connect(lambda count: self.form.setValue({"segments": count}))
        self.reach.valueChanged.connect(self.grower.set_reach)
        self.grower.resized.connect(self.reach.setValue)
        for changed in (self.low.valueChanged, self.high.valueChanged):
            changed.connect(self._limit)
        self._divide()

    def _toggled(self, name: str, on: bool) -> None:
        for other, tool in self.tools.items():
            if on and other != name:
                tool.turn(on=False)
        if on:
            self.message.say("")
        self.tools[name].safely(lambda: self.tools[name].turn(on=on))
        self.buttons[name].setChecked(self.tools[name].on)

    def _divide(self, *_: Any) -> None:
        how = self.form.value(per=self.per.value())
        assert isinstance(how, SuperpixelSettings)
        self.brush.set_how(how)
        self.grower.set_whole(how.per == "volume")

    def _limit(self, *_: Any) -> None:
        for tool in self.tools.values():
            tool.limits = self.low.value(), self.high.value()
