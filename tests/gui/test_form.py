from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.errors import UserError
from napari_medcl.gui.editors import NOT_SET, Choice, FloatEdit, IntEdit
from napari_medcl.gui.form import Form


class Inner(BaseModel):
    kind: Literal["inner"] = "inner"
    weight: float = Field(0.5, ge=0, description="How much it counts.")


class Everything(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    count: int = Field(3, ge=1, le=9, description="How many.")
    rate: float = Field(0.001, gt=0, title="Learning rate")
    length: float = Field(2.0, json_schema_extra={"unit": "mm"})
    most: int | None = Field(None, ge=0)
    minutes: float | None = Field(None, gt=0)
    flag: bool = True
    text: str = "some"
    pattern: str | None = None
    where: Path | None = None
    way: Literal["auto", "2d", "3d"] = "auto"
    patch: tuple[int, ...] | None = Field(None, json_schema_extra={"advanced": True})
    sides: tuple[int, ...] = Field((5, 7), json_schema_extra={"unit": "voxels"})
    maps: tuple[str, ...] | None = None
    inner: Inner = Field(default_factory=Inner)


@pytest.fixture
def form(qtbot) -> Form:  # type: ignore[no-untyped-def]
    form = Form(Everything, without={"folder"})
    qtbot.addWidget(form)
    return form


def test_untouched_form_gives_the_defaults(form: Form) -> None:
    assert form.value(folder=Path("/data")) == Everything(folder=Path("/data"))


def test_what_is_set_comes_back(form: Form) -> None:
    wanted = Everything(
        folder=Path("/data"),
        count=7,
        rate=3e-5,
        length=0.25,
        most=0,
        minutes=1.5,
        flag=False,
        text="other",
        pattern=r"(p\d+)",
        where=Path("/some/file"),
        way="3d",
        patch=(64, 48, 32),
        sides=(3,),
        maps=("bottleneck", "dec1"),
        inner=Inner(weight=0.125),
    )
    form.setValue(wanted)
    assert form.value(folder=Path("/data")) == wanted
    form.setValue(Everything(folder=Path("/data")))
    assert form.value(folder=Path("/data")) == Everything(folder=Path("/data"))


def test_labels_tooltips_units_and_bounds_come_from_the_fields(form: Form) -> None:
    rows = form._plain.layout()
    assert rows.labelForField(form.editors["rate"]).text() == "Learning rate"
    assert "How many. Must be at least 1 and at most 9." in form.editors["count"].toolTip()
    assert "Must be above 0." in form.editors["rate"].toolTip()
    assert form.editors["length"].suffix() == " mm"
    assert "In voxels." in form.editors["sides"].toolTip()
    assert (form.editors["count"].minimum(), form.editors["count"].maximum()) == (1, 9)
    assert form.editors["minutes"].text() == NOT_SET


def test_advanced_fields_are_folded_away(form: Form, qtbot) -> None:  # type: ignore[no-untyped-def]
    form.show()
    assert not form.editors["patch"].isVisible()
    form._fold.click()
    assert form.editors["patch"].isVisible()


def test_form_without_advanced_fields_has_nothing_to_unfold(qtbot) -> None:  # type: ignore[no-untyped-def]
    form = Form(SuperpixelSettings)
    qtbot.addWidget(form)
    form.show()
    assert not form._fold.isVisible()


def test_a_change_is_told(form: Form, qtbot) -> None:  # type: ignore[no-untyped-def]
    for change in (
        lambda: form.editors["count"].setValue(4),
        lambda: form.editors["inner"].editors["weight"].setValue(2),
        lambda: form.editors["patch"].setText("1,2"),
    ):
        with qtbot.waitSignal(form.valueChanged):
            change()


def test_text_that_is_no_list_of_numbers_is_explained(form: Form) -> None:
    form.editors["patch"].setText("64 x 64")
    with pytest.raises(UserError, match=r"Patch: “64 x 64”.*such as 64,64,64"):
        form.value(folder=Path())


def test_what_the_model_refuses_is_explained(form: Form) -> None:
    with pytest.raises(UserError, match=r"^Folder: Field required\.$"):
        form.value()


def test_number_is_typed_as_people_write_it(qtbot) -> None:  # type: ignore[no-untyped-def]
    edit = FloatEdit(1e-9, optional=True, unit="mm")
    qtbot.addWidget(edit)
    for typed, value in (("1e-3", 0.001), ("0.25 mm", 0.25), ("5", 5.0)):
        edit.clear()
        qtbot.keyClicks(edit, typed)
        qtbot.keyClick(edit, Qt.Key.Key_Enter)
        assert edit.value() == value
    edit.setValue(None)
    assert edit.value() is None


def test_letters_cannot_be_typed_into_a_number(qtbot) -> None:  # type: ignore[no-untyped-def]
    edit = FloatEdit()
    qtbot.addWidget(edit)
    edit.setValue(2)
    qtbot.keyClicks(edit, "xyz")
    assert edit.value() == 2


def test_wheel_over_the_form_changes_nothing(qtbot) -> None:  # type: ignore[no-untyped-def]
    edit = IntEdit(0, 9)
    qtbot.addWidget(edit)
    edit.setValue(5)
    edit.show()
    place, none = QPointF(2, 2), Qt.KeyboardModifier.NoModifier
    turn = QWheelEvent(
        place, place, QPoint(), QPoint(0, 120), Qt.MouseButton.NoButton, none, Qt.ScrollPhase.NoScrollPhase, False
    )
    QApplication.sendEvent(edit, turn)
    assert edit.value() == 5


def test_choice_keeps_what_was_chosen_while_it_is_offered(qtbot) -> None:  # type: ignore[no-untyped-def]
    choice = Choice([("one", 1), ("two", 2)])
    qtbot.addWidget(choice)
    choice.setValue(2)
    with qtbot.assertNotEmitted(choice.valueChanged):
        choice.setChoices([("three", 3), ("two", 2)])
    assert choice.value() == 2
    with qtbot.waitSignal(choice.valueChanged):
        choice.setChoices([("four", 4)])
    assert choice.value() == 4
