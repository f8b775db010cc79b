"""Widgets that edit one value each: `value()`, `setValue()`, `valueChanged`."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QLocale, QObject, Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QWidget,
)

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_SET = "not set"
_LARGEST = 2**31 - 1
_JUST = 1e-9
"""How far from a bound that is itself excluded."""


class IntEdit(QSpinBox):  # type: ignore[misc]
    """A whole number; one that may be None shows that as its lowest value."""

    def __init__(
        self, low: int | None = None, high: int | None = None, *, optional: bool = False, unit: str = ""
    ) -> None:
        super().__init__()
        self._optional = optional
        lowest = -_LARGEST if low is None else low
        self.setRange(lowest - 1 if optional else lowest, _LARGEST if high is None else high)
        _dress(self, optional=optional, unit=unit)

    def value(self) -> int | None:
        """The number, or None."""
        number = int(super().value())
        return None if self._optional and number == self.minimum() else number

    def setValue(self, value: int | None) -> None:  # noqa: N802
        """Shows the number, or None."""
        super().setValue(self.minimum() if value is None else value)


class FloatEdit(QDoubleSpinBox):  # type: ignore[misc]
    """A number, also as 1e-5; one that may be None shows that as its lowest value."""

    def __init__(
        self, low: float | None = None, high: float | None = None, *, optional: bool = False, unit: str = ""
    ) -> None:
        super().__init__()
        self._optional = optional
        lowest = -1e12 if low is None else low
        self.setDecimals(12)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.setRange(lowest - _JUST if optional else lowest, 1e12 if high is None else high)
        self.setLocale(QLocale.c())
        _dress(self, optional=optional, unit=unit)

    def value(self) -> float | None:
        """The number, or None."""
        number = float(super().value())
        return None if self._optional and number <= self.minimum() else number

    def setValue(self, value: float | None) -> None:  # noqa: N802
        """Shows the number, or None."""
        super().setValue(self.minimum() if value is None else value)

    def textFromValue(self, value: float) -> str:  # noqa: N802
        """As short as it goes."""
        return f"{value:.7g}"

    def valueFromText(self, text: str) -> float:  # noqa: N802
        """Reads 0.001 and 1e-3 alike."""
        return float(self._bare(text))

    def validate(self, text: str | None, place: int) -> tuple[QValidator.State, str, int]:
        """Lets a number be typed that is not complete yet."""
        text = text or ""
        try:
            inside = self.minimum() <= float(self._bare(text)) <= self.maximum()
        except ValueError:
            unfinished = set(self._bare(text)) <= set("0123456789.eE+-")
            state = QValidator.State.Intermediate if unfinished else QValidator.State.Invalid
            return state, text, place
        return QValidator.State.Acceptable if inside else QValidator.State.Intermediate, text, place

    def _bare(self, text: str) -> str:
        return text.removesuffix(self.suffix()).strip()


class BoolEdit(QCheckBox):  # type: ignore[misc]
    """Yes or no."""

    valueChanged = Signal(bool)  # noqa: N815

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.toggled.connect(self.valueChanged)

    def value(self) -> bool:
        """Whether it is ticked."""
        return bool(self.isChecked())

    def setValue(self, value: bool) -> None:  # noqa: N802
        """Ticks it or not."""
        self.setChecked(value)


class Choice(QComboBox):  # type: ignore[misc]
    """One of several values, each with its text."""

    valueChanged = Signal(object)  # noqa: N815

    def __init__(self, choices: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        _still(self)
        self.setChoices(choices)
        self.currentIndexChanged.connect(lambda _: self.valueChanged.emit(self.value()))

    def setChoices(self, choices: Iterable[tuple[str, Any]]) -> None:  # noqa: N802
        """Offers other values; the one chosen stays chosen if it is among them."""
        before = self.value()
        blocked = self.blockSignals(True)
        self.clear()
        for text, value in choices:
            self.addItem(text, value)
        self._select(before)
        self.blockSignals(blocked)
        if self.value() != before:
            self.valueChanged.emit(self.value())

    def value(self) -> Any:
        """The value chosen, None where there is nothing to choose."""
        return self.currentData()

    def setValue(self, value: Any) -> None:  # noqa: N802
        """Chooses a value; one that is not offered changes nothing."""
        self._select(value)

    def _select(self, value: Any) -> None:
        for index in range(self.count()):
            if self.itemData(index) == value:
                self.setCurrentIndex(index)
                return


class TextEdit(QLineEdit):  # type: ignore[misc]
    """A line of text; one that may be None is None when empty."""

    valueChanged = Signal(str)  # noqa: N815

    def __init__(self, *, optional: bool = False) -> None:
        super().__init__()
        self._optional = optional
        self.setPlaceholderText(NOT_SET if optional else "")
        self.textChanged.connect(self.valueChanged)

    def value(self) -> str | None:
        """The text, or None."""
        text = str(self.text()).strip()
        return None if self._optional and not text else text

    def setValue(self, value: str | None) -> None:  # noqa: N802
        """Shows the text."""
        self.setText(value or "")


class ListEdit(TextEdit):
    """Names or whole numbers with commas between, such as 64,64,64.

    Args:
        kind: What each is, str or int.
        optional: Whether an empty line is None.
        unit: Of the numbers.
    """

    def __init__(self, kind: type, *, optional: bool = False, unit: str = "") -> None:
        super().__init__(optional=optional)
        self._kind = kind
        if unit and optional:
            self.setPlaceholderText(f"{NOT_SET}, in {unit}")

    def value(self) -> tuple[Any, ...] | None:  # type: ignore[override]
        """The names or numbers, or None.

        Raises:
            UserError: The text is something else.
        """
        text = super().value()
        if text is None:
            return None
        parts = [part.strip() for part in text.split(",") if part.strip()]
        try:
            return tuple(self._kind(part) for part in parts)
        except ValueError:
            raise UserError(f"“{text}” are not whole numbers with commas between, such as 64,64,64.") from None

    def setValue(self, value: tuple[Any, ...] | None) -> None:  # type: ignore[override]  # noqa: N802
        """Shows the names or numbers."""
        super().setValue(None if value is None else ",".join(map(str, value)))


class PathEdit(QWidget):  # type: ignore[misc]
    """A file or folder, typed or looked for; one that may be None is None when empty."""

    valueChanged = Signal(str)  # noqa: N815

    def __init__(self, *, folder: bool = False, optional: bool = False, files: str = "") -> None:
        super().__init__()
        self._folder, self._files = folder, files
        self._line = TextEdit(optional=optional)
        self._button = QToolButton()
        self._button.setText("…")
        self._button.setToolTip("Look for the folder" if folder else "Look for the file")

        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        layout.addWidget(self._button)

        self._line.valueChanged.connect(self.valueChanged)
        self._button.clicked.connect(self._look)

    def value(self) -> Path | None:
        """The path, or None."""
        text = self._line.value()
        return Path(text).expanduser() if text else None

    def setValue(self, value: Path | str | None) -> None:  # noqa: N802
        """Shows the path."""
        self._line.setValue("" if value is None else str(value))

    def _look(self) -> None:
        start = str(self.value() or "")
        if self._folder:
            found = QFileDialog.getExistingDirectory(self, "Choose a folder", start)
        else:
            found, _ = QFileDialog.getOpenFileName(self, "Choose a file", start, self._files)
        if found:
            self.setValue(found)


def tip(text: str) -> str:
    """A tooltip that Qt breaks into lines."""
    return f"<qt>{escape(text)}</qt>"


def _dress(box: QSpinBox | QDoubleSpinBox, *, optional: bool, unit: str) -> None:
    if optional:
        box.setSpecialValueText(NOT_SET)
    if unit:
        box.setSuffix(f" {unit}")
    box.setAlignment(Qt.AlignmentFlag.AlignRight)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    _still(box)


def _still(widget: QWidget) -> None:
    """Turning the wheel over a long form scrolls it and changes nothing in it."""
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    widget.installEventFilter(_Still(widget))


class _Still(QObject):  # type: ignore[misc]
    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        if event is not None and event.type() == QEvent.Type.Wheel and not watched.hasFocus():  # type: ignore[union-attr]
            event.ignore()
            return True
        return False
