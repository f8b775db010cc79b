from __future__ import annotations

import pytest
from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.methods import SuperCL
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet


def spec(dims: int = 2, depth: int = 2) -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=4, depth=depth)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"instance": 0, "intra": 0, "inter": 0}, "nothing is learned"),
        ({"temperature": 0}, "greater than 0"),
        ({"intra": -1}, "greater than or equal to 0"),
        ({"positives": "neighbour"}, "'simclr' or 'position'"),
    ],
)
def test_exception_settings(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SuperCL(**wrong)


def test_exception_map() -> None:
    for name in ("enc3", "dec1", "nothing"):
        with pytest.raises(UserError, match=f"'{name}': set map to enc1 or enc2 or bottleneck"):
            SuperCL(map=name).pretraining(UNet(spec()))


def test_feature_needs() -> None:
    slices, volumes = SuperCL().needs(2), SuperCL().needs(3)
    assert (slices.fixed, slices.free, slices.position, slices.superpixels.per) == (2, 2, False, "slice")
    assert (volumes.fixed, volumes.free, volumes.position, volumes.superpixels.per) == (2, 2, False, "volume")
    assert all(SuperCL(positives="position").needs(dims).position for dims in (2, 3))
    only_pixels = SuperCL(instance=0, inter=0).needs(2)
    assert (only_pixels.fixed, only_pixels.free, only_pixels.position) == (2, 0, False)


def test_feature_hands_on_what_a_loss_reaches() -> None:
    assert SuperCL().hands_on(spec()) == ("enc1", "enc2", "bottleneck")
    assert SuperCL(map="enc1").hands_on(spec()) == ("enc1", "enc2", "bottleneck")
    assert SuperCL(map="enc1", instance=0, inter=0).hands_on(spec()) == ("enc1",)
