"""What the tools that correct a mask with the mouse have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal
from skimage.draw import line_nd

from napari_medcl.data.volume import voxels
from napari_medcl.errors import UserError
from napari_medcl.inference.correct import erase, paint, window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.work import Part, Work

    Voxel = tuple[int, ...]

ERASES, SIZES = "Control", "Shift"
"""Modifiers: with the first a tool erases, with the second the wheel sets its size."""


class Tool(QObject):  # type: ignore[misc]
    """Takes the mouse over the mask while it is on; napari's own tools put it away.

    Attributes:
        told: What the user should know.
        turned: It was put on or away.
        limits: Intensities between which it paints; None is no limit.
    """

    told = Signal(str)
    turned = Signal(bool)

    def __init__(self, dock: Dock, work: Work) -> None:
        super().__init__(dock)
        self.dock, self.work = dock, work
        self.limits: tuple[float | None, float | None] = (None, None)
        self._layer: Any = None

        work.changed.connect(self._exchanged)
        dock.closed.connect(lambda: self.turn(on=False))

    @property
    def on(self) -> bool:
        """Whether it has the mouse."""
        return self._layer is not None

    def turn(self, *, on: bool) -> None:
        """Takes the mouse, or gives it back."""
        if on == self.on:
            return
        if on:
            self._take()
        else:
            self._give_back()
        self.turned.emit(self.on)

    @abstractmethod
    def stroke(self, part: Part, voxels: list[Voxel], *, erases: bool) -> None:
        """The mouse was pressed, or moved on, over these voxels."""

    def lift(self) -> None:
        """The mouse was let go."""

    def hover(self, position: Sequence[float]) -> None:
        """The mouse moves over the mask."""

    def wheel(self, steps: float) -> None:
        """The wheel was turned for another size."""

    def part(self) -> Part:
        """The part of the mask that the tool works on."""
        return self.work.part(whole=False)

    def painted(self, part: Part, where: NDArray[np.bool_], box: tuple[slice, ...], *, erases: bool) -> int:
        """Paints or erases in a box of a part, inside the limits; how many voxels have changed.

        Raises:
            UserError: The limits or the label make no sense, or there is no scan for the limits.
        """
        labels, label = part.labels[box], self.work.label
        try:
            if erases:
                after = erase(labels, where, label or None)
            elif self.limits == (None, None):
                after = paint(labels, where, label)
            else:
                image = voxels(self.work.image(part)[0][box])
                after = paint(labels, where, label, window(image, *self.limits))
        except ValueError as error:
            raise UserError(str(error)) from error
        return self.work.put(part, after, box)

    def _take(self) -> None:
        self._layer = layer = self.work.chosen()
        self.work.viewer.layers.selection.active = layer
        layer.mode = "pan_zoom"
        layer.mouse_pan = False
        layer.mouse_drag_callbacks.append(self.dragged)
        layer.mouse_move_callbacks.append(self.moved)
        layer.mouse_wheel_callbacks.append(self.wheeled)
        layer.events.mode.connect(self._put_away)

    def _give_back(self) -> None:
        layer, self._layer = self._layer, None
        layer.mouse_drag_callbacks.remove(self.dragged)
        layer.mouse_move_callbacks.remove(self.moved)
        layer.mouse_wheel_callbacks.remove(self.wheeled)
        layer.events.mode.disconnect(self._put_away)
        layer.mouse_pan = str(layer.mode) == "pan_zoom"

    def _put_away(self, _: Any) -> None:
        self.turn(on=False)

    def _exchanged(self) -> None:
        """Goes with the user to another mask."""
        if self.on and self.work.layer is not self._layer:
            self.turn(on=False)

    def dragged(self, _: Any, event: Any) -> Iterator[None]:
        """What napari calls when the mouse is pressed: a drag is one step that can be undone."""
        if event.button != 1 or self.work.viewer.dims.ndisplay == 3:
            return
        erases, last = ERASES in event.modifiers, None
        with self.work.step(self._layer):
            while True:
                last = self._stroke(event.position, last, erases=erases)
                yield
                if event.type != "mouse_move":
                    break
        self.safely(self.lift)

    def moved(self, _: Any, event: Any) -> None:
        """What napari calls when the mouse moves."""
        self.safely(lambda: self.hover(event.position))

    def wheeled(self, _: Any, event: Any) -> None:
        """What napari calls when the wheel is turned."""
        if SIZES in event.modifiers:
            self.wheel(float(np.clip(np.sum(event.delta), -1, 1)))

    def _stroke(self, position: Sequence[float], last: Voxel | None, *, erases: bool) -> Voxel | None:
        """Touches what lies between two places of the mouse."""
        found: list[Voxel | None] = [last]

        def touch() -> None:
            part = self.part()
            found[0] = voxel = part.voxel(position)
            if voxel is not None:
                between = zip(*(axis.tolist() for axis in line_nd(last or voxel, voxel, endpoint=True)), strict=True)
                self.stroke(part, [*between], erases=erases)

        self.safely(touch)
        return found[0]

    def safely(self, act: Callable[[], None]) -> None:
        """Does something, and tells what is wrong."""
        try:
            act()
        except UserError as error:
            self.told.emit(str(error))
