from __future__ import annotations

import pytest
from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.methods import JCL
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet


def spec(dims: int = 2, depth: int = 2) -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=4, depth=depth)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"instance": 0, "dense": 0}, "maps that are the same everywhere satisfy what is left"),
        ({"temperature": 0}, "greater than 0"),
        ({"threshold": 1.1}, "less than or equal to 1"),
        ({"blocks": 5}, "less than or equal to 4"),
        ({"blocks": -1}, "greater than or equal to 0"),
    ],
)
def test_exception_settings(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JCL(**wrong)


@pytest.mark.parametrize(("depth", "poolings"), [(1, "1 pooling:"), (2, "2 poolings:")])
def test_exception_more_blocks_than_poolings(depth: int, poolings: str) -> None:
    with pytest.raises(UserError, match=f"cannot train 3 decoder blocks of a network with {poolings} set blocks to"):
        JCL(blocks=3).pretraining(UNet(spec(depth=depth)))


def test_feature_positives() -> None:
    for dims in (2, 3):
        assert JCL(positives="position").needs(dims).position
        assert not JCL().needs(dims).position
