"""Training on from corrected masks: the case is stored, the model learns on, and what it proposes is looked at."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.apply import predict
from napari_medcl.gui.differences import show_differences
from napari_medcl.gui.docks import HELPER, Dock, Message, Progress, images_of
from napari_medcl.gui.editors import BoolEdit, FloatEdit, PathEdit, TextEdit, tip
from napari_medcl.gui.layers import labels_layer, same_scan, sources, to_labels, to_volume
from napari_medcl.gui.learning import add_corrected, case_name, start_improving, state_of
from napari_medcl.gui.models import ModelChoice
from napari_medcl.gui.settings import settings
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import shown_step
from napari_medcl.gui.watch import Watch
from napari_medcl.training.launch import new_folder
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.data.volume import Volume
    from napari_medcl.gui.keeping import Keeper
    from napari_medcl.gui.work import Work
    from napari_medcl.inference.prediction import Prediction

_EVERY_MS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class LearnTab(QWidget):  # type: ignore[misc]
    """Adds the mask to a training set, and lets the model of a run learn on from it.

    Attributes:
        started: A run has begun to learn on.
    """

    started = Signal(object)

    def __init__(self, dock: Dock, work: Work, keeper: Keeper) -> None:
        super().__init__()
        self._dock, self._work, self._keeper = dock, work, keeper
        self._add, self._begin, self._look = Task(self), Task(self), Task(self)
        self._run: Run | None = None
        self._asked: tuple[Any, Any] | None = None
        self._proposal: Any = None
        self._difference: Any = None

        # widgets
        self.model = ModelChoice("finetune")
        self.model.setToolTip(tip("The run whose model learns on; its own cases stay in the training set."))
        self.folder = PathEdit(folder=True)
        self.folder.setToolTip(tip("Where corrected cases are kept, with links to those that the model learned from."))
        self.name = TextEdit()
        self.name.setToolTip(tip("What the case is called; the same name again replaces its mask, with a backup."))
        self.everything = BoolEdit("All slices are right")
        self.everything.setToolTip(
            tip("Without it only the slices that are marked as reviewed teach; the others are stored as not annotated.")
        )
        self.add = QPushButton("Add to training set")
        self.minutes = FloatEdit(0.1, 10_000, unit="min")
        self.minutes.setValue(10.0)
        self.minutes.setToolTip(tip("How long the model learns on."))
        self.improve = QPushButton("Improve model")
        self.improve.setToolTip(tip("Learns on from the model, from its own cases and the corrected ones together."))
        self.progress = Progress()
        self.accept = QPushButton("Accept proposal")
        self.accept.setToolTip(tip("Takes the proposal into the mask, but for reviewed slices; one step to undo."))
        self.reject = QPushButton("Reject")
        self.message = Message()

        # layout
        rows = QFormLayout()
        rows.addRow("Model", self.model)
        rows.addRow("Training set", self.folder)
        rows.addRow("Case", self.name)
        rows.addRow(self.everything)
        rows.addRow(self.add)
        rows.addRow("Learn for", self.minutes)
        rows.addRow(self.improve)
        answers = QHBoxLayout()
        answers.addWidget(self.accept)
        answers.addWidget(self.reject)
        column = QVBoxLayout(self)
        column.addLayout(rows)
        column.addWidget(self.progress)
        column.addLayout(answers)
        column.addWidget(self.message)
        column.addStretch()

        # connections
        self.model.valueChanged.connect(self._suggest)
        work.changed.connect(self._suggest)
        self.add.clicked.connect(self._start_adding)
        self.improve.clicked.connect(self._start_improving)
        self._add.done.connect(lambda case: self.message.say(f"{case} is in the training set."))
        self._begin.done.connect(self._follow)
        self._look.done.connect(self._propose)
        self.accept.clicked.connect(self._accept)
        self.reject.clicked.connect(self._withdraw)
        for task in (self._add, self._begin, self._look):
            task.failed.connect(self.message.warn)
            task.ended.connect(self.progress.hide)
            task.progressed.connect(self.progress.setValue)
            self.progress.stopped.connect(task.stop)
            dock.closed.connect(task.stop)
        work.changed.connect(self._leave)
        dock.closed.connect(self._withdraw)
        self._watch = Watch(self, _EVERY_MS, self._question)
        self._watch.looked.connect(self._take)
        self._offer(on=False)
        self._suggest()

    def _suggest(self, _: Any = None) -> None:
        """A folder beside the runs, named after the data; and the scan's name."""
        model, scan = self.model.value(), self._work.scan
        if model is not None and self.folder.value() is None:
            with_data = Run(model)
            try:
                data = str(with_data.config["folder"]).rstrip("/").rsplit("/", 1)[-1]
            except (UserError, KeyError):
                return
            self.folder.setValue(settings().runs.parent / "training-sets" / data)
        if scan is not None:
            self.name.setValue(case_name(scan))

    def _chosen(self) -> tuple[Path, Run]:
        """The training set and the run.

        Raises:
            UserError: One is missing.
        """
        model, folder = self.model.value(), self.folder.value()
        if model is None or not model.is_dir():
            raise UserError("Choose a fine-tuning run: a model file does not know the cases that it learned from.")
        if folder is None:
            raise UserError("Choose a folder for the training set.")
        return folder, Run(model)

    def _start_adding(self) -> None:
        try:
            folder, run = self._chosen()
            layer, volume = self._work.chosen(), self._whole_scan()
            data, meta, _ = layer.as_layer_data_tuple()
            labels = to_labels(np.array(data), meta, sources(self._dock.viewer.layers))
            name = self._checked_name()
        except UserError as error:
            self.message.warn(str(error))
            return
        everything, record = self.everything.value() or layer.ndim == 2, self._keeper.record
        self.progress.begin()
        self._add.start(add_corrected, folder, run, name, volume, labels, record, everything=everything)

    def _checked_name(self) -> str:
        name = (self.name.value() or "").strip()
        if not _NAME.fullmatch(name):
            raise UserError(
                f"“{name}” cannot be the name of a case: use letters, digits, and -, _ or . behind the first."
            )
        return name

    def _whole_scan(self) -> Volume:
        """The scan with all channels of its file."""
        self._work.volume()  # refuses one that does not fit the mask
        scan, viewer = self._work.scan, self._dock.viewer
        return to_volume(same_scan(scan, images_of(viewer)), shown_step(scan, viewer.dims))

    def _start_improving(self) -> None:
        try:
            folder, run = self._chosen()
        except UserError as error:
            self.message.warn(str(error))
            return
        self.message.say("")
        self.progress.begin()
        target = new_folder(settings().runs, "finetune", f"{folder.name}-improved")
        self._begin.start(start_improving, folder, run, target, float(self.minutes.value() or 1))

    def _follow(self, run: Run) -> None:
        self._run = run
        self.message.say(f"{run.name} learns on; the dock Runs shows how. Its proposal comes when it has ended.")
        self.started.emit(run)
        self._watch.now()

    def _question(self) -> Callable[..., Any] | None:
        return None if self._run is None or self._look.running else partial(state_of, self._run)

    def _take(self, state: str) -> None:
        run = self._run
        if run is None or state not in ("finished", "stopped", "failed"):
            return
        self._run = None
        if run.checkpoint is None:
            self.message.warn(f"{run.name} ended without a model: {run.message}")
            return
        self.look_at(run.folder)

    def look_at(self, model: Path) -> None:
        """Lets a model make a proposal for the scan."""
        try:
            mask, scan = self._work.chosen(), self._work.scan
            scans = {one.channels: one for one in (self._work.volume(), self._whole_scan())}
        except UserError as error:
            self.message.warn(str(error))
            return
        self._asked = mask, scan
        self.message.say("The new model looks at the scan …")
        self.progress.begin()
        self._look.start(predict, model, scans, settings().device, probabilities=False, uncertainty=False)

    def _propose(self, found: Prediction) -> None:
        assert self._asked is not None
        mask, scan = self._asked
        if mask is not self._work.layer:
            return
        self._withdraw()
        data, meta, _ = labels_layer(found.labels, f"{scan.name} proposal")
        meta["metadata"]["medcl"][HELPER] = True
        self._proposal = self._dock.viewer.add_labels(data, **{**meta, "opacity": 0.4, "visible": False})
        part, name = self._work.part(whole=True), "what the proposal changes"
        self._difference, told = show_differences(self._dock, None, part, np.asarray(data), name)
        self._dock.viewer.layers.selection.active = mask
        self._offer(on=True)
        self.message.say(f"The new model would change: {told}. Slices that you reviewed stay as they are.")

    def _accept(self) -> None:
        part, proposal = self._work.part(whole=True), self._proposal
        if proposal in self._dock.viewer.layers:
            kept = self._keeper.record.reviewed_voxels(part.labels.shape)
            after = np.where(kept, part.labels, np.asarray(proposal.data)).astype(part.labels.dtype)
            count = self._work.put(part, after)
            self.message.say(f"The proposal is taken: {count} voxels have changed. Ctrl+Z takes them back.")
        self._withdraw()

    def _leave(self) -> None:
        """A proposal is for one mask."""
        if self._asked is not None and self._asked[0] is not self._work.layer:
            self._withdraw()

    def _withdraw(self, _: bool = False) -> None:
        for layer in (self._proposal, self._difference):
            self._dock.drop_layer(layer)
        self._proposal = self._difference = None
        self._offer(on=False)

    def _offer(self, *, on: bool) -> None:
        for button in (self.accept, self.reject):
            button.setEnabled(on)
