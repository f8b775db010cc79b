"""What a run makes of a case while it learns, as a layer over the scan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_medcl.gui.closing import ClosingGuard
from napari_medcl.gui.docks import HELPER, Message, images_of
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.preview_look import MARK, STEP, Notes, Opened, hand_over, look_for, mark_of, marked
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.watch import Watch
from napari_medcl.training.preview import ask_preview, asked_preview
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.layers import LayerData
    from napari_medcl.gui.preview_look import Look
    from napari_medcl.training.preview import Stamp

_EVERY_MS = 500
_NONE = ("none", None)
_SOON = "It comes with the next step."
_NEVER = "None was made, and the run does not go on. It comes if you resume or extend the run."


class PreviewRow(QWidget):  # type: ignore[misc]
    """Chooses the case of a run that is shown while the run goes on, and keeps its layer up to date.

    What is chosen stands in the run folder: it holds when the viewer is closed, and other viewers see it.
    """

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._viewer = dock.viewer
        self._run: Run | None = None
        self._notes: Notes | None = None
        self._cases: dict[str, str] = {}
        self._question = 0
        self._seen: tuple[str, Stamp] | None = None
        self._layer: Any = None
        self._unwanted: list[dict[str, str]] = []
        self._wishes: list[Callable[..., Run]] = []
        self._asking = Task(self)

        # widgets
        self.case = Choice([_NONE])
        self.case.setToolTip(
            tip(
                "What the model makes of a case while it learns, as a layer over the scan: labels in fine-tuning; in "
                "pre-training the three principal components of the network's bottleneck as red, green and blue. It "
                "comes at once, with every evaluation or twentieth of the run, and as often as it takes no more than "
                "2 % of the time."
            )
        )
        self.message = Message()

        # layout
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Preview", self.case)
        rows.addRow(self.message)

        # connections
        self._watch = Watch(self, _EVERY_MS, self._look)
        self._watch.looked.connect(self._take)
        self._watch.failed.connect(self.message.warn)
        self._asking.done.connect(self._asked)
        self._asking.failed.connect(self.message.warn)
        self._asking.ended.connect(self._ask)
        self.case.valueChanged.connect(self._choose)
        self._viewer.layers.events.removed.connect(self._removed)
        dock.closed.connect(self._close_down)

    def follow(self, run: Run | None) -> None:
        """Shows what is asked of a run, and what it makes of that."""
        self._run, self._cases = run, {}
        self._notes = None if run is None else Notes(run)
        self.setEnabled(run is not None)
        self._offer(None)
        self._begin()

    def _begin(self) -> None:
        """Another question: answers to the one before do not count any more."""
        self._question += 1
        self._seen = self._layer = None
        self.message.say("")
        self._watch.now()

    def _look(self) -> Callable[..., Look] | None:
        if (notes := self._notes) is None or self._wishes or self._asking.running:
            return None
        marks = [mark for layer in self._viewer.layers if (mark := marked(layer)) is not None]
        shown = {mark["case"] for mark in marks if mark == mark_of(notes.run, mark["case"])}
        opened = [Opened.of(layer) for layer in images_of(self._viewer)]
        return partial(look_for, notes, self._cases, self._seen, shown, opened, self._question)

    def _choose(self, case: str | None) -> None:
        if self._run is not None:
            self._wish(partial(ask, self._run, case))

    def _wish(self, wish: Callable[..., Run]) -> None:
        """What is asked for is written in a thread, one after the other: a file share may be slow."""
        self._question += 1
        self._wishes.append(wish)
        self._ask()

    def _ask(self) -> None:
        if self._wishes and not self._asking.running:
            self._asking.start(self._wishes.pop(0))

    def _asked(self, run: Run) -> None:
        if not self._wishes:
            self._unwanted.clear()
        if run == self._run:
            self._begin()

    def _take(self, look: Look) -> None:
        if look.answers != self._question:
            return
        if look.cases != self._cases or look.asked != self.case.value():
            self._cases = look.cases
            self._offer(look.asked)
        if look.asked is not None and look.stamp is None and not look.trouble:
            self.message.say(_SOON if look.comes else _NEVER)
        if look.asked is not None and look.stamp is not None:
            self._seen = look.asked, look.stamp
        if look.layer is not None and look.layer[1]["metadata"]["medcl"][MARK] not in self._unwanted:
            self._show(look.layer, look.scan)
        if look.trouble:
            self.message.warn(look.trouble)

    def _offer(self, asked: str | None) -> None:
        """Lists the cases, and shows which one is asked for, by whomever."""
        names = [(f"{case} ({side})", case) for case, side in self._cases.items()]
        if asked is not None and asked not in self._cases:
            names.append((asked, asked))
        self.case.blockSignals(True)
        self.case.setChoices([_NONE, *names])
        self.case.setValue(asked)
        self.case.blockSignals(False)
        names_wide = self.case.view().sizeHintForColumn(0) + self.case.view().verticalScrollBar().sizeHint().width()
        self.case.view().setMinimumWidth(names_wide)

    def _show(self, data: LayerData, scan: Sequence[LayerData]) -> None:
        mark, told = data[1]["metadata"]["medcl"][MARK], ""
        layer = next((layer for layer in self._viewer.layers if marked(layer) == mark), None)
        if layer is not None:
            layer.data, layer.metadata["medcl"][STEP] = data[0], data[1]["metadata"]["medcl"][STEP]
        else:
            layer = self._add(data, scan)
            if self._layer in self._viewer.layers and marked(self._layer) is None:
                told = f" You painted on “{self._layer.name}”: it is a mask of yours now, and left as it is."
        self._layer = layer
        self.message.say(f"“{layer.name}” shows it after step {layer.metadata['medcl'][STEP]}.{told}")

    def _add(self, data: LayerData, scan: Sequence[LayerData]) -> Any:
        """Puts the preview on top; the layer that the user works on stays selected."""
        layers = self._viewer.layers
        active = layers.selection.active
        for one in scan:
            self._viewer.add_layer(Layer.create(*one))
        layer = Layer.create(*data)
        layer.metadata["medcl"][HELPER] = layer.unique_id
        self._viewer.add_layer(layer)
        if data[2] == "labels":
            for edited in (layer.events.paint, layer.events.labels_update):
                edited.connect(hand_over)
        if active is not None:
            layers.selection.active = active
        return layer

    def _removed(self, event: Any) -> None:
        """Who removes the layer wants no preview any more; but the viewer removes all of them when it closes."""
        if (mark := marked(event.value)) is not None:
            self._unwanted.append(mark)
            QTimer.singleShot(0, partial(self._withdraw, mark))

    def _withdraw(self, mark: dict[str, str]) -> None:
        guard = ClosingGuard.of(self) if isalive(self) else None
        if guard is not None and guard.parent().isVisible():
            self._wish(partial(withdraw, Run(Path(mark["run"])), mark["case"]))

    def _close_down(self) -> None:
        self._viewer.layers.events.removed.disconnect(self._removed)


def ask(run: Run, case: str | None, **_: Any) -> Run:
    """Asks a run for a case, or for none."""
    ask_preview(run, case)
    return run


def withdraw(run: Run, case: str, **_: Any) -> Run:
    """Asks for no preview any more where it is this case that is asked for."""
    if asked_preview(run) == case:
        ask_preview(run, None)
    return run
