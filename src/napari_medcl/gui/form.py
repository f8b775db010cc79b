"""A form for any pydantic model, made from its fields: labels, tooltips, units and bounds come from there."""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QGroupBox, QToolButton, QVBoxLayout, QWidget

from napari_medcl.errors import UserError, explain
from napari_medcl.gui.editors import BoolEdit, Choice, FloatEdit, IntEdit, ListEdit, PathEdit, TextEdit, tip

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic.fields import FieldInfo

_JUST = 1e-9
_SAID = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


class Form(QWidget):  # type: ignore[misc]
    """Edits the fields of a model.

    A field with `json_schema_extra={"advanced": True}` is folded away; `{"unit": "mm"}` is shown behind
    its number. A field that can take one value only is not shown.

    Args:
        model: The model to edit.
        without: Fields that somebody else asks for.
        editors: Widgets for fields that need one of their own, with `value()`, `setValue()`, `valueChanged`.
    """

    valueChanged = Signal()  # noqa: N815

    def __init__(
        self, model: type[BaseModel], *, without: Collection[str] = (), editors: Mapping[str, QWidget] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.editors: dict[str, Any] = {}
        shown = {name: field for name, field in model.model_fields.items() if name not in without and not _fixed(field)}
        self._plain, self._advanced = QWidget(), QWidget()
        self._fold = _fold(self._advanced)
        rows = {False: _rows(self._plain), True: _rows(self._advanced)}

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self._plain, self._fold, self._advanced):
            layout.addWidget(widget)

        for name, field in shown.items():
            editor = (editors or {}).get(name) or editor_for(field)
            editor.setToolTip(_tooltip(field))
            editor.valueChanged.connect(lambda *_: self.valueChanged.emit())
            _add(rows[_extra(field, "advanced", False)], _label(name, field), editor)
            self.editors[name] = editor
            if not field.is_required():
                editor.setValue(field.get_default(call_default_factory=True))
        self._fold.setVisible(rows[True].rowCount() > 0)

    def values(self) -> dict[str, Any]:
        """What stands in the form, not checked as a whole.

        Raises:
            UserError: A text cannot be read.
        """
        values = {}
        for name, editor in self.editors.items():
            try:
                values[name] = editor.values() if isinstance(editor, Form) else editor.value()
            except UserError as error:
                raise UserError(f"{_label(name, self.model.model_fields[name])}: {error}") from None
        return values

    def value(self, **others: Any) -> BaseModel:
        """The model.

        Args:
            **others: Values of the fields that the form leaves out.

        Raises:
            UserError: The values do not make a model; says which and why.
        """
        try:
            return self.model.model_validate({**self.values(), **others})
        except ValidationError as error:
            raise UserError(explain(error, _place)) from None

    def setValue(self, value: BaseModel | Mapping[str, Any]) -> None:  # noqa: N802
        """Shows a model, or some of its fields."""
        given = {name: getattr(value, name) for name in self.editors} if isinstance(value, BaseModel) else value
        for name, editor in self.editors.items():
            if name in given:
                editor.setValue(given[name])


def editor_for(field: FieldInfo) -> QWidget:
    """The widget for a field.

    Raises:
        TypeError: No widget is known for the field's type.
    """
    kinds, optional = _kinds(field.annotation)
    kind, unit = kinds[0], _extra(field, "unit", "")
    if get_origin(kind) is Literal:
        return Choice([(str(value), value) for value in get_args(kind)])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return Form(kind)
    if get_origin(kind) is tuple and get_args(kind)[0] in (int, str):
        return ListEdit(get_args(kind)[0], optional=optional, unit=unit)
    low, high = _bounds(field)
    if kind is bool:
        return BoolEdit()
    if kind is int:
        return IntEdit(low, high, optional=optional, unit=unit)
    if kind is float:
        return FloatEdit(low, high, optional=optional, unit=unit)
    if kind is Path:
        return PathEdit(optional=optional)
    if kind is str:
        return TextEdit(optional=optional)
    raise TypeError(f"There is no editor for {field.annotation}.")


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """The types that a value can have, and whether it can be None."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [member for member in members if member is not type(None)], type(None) in members


def _fixed(field: FieldInfo) -> bool:
    """Whether the field can take one value only, as the name of a method does."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _bounds(field: FieldInfo) -> tuple[Any, Any]:
    """Smallest and largest number allowed, None without one."""
    whole = int in _kinds(field.annotation)[0]
    step = 1 if whole else _JUST
    low = high = None
    for rule in field.metadata:
        low = getattr(rule, "ge", low)
        high = getattr(rule, "le", high)
        if (above := getattr(rule, "gt", None)) is not None:
            low = above + step
        if (below := getattr(rule, "lt", None)) is not None:
            high = below - step
    return low, high


def _extra(field: FieldInfo, key: str, default: Any) -> Any:
    extra = field.json_schema_extra
    return extra.get(key, default) if isinstance(extra, dict) else default


def _place(names: tuple[str, ...]) -> str:
    """Where in the form a setting is."""
    return " ▸ ".join(map(_words, names))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _label(name: str, field: FieldInfo) -> str:
    return field.title or _words(name)


def _tooltip(field: FieldInfo) -> str:
    unit = _extra(field, "unit", "")
    return tip(" ".join(filter(None, (field.description, _range(field), f"In {unit}." if unit else ""))))


def _range(field: FieldInfo) -> str:
    """The bounds in words; nothing where there is none."""
    said = {name: getattr(rule, name) for rule in field.metadata for name in _SAID if hasattr(rule, name)}
    return f"Must be {' and '.join(f'{_SAID[name]} {value:g}' for name, value in said.items())}." if said else ""


def _rows(widget: QWidget) -> QFormLayout:
    rows = QFormLayout(widget)
    rows.setContentsMargins(0, 0, 0, 0)
    rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return rows


def _add(rows: QFormLayout, label: str, editor: QWidget) -> None:
    """A model inside the model gets a box of its own."""
    if isinstance(editor, Form):
        box = QGroupBox(label)
        QVBoxLayout(box).addWidget(editor)
        rows.addRow(box)
    elif isinstance(editor, QGroupBox):
        rows.addRow(editor)
    else:
        rows.addRow(label, editor)
        rows.labelForField(editor).setToolTip(editor.toolTip())


def _fold(folded: QWidget) -> QToolButton:
    """A button that shows and hides a widget."""
    button = QToolButton()
    button.setText("Advanced")
    button.setCheckable(True)
    button.setAutoRaise(True)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setArrowType(Qt.ArrowType.RightArrow)

    def turn(shown: bool) -> None:
        button.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        folded.setVisible(shown)

    button.toggled.connect(turn)
    folded.hide()
    return button
