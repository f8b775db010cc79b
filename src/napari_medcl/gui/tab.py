"""What the tabs of the dock Pairs have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_medcl.errors import UserError
from napari_medcl.gui.docks import Message

if TYPE_CHECKING:
    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.subject import Asked, Subject


class PairsTab(QWidget):  # type: ignore[misc]
    """One kind of thing that a method compares. It follows the viewer only while it is in front.

    A subclass says what it shows in `show_what` and `clear`.

    Args:
        dock: The dock that it is part of.
        subject: What is looked at.
        about: What is alike here, and for which methods.
    """

    wait_ms: ClassVar[int] = 150
    """The tab follows when the slider or a setting has rested so long."""

    def __init__(self, dock: Dock, subject: Subject, about: str) -> None:
        super().__init__()
        self.dock, self.subject = dock, subject
        self.message = Message()
        self._front = False
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(self.wait_ms)
        self._wait.timeout.connect(self._follow)

        self.column = QVBoxLayout(self)
        head = QLabel(about)
        head.setWordWrap(True)
        self.column.addWidget(head)

    def come(self) -> None:
        """Has come to the front."""
        self._front = True
        self.soon()

    def leave(self) -> None:
        """Is no longer in front, or will be closed."""
        self._front = False
        self._wait.stop()
        self.clear()

    def soon(self, _: Any = None) -> None:
        """Shows what is to be seen now, when the user has come to rest."""
        if self._front:
            self._wait.start()

    @abstractmethod
    def show_what(self, asked: Asked) -> None:
        """Shows what is asked for.

        Raises:
            UserError: There is nothing to be shown, and why.
        """

    @abstractmethod
    def clear(self) -> None:
        """Stops what runs, and removes what it has laid over the scan."""

    def asked(self) -> Asked | None:
        """What is looked at; None where nothing can be, which the dock says."""
        try:
            asked = self.subject.value()
        except UserError as error:
            self.clear()
            self.dock.message.warn(str(error))
            return None
        self.dock.message.say("")
        return asked

    def _follow(self) -> None:
        if (asked := self.asked()) is None:
            return
        try:
            self.show_what(asked)
        except UserError as error:
            self.clear()
            self.message.warn(str(error))
