"""Which slices of a scan methods take for alike: by superpixels, and by position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import Colormap
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton

from napari_medcl.errors import UserError
from napari_medcl.gui.docks import Dock, Progress
from napari_medcl.gui.editors import FloatEdit, IntEdit, tip
from napari_medcl.gui.models import ModelChoice
from napari_medcl.gui.slicebar import GroupList, SliceBar, colour_of
from napari_medcl.gui.tab import PairsTab
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import near, over_scan
from napari_medcl.training.run import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Literal

    from numpy.typing import NDArray

    from napari_medcl.data.superpixels import SuperpixelSettings
    from napari_medcl.data.volume import Volume
    from napari_medcl.gui.subject import Asked, Subject
    from napari_medcl.gui.view import Shown
    from napari_medcl.inference.groups import Groups

_BATCH = {2: 16, 3: 4}
_MOST = 64


def find_groups(
    path: Path | None,
    scans: dict[int, Volume],
    dims: Literal[2, 3],
    shown: Shown,
    how: SuperpixelSettings,
    count: int,
    *,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> Groups:
    """Links slices by their superpixels.

    Args:
        path: The run folder or model file; None for a new network.
        scans: The scan, by its number of channels.
        dims: 2 for slices, 3 for crops.
        shown: The slice in view.
        how: Superpixels.
        count: Slices or crops.
        progress: Is told how far it is.
        stop: Says whether to give up.

    Raises:
        UserError: The model cannot be read or does not fit, or there is nothing to compare.
        Stopped: `stop` said so.
    """
    from napari_medcl.inference.pairs import new_network, slice_groups, trained_network

    axis, first = shown.axis or 0, next(iter(scans.values()))
    net, plan = new_network(first, dims, axis) if path is None else trained_network(find_checkpoint(path), dims, axis)
    return slice_groups(
        scans.get(plan.channels, first), net, plan, how, count, shown.index, progress=progress, stop=stop
    )


class SlicesTab(PairsTab):
    """Groups among the slices, the pooled map of the slice in view, and the slices near it."""

    wait_ms = 0

    def __init__(self, dock: Dock, subject: Subject) -> None:
        super().__init__(
            dock,
            subject,
            "SuperCL takes slices for alike whose superpixel maps are linked (groups); "
            "PCL, SuperCL-paper and JCL-paper those at near positions.",
        )
        self._task = Task(self)
        self._asked: Asked | None = None
        self._groups: Groups | None = None
        self._pooled_layer: Any = None

        # widgets
        self.model = ModelChoice("pretrain", none="a new network")
        self.model.setToolTip(
            tip("The network that sees the slices: a new one, as at the start of training, a run, or a model file.")
        )
        self._what = QLabel()
        self.count = IntEdit(2, _MOST)
        self.count.setToolTip(
            tip(
                "So many are compared, spread evenly over the scan, the one in view among them, as training compares "
                "the slices of a batch; there a batch also mixes scans. In 3D these are crops along z."
            )
        )
        self.threshold = FloatEdit(0.001, 1)
        self.threshold.setValue(0.1)
        self.threshold.setToolTip(tip("Slices nearer than this fraction of the volume are alike by position."))
        self.find = QPushButton("Find groups")
        self.progress = Progress()
        self.bar = SliceBar(dock.viewer.theme)
        self.bar.setToolTip(
            tip(
                "Groups: a colour for each, grey for slices alike to no other; above the first view of a slice, below "
                "the second. Likeness of the superpixel maps to the slice in view: the lighter, the more alike. "
                "Position: the slices near the one in view. Click to go to a slice."
            )
        )
        self.list = GroupList(dock.viewer.theme)

        # layout
        rows = QFormLayout()
        rows.addRow("Network", self.model)
        rows.addRow(self._what, self.count)
        rows.addRow("Threshold", self.threshold)
        self.column.addLayout(rows)
        for widget in (self.find, self.progress, self.bar, self.message, self.list):
            self.column.addWidget(widget)
        self.column.addStretch()

        # connections
        subject.valueChanged.connect(self._forget)
        subject.per.valueChanged.connect(self._take_batch)
        self.model.valueChanged.connect(self._forget)
        self.count.valueChanged.connect(self._forget)
        self.threshold.valueChanged.connect(self.soon)
        self.find.clicked.connect(self._start)
        self.bar.jumped.connect(self.jump)
        self.list.jumped.connect(self.jump)
        self.progress.stopped.connect(self._task.stop)
        self._task.progressed.connect(self.progress.setValue)
        self._task.done.connect(self._take)
        self._task.failed.connect(self.message.warn)
        self._task.ended.connect(self._ended)
        self._take_batch(subject.per.value())

    def jump(self, index: int) -> None:
        """Shows a slice."""
        if (asked := self.asked()) is not None and asked.shown.axis is not None:
            axis, layer, dims = asked.axis - 3, asked.layer, self.dock.viewer.dims
            dims.set_point(dims.ndim + axis, float(layer.translate[axis] + index * layer.scale[axis]))

    def show_what(self, asked: Asked) -> None:
        """The slices near the one in view; its groups where they have been found."""
        slices = asked.volume.shape[asked.axis]
        alike = near(slices, asked.shown.index, float(self.threshold.value() or 0))
        self.bar.show_position(asked.shown.index, alike)
        groups = self._groups if self._groups is not None and self._fits(asked) else None
        chosen = None if groups is None else groups.at(asked.shown.index)
        self.bar.show_groups(groups, chosen)
        self.list.show_groups(groups)
        if groups is None or chosen is None:
            self._drop_pooled()
        else:
            self._lay(asked, groups, chosen)
        if not self._task.running:
            self.message.say(told(asked.shown.index, alike, groups, chosen))

    def clear(self) -> None:
        """Removes what it shows; groups once found stay found."""
        self._task.stop()
        self._drop_pooled()
        self.message.say("")

    def _take_batch(self, per: str) -> None:
        """As many as a batch of training has by itself."""
        self._what.setText("Slices" if per == "slice" else "Crops")
        self.count.setValue(_BATCH[2 if per == "slice" else 3])

    def _forget(self, _: Any = None) -> None:
        """Something else is asked for than what has been found."""
        self._task.stop()
        self._groups = None
        self.soon()

    def _fits(self, asked: Asked) -> bool:
        assert self._asked is not None
        return asked.same_volume(self._asked) and asked.axis == self._asked.axis

    def _start(self) -> None:
        if (asked := self.asked()) is None:
            return
        try:
            scans = self.subject.scans(asked)
        except UserError as error:
            self.message.warn(str(error))
            return
        self._asked = asked
        self.message.say("")
        self.find.setEnabled(False)
        self.progress.begin()
        count = int(self.count.value() or 2)
        self._task.start(find_groups, self.model.value(), scans, asked.dims, asked.shown, asked.how, count)

    def _take(self, groups: Groups) -> None:
        self._groups = groups
        self.soon()

    def _ended(self) -> None:
        self.find.setEnabled(True)
        self.progress.hide()

    def _lay(self, asked: Asked, groups: Groups, chosen: int) -> None:
        """Lays the pooled map of a slice over it, in the colour of its group."""
        overlay = over_scan(asked.layer, groups.pooled[chosen], groups.first[chosen], groups.cell)
        group = int(groups.views[0, chosen])
        self._pooled_layer = self.dock.show_overlay(
            self._pooled_layer, overlay, "pooled superpixels (ASP)", image=True, opacity=0.7
        )
        colour = colour_of(groups, group)
        self._pooled_layer.colormap = Colormap(["#00000000", colour], name=f"group {colour}")
        self._pooled_layer.contrast_limits = limits(groups.pooled[chosen])

    def _drop_pooled(self) -> None:
        self.dock.drop_layer(self._pooled_layer)
        self._pooled_layer = None


def limits(pooled: NDArray[np.float32]) -> tuple[float, float]:
    """From the lowest to the highest value, which must differ."""
    low, high = float(pooled.min()), float(pooled.max())
    return low, max(high, low + 1e-6)


def told(index: int, alike: NDArray[np.bool_], groups: Groups | None, chosen: int | None) -> str:
    """What is alike to the slice in view, in words."""
    others = np.flatnonzero(alike)
    position = f"{others[0]} to {others[-1]}" if len(others) > 1 else "no other"
    text = f"Slice {index}: by position alike to {position}"
    if groups is None:
        return f"{text}. Press Find groups to see which are alike by superpixels."
    if chosen is None:
        return f"{text}; it is not among the {len(groups.slices)} whose superpixels were compared."
    near, linked = groups.nearest(chosen), groups.alike(chosen)
    most = f"most like {groups.slices[near]} (cosine {groups.likeness[chosen, near]:.3f})"
    if linked:
        return f"{text}; by superpixels to {', '.join(map(str, linked))}, {most}."
    return f"{text}; by superpixels to none but its own other view: {most}, but more like itself."
