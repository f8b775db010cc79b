"""Choosing a method in a form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_medcl.errors import UserError
from napari_medcl.gui.form import Form
from napari_medcl.gui.method import MethodEdit
from napari_medcl.methods import JCL, PDCR, SuperCL
from napari_medcl.methods.choices import Stage, offers
from napari_medcl.training.config import FinetuneConfig, PretrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

CONFIGS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


def made(stage: Stage, qtbot: QtBot) -> tuple[Form, MethodEdit]:
    edit = MethodEdit(offers(stage))
    form = Form(CONFIGS[stage], without={"folder"}, editors={"method": edit})
    qtbot.addWidget(form)
    form.show()
    return form, edit


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_untouched_form_gives_the_defaults(stage: Stage, qtbot: QtBot, tmp_path: Path) -> None:
    form, _ = made(stage, qtbot)
    assert form.value(folder=tmp_path) == CONFIGS[stage](folder=tmp_path)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_every_choice_gives_its_method_and_says_what_it_does(stage: Stage, qtbot: QtBot, tmp_path: Path) -> None:
    form, edit = made(stage, qtbot)
    for name, offer in offers(stage).items():
        edit.choice.setValue(name)
        assert edit.about.text() == offer.about
        shown = [other for other, own in edit.forms.items() if own.isVisible()]
        assert shown == ([name] if offer.asked else [])
        config = form.value(folder=tmp_path)
        assert type(config.method) is (offer.method or type(None))


@pytest.mark.parametrize(
    "method", [SuperCL(intra=0.25), JCL(blocks=1), PDCR(maps=("enc2", "dec1"), windows=(5, 7))], ids=lambda m: m.name
)
def test_what_is_set_comes_back(method: SuperCL | JCL | PDCR, qtbot: QtBot, tmp_path: Path) -> None:
    form, _ = made("pretrain", qtbot)
    form.setValue({"method": method})
    assert form.value(folder=tmp_path).method == method


def test_settings_stay_while_another_method_is_chosen(qtbot: QtBot, tmp_path: Path) -> None:
    form, edit = made("pretrain", qtbot)
    edit.choice.setValue("supercl")
    edit.forms["supercl"].editors["intra"].setValue(0.25)
    edit.choice.setValue("jcl")
    edit.choice.setValue("supercl")
    assert form.value(folder=tmp_path).method == SuperCL(intra=0.25)


def test_a_choice_and_a_setting_are_told(qtbot: QtBot) -> None:
    form, edit = made("pretrain", qtbot)
    for change in (
        lambda: edit.choice.setValue("supercl"),
        lambda: edit.forms["supercl"].editors["intra"].setValue(0.5),
    ):
        with qtbot.waitSignal(form.valueChanged):
            change()


def test_baselines_become_settings_of_supercl(qtbot: QtBot, tmp_path: Path) -> None:
    form, edit = made("pretrain", qtbot)
    edit.choice.setValue("simclr")
    editors = edit.forms["simclr"].editors
    assert set(editors) == {"temperature", "projection", "head_norm"}
    editors["temperature"].setValue(0.5)
    editors["head_norm"].click()
    wanted = SuperCL(positives="simclr", intra=0, inter=0, temperature=0.5, head_norm=False)
    assert form.value(folder=tmp_path).method == wanted


def test_own_extension_is_marked_as_one(qtbot: QtBot) -> None:
    _, edit = made("pretrain", qtbot)
    edit.choice.setValue("pdcr")
    assert "MedCL's own" in edit.about.text()


def test_settings_that_teach_nothing_are_refused(qtbot: QtBot, tmp_path: Path) -> None:
    form, edit = made("finetune", qtbot)
    edit.choice.setValue("pdcr")
    for name in ("encoder", "decoder", "across"):
        edit.forms["pdcr"].editors[name].setValue(0)
    with pytest.raises(UserError, match="nothing is learned"):
        form.value(folder=tmp_path)
    edit.forms["pdcr"].editors["windows"].setText("five")
    with pytest.raises(UserError, match="Windows: “five” are not whole numbers"):
        form.value(folder=tmp_path)
