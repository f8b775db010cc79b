"""Looking again and again, away from the screen, while there is somebody to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_medcl.gui.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable


class Watch(QObject):  # type: ignore[misc]
    """Calls a function in a thread at intervals; one call at a time, and none while a widget is hidden.

    Hidden is also what is in a dock whose tab is not in front, but not what is scrolled away.

    Args:
        widget: The widget.
        every_ms: Time between two looks.
        look: Gives the function, which is called as by `Task`; None where there is nothing to look at.

    Attributes:
        looked: What the function gave back.
        failed: What went wrong, in words for the user.
    """

    looked = Signal(object)
    failed = Signal(str)

    def __init__(self, widget: QWidget, every_ms: int, look: Callable[[], Callable[..., Any] | None]) -> None:
        super().__init__(widget)
        self._widget, self._look = widget, look
        self._once_more = self._missed = False
        self._task = Task(self)
        self._timer = QTimer(self)
        self._timer.setInterval(every_ms)

        self._timer.timeout.connect(self._tick)
        self._task.done.connect(self.looked)
        self._task.failed.connect(self.failed)
        self._task.ended.connect(self._ended)
        widget.installEventFilter(self)

    def now(self) -> None:
        """Looks at once, or as soon as the look under way has ended."""
        self._once_more = self._task.running
        if not self._once_more:
            self._start()

    def eventFilter(self, watched: Any, event: QEvent | None) -> bool:  # noqa: N802
        """Begins and ends with what can be seen."""
        kind = None if event is None else event.type()
        if kind == QEvent.Type.Show:
            self._timer.start()
            self.now()
        elif kind == QEvent.Type.Hide:
            self._timer.stop()
        elif kind == QEvent.Type.Paint and self._missed:
            self.now()
        return False

    def _tick(self) -> None:
        if not self._task.running:
            self._start()

    def _ended(self) -> None:
        if self._once_more:
            self._once_more = False
            self._start()

    def _start(self) -> None:
        self._missed = not _seen(self._widget)
        if not self._missed and (look := self._look()) is not None:
            self._task.start(look)


def _seen(widget: QWidget) -> bool:
    """Whether a widget can be seen; Qt keeps a dock visible whose tab is not in front, off the screen."""
    dock: QWidget | None = widget
    while dock is not None and not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    return widget.isVisible() and (dock is None or not dock.visibleRegion().isEmpty())
