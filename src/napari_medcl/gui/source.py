"""Choosing what to train on: a data folder, or layers that are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_medcl.data.cases import find_cases
from napari_medcl.errors import UserError
from napari_medcl.gui.docks import Message, images_of, masks_of
from napari_medcl.gui.editors import Choice, PathEdit, tip
from napari_medcl.gui.inputs import Pair
from napari_medcl.gui.layers import same_scan, source_of, sources, to_labels, to_volume
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import shown_step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.data.cases import Cases
    from napari_medcl.gui.docks import Dock

FOLDER, LAYERS = "folder", "layers"
_WAIT_MS = 400
_LONGEST = 18
"""Letters of a layer's name that have room."""


class DataSource(QWidget):  # type: ignore[misc]
    """A data folder with what was found in it, or scans that are open in the viewer.

    Args:
        dock: The dock that it is part of.
        masks: Whether every scan is to have a mask.
    """

    valueChanged = Signal()  # noqa: N815

    def __init__(self, dock: Dock, *, masks: bool) -> None:
        super().__init__()
        self._task = Task(self)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(_WAIT_MS)

        # widgets
        self.kind = Choice([("a folder", FOLDER), ("open layers", LAYERS)])
        self.kind.setToolTip(tip("A folder with many scans, or what is open in the viewer."))
        self.folder = PathEdit(folder=True)
        self.folder.setToolTip(
            tip("imagesTr with labelsTr, images with labels or masks, or a folder that just holds scans.")
        )
        self.found = Message()
        self.layers = LayerTable(dock, masks=masks)
        self._in_folder = QWidget()

        # layout
        inside = QVBoxLayout(self._in_folder)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addWidget(self.folder)
        inside.addWidget(self.found)
        rows = QFormLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Train on", self.kind)
        rows.addRow(self._in_folder)
        rows.addRow(self.layers)

        # connections
        self.kind.valueChanged.connect(self._show_kind)
        self.kind.valueChanged.connect(lambda _: self.valueChanged.emit())
        self.layers.valueChanged.connect(self.valueChanged)
        self.folder.valueChanged.connect(lambda _: self._wait.start())
        self._wait.timeout.connect(self._look_into)
        self._task.done.connect(self.found.say)
        self._task.failed.connect(self.found.warn)
        self.kind.setValue(LAYERS if images_of(dock.viewer) else FOLDER)
        self._show_kind()

    def value(self) -> Path | list[Pair]:
        """The folder, or the scans that are ticked.

        Raises:
            UserError: Nothing is chosen, or a mask does not fit its scan.
        """
        if self.kind.value() == LAYERS:
            return self.layers.value()
        folder = self.folder.value()
        if folder is None:
            raise UserError("Choose the folder with the scans, or train on open layers.")
        return folder

    @property
    def drawn(self) -> bool:
        """Whether a mask that was drawn in the viewer is trained on, of which slices may be missing."""
        return bool(self.kind.value() == LAYERS and self.layers.drawn)

    def _show_kind(self, _: Any = None) -> None:
        self._in_folder.setVisible(self.kind.value() == FOLDER)
        self.layers.setVisible(self.kind.value() == LAYERS)

    def _look_into(self) -> None:
        folder = self.folder.value()
        if folder is None:
            self._task.stop()
            self.found.say("")
        else:
            self._task.start(look_into, folder)


class LayerTable(QWidget):  # type: ignore[misc]
    """The scans that are open, each to be ticked and given a mask."""

    valueChanged = Signal()  # noqa: N815

    def __init__(self, dock: Dock, *, masks: bool) -> None:
        super().__init__()
        self._dock, self._masks = dock, masks
        self._rows: list[tuple[list[Any], QCheckBox, Choice | None]] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._none = QLabel("No scan is open. Open one, or the sample under File ▸ Open Sample.")
        self._none.setWordWrap(True)
        self._grid.addWidget(self._none)
        for event in self._events():
            event.connect(self._refresh)
        dock.closed.connect(self._close_down)
        self._refresh()

    def value(self) -> list[Pair]:
        """The scans that are ticked.

        Raises:
            UserError: None is, or a mask does not fit its scan.
        """
        chosen = [(layers, mask) for layers, tick, mask in self._rows if tick.isChecked()]
        pairs = [self._pair(layers, mask.value() if mask else None) for layers, mask in chosen]
        if not pairs:
            raise UserError("No open scan is ticked. Open a scan and tick it, or train on a folder.")
        if self._masks and not any(pair.labels for pair in pairs):
            raise UserError("No scan has a mask. Choose the labels layer beside a scan, or draw one with New Labels.")
        return pairs

    @property
    def drawn(self) -> bool:
        """Whether a mask is chosen that came from no file."""
        masks = [mask.value() for _, tick, mask in self._rows if mask is not None and tick.isChecked()]
        return any(mask is not None and source_of(mask.metadata) is None for mask in masks)

    def _pair(self, layers: list[Any], mask: Any) -> Pair:
        volume = to_volume(layers, shown_step(layers[0], self._dock.viewer.dims))
        name = layers[0].name.removesuffix(" [0]")
        if mask is None:
            return Pair(name, volume)
        meta = {name: getattr(mask, name) for name in ("name", "scale", "translate", "units", "metadata")}
        return Pair(name, volume, to_labels(mask.data, meta, sources(layers)))

    def _events(self) -> tuple[Any, ...]:
        events = self._dock.viewer.layers.events
        return events.inserted, events.removed

    def _refresh(self, _: Any = None) -> None:
        """One row for every scan; what was ticked and chosen stays so."""
        before = {
            id(layers[0]): (tick.isChecked(), mask.value() if mask else None) for layers, tick, mask in self._rows
        }
        self._clear()
        seen: set[int] = set()
        images = images_of(self._dock.viewer)
        for layer in images:
            if id(layer) in seen:
                continue
            layers = same_scan(layer, images)
            seen.update(id(one) for one in layers)
            ticked, mask = before.get(id(layers[0]), (True, None))
            self._add(layers, ticked, mask or fitting_mask(layers[0], masks_of(self._dock.viewer)))
        self._none.setVisible(not self._rows)
        self.valueChanged.emit()

    def _add(self, layers: list[Any], ticked: bool, mask: Any) -> None:
        name = layers[0].name.removesuffix(" [0]")
        tick = QCheckBox(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")
        more = f" with its {len(layers)} channels" if len(layers) > 1 else ""
        tick.setToolTip(tip(f"Train on {name}{more}"))
        tick.setChecked(ticked)
        tick.toggled.connect(lambda _: self.valueChanged.emit())
        row = len(self._rows) + 1
        self._grid.addWidget(tick, row, 0)
        choice = None
        if self._masks:
            masks = [(layer.name, layer) for layer in reversed(masks_of(self._dock.viewer))]
            choice = Choice([("no mask", None), *masks])
            choice.setToolTip("The labels layer that is this scan's mask")
            choice.setValue(mask)
            choice.valueChanged.connect(lambda _: self.valueChanged.emit())
            self._grid.addWidget(choice, row, 1)
        self._rows.append((layers, tick, choice))

    def _clear(self) -> None:
        for _, tick, mask in self._rows:
            for widget in (tick, mask):
                if widget is not None:
                    self._grid.removeWidget(widget)
                    widget.hide()
                    widget.deleteLater()
        self._rows.clear()

    def _close_down(self) -> None:
        for event in self._events():
            event.disconnect(self._refresh)


def fitting_mask(image: Any, masks: list[Any]) -> Any:
    """The first labels layer that has the image's shape and lies where it lies."""
    shape = image.data.shape[: image.ndim][-3:]
    for mask in masks:
        dims = slice(-len(shape), None)
        same_place = all(
            abs(float(a) - float(b)) < 0.01 * float(s)
            for a, b, s in zip(mask.translate[dims], image.translate[dims], image.scale[dims], strict=True)
        )
        if mask.data.shape == shape and same_place:
            return mask
    return None


def look_into(folder: Path, *, stop: Callable[[], bool], progress: Callable[[float], None]) -> str:
    """What there is in a data folder, in words.

    Raises:
        UserError: There is no scan in it.
    """
    del stop, progress
    return describe(find_cases(folder))


def describe(cases: Cases) -> str:
    """How many scans and masks there are, and which classes."""
    scans = f"{len(cases)} scan" + ("" if len(cases) == 1 else "s")
    if not cases.labelled:
        return f"{scans}, none with a mask."
    names = ", ".join(name for value, name in sorted(cases.names.items()) if value)
    return f"{scans}, {len(cases.labelled)} with a mask. Classes: {names}."
