"""What the docks have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_medcl.gui.closing import ClosingGuard
from napari_medcl.gui.editors import Choice
from napari_medcl.gui.upright import keep_upright

if TYPE_CHECKING:
    import napari

    from napari_medcl.gui.view import Overlay

HELPER = "helper"
"""Mark, in the metadata, of layers that a dock added to show something: no scans and no masks.

True, or the `unique_id` of the layer: then a copy that the user makes of it is the user's.
"""


class Dock(QWidget):  # type: ignore[misc]
    """A dock that knows when it is closed for good.

    napari takes its parent from one that is closed, but not from one that is hidden.
    """

    closed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.message = Message()
        keep_upright(viewer)

        self.outer = QVBoxLayout(self)
        self.outer.setContentsMargins(0, 0, 0, 0)

    def add_column(self) -> QVBoxLayout:
        """A column for widgets that scrolls where the screen is small."""
        inside = QWidget()
        self.outer.addWidget(Scroll(inside))
        return QVBoxLayout(inside)

    def event(self, event: QEvent | None) -> bool:
        """Says when the dock has been closed, and ends it. The first one that is seen also guards the viewer's end."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed.emit()
            self.deleteLater()
        elif event is not None and event.type() == QEvent.Type.Show:
            ClosingGuard.of(self)
        return bool(super().event(event))

    def open_dock(self, name: str) -> Any:
        """Another dock of MedCL, in front of the others."""
        holder, dock = self.viewer.window.add_plugin_dock_widget("medcl", name, tabify=True)
        holder.show()
        holder.raise_()
        return dock

    def show_overlay(self, kept: Any, overlay: Overlay, name: str, *, image: bool = False, **how: Any) -> Any:
        """Puts a map into its layer if that is still there, else adds one; the user's layer stays selected."""
        place = {"scale": overlay.scale, "translate": overlay.translate}
        if kept is not None and kept in self.viewer.layers and kept.ndim == overlay.array.ndim:
            kept.data = overlay.array
            for name, numbers in place.items():
                if tuple(getattr(kept, name)) != numbers:  # each is a drawing of its own
                    setattr(kept, name, numbers)
            return kept
        self.drop_layer(kept)
        active = self.viewer.layers.selection.active
        contour = how.pop("contour", 0)
        add = self.viewer.add_image if image else self.viewer.add_labels
        axes = ("z", "y", "x")[-overlay.array.ndim :]
        meta = {"metadata": {"medcl": {HELPER: True}}, "units": ["mm"] * len(axes), "axis_labels": axes}
        layer = add(overlay.array, name=name, **place, **meta, **how)
        if contour:
            layer.contour = contour
        self.viewer.layers.selection.active = active
        return layer

    def drop_layer(self, kept: Any) -> None:
        """Removes a layer if it is still there."""
        if kept is not None and kept in self.viewer.layers:
            self.viewer.layers.remove(kept)


class Scroll(QScrollArea):  # type: ignore[misc]
    """Scrolls up and down only, and is always wide enough for what is inside."""

    def __init__(self, inside: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(inside)
        inside.installEventFilter(self)

    def sizeHint(self) -> QSize:  # noqa: N802
        """No wider than it must be: the room belongs to the scan."""
        return QSize(self.minimumWidth(), super().sizeHint().height())

    def eventFilter(self, watched: Any, event: QEvent | None) -> bool:  # noqa: N802
        """Follows the width of what is inside."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.setMinimumWidth(watched.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width())
        return bool(super().eventFilter(watched, event))


class Message(QLabel):  # type: ignore[misc]
    """What the user should know, in words; nothing takes no room."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.hide()

    def say(self, text: str) -> None:
        """Something that is as it should be."""
        self.setText(text)
        self.setVisible(bool(text))

    def warn(self, text: str) -> None:
        """Something that the user has to do something about."""
        self.say(f"⚠ {text}")


class Progress(QWidget):  # type: ignore[misc]
    """A bar and a button to stop; there only while something runs."""

    stopped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._bar = QProgressBar()
        self._bar.setRange(0, 1000)
        self._stop = QPushButton("Stop")

        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._bar)
        layout.addWidget(self._stop)
        self.hide()

        self._stop.clicked.connect(lambda: self.stopped.emit())

    def begin(self) -> None:
        """Shows an empty bar."""
        self.setValue(0)
        self.show()

    def setValue(self, fraction: float) -> None:  # noqa: N802
        """Shows how much is done, 0 to 1."""
        self._bar.setValue(round(1000 * fraction))


class LayerChoice(Choice):
    """One of the scans that are open; follows what is opened and closed."""

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self._viewer = dock.viewer
        for event in self._events():
            event.connect(self._changed)
        dock.closed.connect(self._close_down)
        self.refresh()

    def refresh(self) -> None:
        """Lists what is open now; where nothing was chosen, the layer that is selected in the viewer is."""
        chosen, layers = self.value(), images_of(self._viewer)
        self.setChoices((layer.name, layer) for layer in reversed(layers))
        if chosen is None and (active := self._viewer.layers.selection.active) in layers:
            self.setValue(active)

    def showPopup(self) -> None:  # noqa: N802
        """Names may have changed since."""
        self.refresh()
        super().showPopup()

    def _events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed

    def _close_down(self) -> None:
        for event in self._events():
            event.disconnect(self._changed)

    def _changed(self, _: Any = None) -> None:
        self.refresh()


class MaskChoice(LayerChoice):
    """One of the masks that are open, or none of them.

    Args:
        dock: The dock that it is part of.
        none: Text of the choice of no mask.
    """

    def __init__(self, dock: Dock, none: str) -> None:
        self._none = none
        super().__init__(dock)

    def refresh(self) -> None:
        """Lists what is open now."""
        masks = reversed(masks_of(self._viewer))
        self.setChoices([(self._none, None), *((layer.name, layer) for layer in masks)])


def images_of(viewer: napari.Viewer) -> list[Any]:
    """The image layers that are scans."""
    return [layer for layer in viewer.layers if isinstance(layer, Image) and not is_helper(layer)]


def masks_of(viewer: napari.Viewer) -> list[Any]:
    """The labels layers that are masks."""
    return [layer for layer in viewer.layers if isinstance(layer, Labels) and not is_helper(layer)]


def is_helper(layer: Any) -> bool:
    """Whether a layer was added by a dock only to show something."""
    return layer.metadata.get("medcl", {}).get(HELPER) in (True, layer.unique_id)
