"""Choosing the method of a run, with its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QVBoxLayout

from napari_medcl.gui.editors import Choice
from napari_medcl.gui.form import Form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from napari_medcl.methods.choices import Offer


class MethodEdit(QGroupBox):  # type: ignore[misc]
    """One of several methods: what it does, and a form of the settings that it leaves open.

    The value is the `method` of a configuration. A form is made when its method is first chosen.

    Args:
        offers: What there is to choose, by name.
    """

    valueChanged = Signal()  # noqa: N815

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        super().__init__("Method")
        self._offers = offers

        # widgets
        self.choice = Choice((offer.title, name) for name, offer in offers.items())
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.forms: dict[str, Form] = {}

        # layout
        self._column = QVBoxLayout(self)
        self._column.addWidget(self.choice)
        self._column.addWidget(self.about)

        # connections
        self.choice.valueChanged.connect(self._show)
        self._show(self.choice.value())

    def value(self) -> dict[str, Any] | None:
        """The settings of the method, not checked as a whole; None where none is chosen.

        Raises:
            UserError: A text cannot be read.
        """
        name = self.choice.value()
        return self._offers[name].settings(self.forms[name].values())

    def setValue(self, value: BaseModel | None) -> None:  # noqa: N802
        """Chooses the method whose settings these are, and shows them; the first one for None."""
        name = next(iter(self._offers)) if value is None else value.name  # type: ignore[attr-defined]
        self.choice.setValue(name)
        if value is not None:
            self.forms[name].setValue(value)

    def _show(self, chosen: str) -> None:
        self.about.setText(self._offers[chosen].about)
        if chosen not in self.forms:
            self.forms[chosen] = self._form(self._offers[chosen])
        for name, form in self.forms.items():
            form.setVisible(name == chosen and bool(form.editors))
        self.valueChanged.emit()

    def _form(self, offer: Offer) -> Form:
        form = Form(offer.model)
        form.valueChanged.connect(self.valueChanged)
        self._column.addWidget(form)
        return form
