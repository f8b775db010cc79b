"""Edits that take no mouse, on the slice in view or the volume, looked at before they are made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_medcl.errors import Stopped, UserError
from napari_medcl.gui.differences import show_differences
from napari_medcl.gui.docks import Dock, Message, Progress
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.form import Form
from napari_medcl.gui.tasks import Task
from napari_medcl.inference.edits import EDITS, Interpolate, On

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_medcl.gui.work import Part, Work
    from napari_medcl.inference.edits import Edit


class EditsTab(QWidget):  # type: ignore[misc]
    """Chooses an edit, shows what it would change, and makes it as one step that can be undone.

    Attributes:
        edited: So many voxels have changed.
    """

    edited = Signal(int)

    def __init__(self, dock: Dock, work: Work) -> None:
        super().__init__()
        self._dock, self._work = dock, work
        self._look, self._make = Task(self), Task(self)
        self._asked: dict[Task, Part] = {}
        self._layer: Any = None

        # widgets
        self.kind = Choice((kind.title, name) for name, kind in EDITS.items())
        self.kind.setToolTip(tip("What to do; each is one step that can be undone with Ctrl+Z."))
        self.about = Message()
        self.forms = {name: Form(kind) for name, kind in EDITS.items()}
        self.where = Choice([("the slice in view", False), ("the volume", True)])
        self.where.setToolTip(tip("Slices are edited for themselves, in two dimensions."))
        self.labels = Choice([("the chosen label", False), ("all labels", True)])
        self.labels.setToolTip(tip("The label is the one that is chosen in the viewer's layer controls."))
        self.preview = QPushButton("Preview")
        self.preview.setToolTip(tip("Shows what would be added (green) and removed (red); the mask stays as it is."))
        self.apply = QPushButton("Apply")
        self.apply.setToolTip(tip("Makes the edit; Ctrl+Z takes it back."))
        self.progress = Progress()
        self.message = Message()

        # layout
        rows = QFormLayout()
        rows.addRow("Edit", self.kind)
        rows.addRow(self.about)
        for form in self.forms.values():
            rows.addRow(form)
        rows.addRow("On", self.where)
        rows.addRow("Labels", self.labels)
        buttons = QHBoxLayout()
        buttons.addWidget(self.preview)
        buttons.addWidget(self.apply)
        column = QVBoxLayout(self)
        column.addLayout(rows)
        column.addLayout(buttons)
        for widget in (self.progress, self.message):
            column.addWidget(widget)
        column.addStretch()

        # connections
        for changed in (self.kind.valueChanged, self.where.valueChanged, self.labels.valueChanged):
            changed.connect(self._exchanged)
        for form in self.forms.values():
            form.valueChanged.connect(self.clear)
        for signal in (work.changed, work.moved, work.refreshed):
            signal.connect(self.clear)
        self.preview.clicked.connect(lambda: self._start(self._look))
        self.apply.clicked.connect(lambda: self._start(self._make))
        self._look.done.connect(self._show)
        self._make.done.connect(self._put)
        for task in (self._look, self._make):
            task.failed.connect(self.message.warn)
            task.ended.connect(self.progress.hide)
            self.progress.stopped.connect(task.stop)
            dock.closed.connect(task.stop)
        dock.closed.connect(self.clear)
        self._exchanged()

    def run(self, name: str) -> None:
        """Makes an edit at once, with the settings that stand there."""
        self.kind.setValue(name)
        self._start(self._make)

    def clear(self, *_: Any) -> None:
        """Removes the preview: it is of something else by now."""
        self._look.stop()
        self._dock.drop_layer(self._layer)
        self._layer = None

    def _exchanged(self, _: Any = None) -> None:
        kind = EDITS[self.kind.value()]
        self.clear()
        self.message.say("")
        self.about.say((kind.__doc__ or "").splitlines()[0])
        for name, form in self.forms.items():
            form.setVisible(name == self.kind.value() and bool(kind.model_fields))
        self.where.setEnabled(not kind.whole)
        names_its_labels = {"one", "into"} & kind.model_fields.keys()
        self.labels.setEnabled(not names_its_labels)

    def _start(self, task: Task) -> None:
        self.clear()
        try:
            edit, part, on = self._asked_for()
        except UserError as error:
            self.message.warn(str(error))
            return
        self.message.say("")
        asked = self._asked[task] = replace(part, labels=part.labels.copy())
        self.progress.begin()
        task.start(edited, edit, asked.labels, on)

    def _asked_for(self) -> tuple[Edit, Part, On]:
        form = self.forms[self.kind.value()]
        edit: Any = form.value()
        whole = edit.whole or bool(self.where.value())
        part, axis = self._work.part(whole=whole), 0
        if isinstance(edit, Interpolate):
            axis = self._work.part(whole=False).shown.axis  # type: ignore[union-attr,assignment]
            if axis is None:
                raise UserError("A picture has no slices to interpolate between.")
        everything = not self.labels.isEnabled() or bool(self.labels.value())
        label = None if everything else self._work.label
        if label == 0:
            raise UserError("The background is chosen. Choose a label in the layer controls, or all labels.")
        return edit, part, On(part.spacing, part.voxel_ml, label, axis)

    def _show(self, after: NDArray[Any]) -> None:
        name = "what the edit changes"
        self._layer, told = show_differences(self._dock, self._layer, self._asked[self._look], after, name)
        self.message.say(f"Would be changed: {told}.")

    def _put(self, after: NDArray[Any]) -> None:
        asked = self._asked[self._make]
        if not np.array_equal(asked.now.labels, asked.labels):
            self.message.warn("The mask has changed meanwhile, and nothing was done. Press Apply again.")
            return
        count = self._work.put(asked, after)
        self.message.say(f"{count} voxels have changed." if count else "Nothing was to be changed.")
        self.edited.emit(count)


def edited(
    edit: Edit, labels: NDArray[Any], on: On, *, progress: Callable[[float], None], stop: Callable[[], bool]
) -> NDArray[Any]:
    """The edited part; called in a thread.

    Raises:
        UserError: The edit does not go with the labels.
        Stopped: `stop` said so.
    """
    del progress
    if stop():
        raise Stopped
    try:
        after = edit(labels, on)
    except ValueError as error:
        raise UserError(str(error)) from error
    if stop():
        raise Stopped
    return after
