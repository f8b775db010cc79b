"""Growing a click or a scribble to the edges round it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal

from napari_medcl.data.volume import voxels
from napari_medcl.errors import Stopped
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.tool import Tool
from napari_medcl.inference.scribble import grow_to_edge

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.tool import Voxel
    from napari_medcl.gui.work import Part, Work

_STEP = 1.25
"""A step of the wheel looks so many times as far."""


class EdgeGrower(Tool):
    """Grows a click or a scribble to the edges round it, when the mouse is let go.

    Attributes:
        resized: The wheel asks to look so many mm far.
    """

    resized = Signal(float)

    def __init__(self, dock: Dock, work: Work) -> None:
        super().__init__(dock, work)
        self._reach_mm, self._whole = 30.0, False
        self._task = Task(self)
        self._seeds: list[Voxel] = []
        self._drawn: tuple[Part, bool] | None = None
        self._asked: tuple[Part, bool] | None = None

        self._task.done.connect(self._take_region)
        self._task.failed.connect(self.told)
        self.turned.connect(self._turned)

    @property
    def settled(self) -> bool:
        """Whether nothing grows any more."""
        return not self._task.running

    def set_reach(self, reach_mm: float) -> None:
        """Looks so many mm far."""
        self._reach_mm = reach_mm

    def set_whole(self, whole: bool) -> None:
        """Grows in the slice in view, or in the volume."""
        self._whole = whole

    def part(self) -> Part:
        """The slice in view, or all of the mask."""
        return self.work.part(whole=self._whole)

    def stroke(self, part: Part, voxels: list[Voxel], *, erases: bool) -> None:
        """Remembers where the mouse was."""
        self._drawn = part, erases
        self._seeds += voxels

    def lift(self) -> None:
        """Lets it grow."""
        seeds, self._seeds = self._seeds, []
        if self._drawn is None or not seeds:
            return
        self._asked, part = self._drawn, self._drawn[0]
        image = self.work.image(part)[0]
        self.told.emit("Growing to the edge …")
        self._task.start(region_of, image, seeds, part.labels.copy(), self.work.label, part.spacing, self._reach_mm)

    def wheel(self, steps: float) -> None:
        """Looks further, or less far."""
        self.resized.emit(float(np.clip(self._reach_mm * _STEP**steps, 1, 500)))

    def _take_region(self, where: NDArray[np.bool_]) -> None:
        assert self._asked is not None
        part, erases = self._asked

        def paint() -> None:
            count = self.painted(part.now, where, (), erases=erases)
            self.told.emit(f"{count} voxels {'erased' if erases else 'labelled'}.")

        self.safely(paint)

    def _turned(self, on: bool) -> None:
        if not on:
            self._task.stop()
            self._seeds = []


def region_of(
    image: NDArray[Any],
    seeds: list[Voxel],
    labels: NDArray[Any],
    label: int,
    spacing: tuple[float, ...],
    reach_mm: float,
    *,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> NDArray[np.bool_]:
    """The region that grows from the seeds and stops at other labels; called in a thread.

    Raises:
        Stopped: `stop` said so.
    """
    del progress
    if stop():
        raise Stopped
    where = np.zeros(labels.shape, bool)
    where[tuple(np.transpose(seeds))] = True
    others = (labels != 0) & (labels != label)
    return grow_to_edge(voxels(image), where, spacing, background=others, reach_mm=reach_mm)
