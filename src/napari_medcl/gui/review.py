"""Where to look next: slices by how doubtful they are, and which of them a person has looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_medcl.correction.rank import next_slice, slice_scores
from napari_medcl.errors import Stopped, UserError
from napari_medcl.gui.docks import Dock, Message, is_helper
from napari_medcl.gui.doubtbar import DoubtBar
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_medcl.gui.keeping import Keeper
    from napari_medcl.gui.work import Work

_NONE = ("no map: the mask alone", None)
_WAIT_MS = 300
"""The bar follows when the mask has rested so long."""


class ReviewTab(QWidget):  # type: ignore[misc]
    """Ranks the slices of the mask by uncertainty and by how little they go with their neighbours."""

    def __init__(self, dock: Dock, work: Work, keeper: Keeper) -> None:
        super().__init__()
        self._work, self._keeper, self._viewer = work, keeper, dock.viewer
        self._task = Task(self)
        self._scores: NDArray[np.float64] | None = None
        self._axis = 0
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(_WAIT_MS)

        # widgets
        self.map = Choice([_NONE])
        self.map.setToolTip(
            tip("A map of uncertainty, as the dock Apply makes it: slices that the model is unsure of come first.")
        )
        self.bar = DoubtBar(dock.viewer.theme)
        self.bar.setToolTip(tip("A bar for every slice, green where you have looked; a click goes there."))
        self.next = QPushButton("Next slice (N)")
        self.next.setToolTip(tip("Goes to the most doubtful slice that you have not marked as reviewed."))
        self.reviewed = QPushButton("Reviewed (R)")
        self.reviewed.setCheckable(True)
        self.reviewed.setToolTip(tip("Marks the slice in view as looked at; kept with the mask. Training on uses it."))
        self.message = Message()

        # layout
        rows = QFormLayout()
        rows.addRow("Uncertainty", self.map)
        buttons = QHBoxLayout()
        buttons.addWidget(self.next)
        buttons.addWidget(self.reviewed)
        column = QVBoxLayout(self)
        column.addLayout(rows)
        column.addWidget(self.bar)
        column.addLayout(buttons)
        column.addWidget(self.message)
        column.addStretch()

        # connections
        self._wait.timeout.connect(self._start)
        for signal in (work.changed, keeper.altered, self.map.valueChanged):
            signal.connect(self._soon)
        work.moved.connect(self._moved)
        work.moved.connect(self._tick)
        keeper.recorded.connect(self._draw)
        self._task.done.connect(self._take)
        self._task.failed.connect(self.message.warn)
        self.bar.jumped.connect(self.go_to)
        self.next.clicked.connect(self.go_on)
        self.reviewed.clicked.connect(self.turn_reviewed)
        for event in self._layer_events():
            event.connect(self._offer)
        dock.viewer.events.theme.connect(self._follow_theme)
        dock.closed.connect(self._close_down)
        self._offer()
        self._soon()

    def go_on(self) -> None:
        """Goes to the slice that is to be looked at next."""
        shown = self._shown()
        if shown is None or self._scores is None or shown[0] != self._axis:
            return
        reviewed = self._keeper.record.reviewed_along(self._axis)
        if (index := next_slice(self._scores, reviewed, shown[1])) is None:
            self.message.say("All slices are reviewed.")
        else:
            self.go_to(index)

    def go_to(self, index: int) -> None:
        """Shows a slice of the mask."""
        layer, viewer = self._work.layer, self._viewer
        if layer is None:
            return
        place = np.zeros(layer.ndim)
        place[self._axis] = index
        axis = viewer.dims.ndim - layer.ndim + self._axis
        viewer.dims.set_point(axis, float(layer.data_to_world(place)[self._axis]))

    def turn_reviewed(self, _: bool = False) -> None:
        """Marks the slice in view as looked at; another time as not."""
        if (place := self._shown()) is not None:
            self._keeper.review(*place, done=place not in self._keeper.record.reviewed)
        self._tick()

    def _tick(self, _: Any = None) -> None:
        """The button tells of the slice in view."""
        self.reviewed.setChecked(self._shown() in self._keeper.record.reviewed)

    def _shown(self) -> tuple[int, int] | None:
        """Axis and index of the slice in view; None where none is, or the mask is a picture."""
        try:
            shown = self._work.part(whole=False).shown
        except UserError:
            return None
        return None if shown is None or shown.axis is None else (shown.axis, shown.index)

    def _soon(self, *_: Any) -> None:
        self._wait.start()

    def _moved(self) -> None:
        """Another slice of the same stack has the same scores."""
        shown = self._shown()
        if self._scores is None or shown is None or shown[0] != self._axis:
            self._soon()
        else:
            self._draw()

    def _start(self) -> None:
        try:
            part = self._work.part(whole=False)
            uncertainty = self._uncertainty(part.layer)
        except UserError as error:
            self._scores = None
            self.message.say(str(error))
            return
        if part.shown is None or part.shown.axis is None:
            self._scores = None
            self.message.say("A picture has no slices to rank.")
            return
        if part.shown.axis != self._axis:
            self._axis, self._scores = part.shown.axis, None
        self._task.start(scores_of, np.array(part.layer.data), self._axis, uncertainty)

    def _uncertainty(self, layer: Any) -> NDArray[Any] | None:
        chosen = self.map.value()
        if chosen is None:
            return None
        array = np.asarray(chosen.data)
        if array.shape != layer.data.shape:
            raise UserError(f"“{chosen.name}” is of another scan than “{layer.name}”. Choose another map, or none.")
        return array

    def _take(self, scores: NDArray[np.float64]) -> None:
        self._scores = scores
        self._draw()

    def _draw(self) -> None:
        self._tick()
        shown, scores = self._shown(), self._scores
        if shown is None or scores is None or shown[0] != self._axis:
            return
        index = shown[1]
        reviewed = self._keeper.record.reviewed_along(self._axis)
        self.bar.show_scores(scores, reviewed)
        self.bar.show_place(index)
        self.message.say(f"{len(reviewed)} of {len(scores)} slices reviewed. This is slice {index}.")

    def _offer(self, _: Any = None) -> None:
        maps = [layer for layer in self._viewer.layers if is_map(layer)]
        self.map.setChoices([_NONE, *((layer.name, layer) for layer in reversed(maps))])

    def _layer_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed

    def _follow_theme(self, _: Any = None) -> None:
        self.bar.setTheme(self._viewer.theme)

    def _close_down(self) -> None:
        self._wait.stop()
        self._task.stop()
        self._viewer.events.theme.disconnect(self._follow_theme)
        for event in self._layer_events():
            event.disconnect(self._offer)


def is_map(layer: Any) -> bool:
    """Whether a layer is a map of numbers from 0 to 1 that a dock has made."""
    return isinstance(layer, Image) and is_helper(layer) and layer.ndim == 3 and not layer.rgb


def scores_of(
    labels: NDArray[Any],
    axis: int,
    uncertainty: NDArray[Any] | None,
    *,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> NDArray[np.float64]:
    """How doubtful the slices are; called in a thread.

    Raises:
        Stopped: `stop` said so.
    """
    del progress
    if stop():
        raise Stopped
    return slice_scores(labels, axis, uncertainty)
