"""What one chooses among by name."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from napari_medcl.errors import UserError
from napari_medcl.methods import JCL, AnyMethod, SuperCL
from napari_medcl.methods.choices import METHODS, chosen, offers

ANY = TypeAdapter(AnyMethod)
STAGES = pytest.mark.parametrize("stage", ["pretrain", "finetune"])


def test_all_methods_and_the_baselines_can_be_chosen_to_pretrain() -> None:
    assert list(offers("pretrain")) == ["jcl", "supercl", "pdcr", "pcl", "simclr", "supercl-paper", "jcl-paper"]
    assert {kind.__name__ for kind in METHODS} == {"SuperCL", "JCL", "PDCR"}


def test_fine_tuning_offers_none_and_those_that_have_a_part_in_it() -> None:
    assert list(offers("finetune")) == ["plain", "pdcr"]
    assert offers("finetune")["plain"].settings({}) is None
    assert "superpixels" in offers("pretrain")["pdcr"].model.model_fields
    assert "superpixels" not in offers("finetune")["pdcr"].model.model_fields


@STAGES
def test_untouched_settings_are_the_defaults(stage: str) -> None:
    for offer in offers(stage).values():
        if offer.method is not None and not offer.fixed:
            assert ANY.validate_python(offer.settings(offer.model().model_dump())) == offer.method()


@STAGES
def test_every_offer_says_what_it_does_in_a_line(stage: str) -> None:
    for offer in offers(stage).values():
        assert offer.about.endswith(".")
        assert "\n" not in offer.about
        assert offer.model.__doc__ == offer.about


def test_baselines_are_settings_of_supercl() -> None:
    known = offers("pretrain")
    pcl, simclr = (ANY.validate_python(known[name].settings({"temperature": 0.2})) for name in ("pcl", "simclr"))
    assert pcl == SuperCL(positives="position", intra=0, inter=0, temperature=0.2)
    assert simclr == SuperCL(positives="simclr", intra=0, inter=0, temperature=0.2)
    assert set(known["pcl"].model.model_fields) == {"threshold", "temperature", "projection", "head_norm"}


def test_published_settings_are_those_of_the_papers() -> None:
    known = offers("pretrain")
    supercl, jcl = (ANY.validate_python(known[f"{name}-paper"].settings({})) for name in ("supercl", "jcl"))
    assert jcl == JCL(positives="position", head_norm=False)
    assert supercl == SuperCL(positives="position", head_norm=False, superpixels={"compactness": 10})
    for name in ("supercl", "jcl"):
        whole, paper = (set(known[title].model.model_fields) for title in (name, f"{name}-paper"))
        assert paper == whole - set(known[f"{name}-paper"].fixed)


def test_open_settings_keep_their_bounds() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        offers("pretrain")["pcl"].model(temperature=0)
    with pytest.raises(ValidationError, match=r"[Ee]xtra"):
        offers("pretrain")["pcl"].model(intra=1)


def test_what_is_not_offered_is_explained() -> None:
    with pytest.raises(UserError, match=r"no method “magic” to pretrain with\. Choose jcl, supercl, pdcr, pcl, simclr"):
        chosen("pretrain", "magic")
    with pytest.raises(UserError, match="no method “plain” to pretrain with"):
        chosen("pretrain", "plain")
    with pytest.raises(UserError, match=r"JCL learns without masks only\. Pre-train with it"):
        chosen("finetune", "jcl")
