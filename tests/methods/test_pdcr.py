from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.methods import PDCR, Method
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet


def spec(dims: int = 2, depth: int = 2) -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=3, spatial_dims=dims, width=4, depth=depth)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": 0, "decoder": 0, "across": 0}, "nothing is learned"),
        ({"encoder": -1}, "greater than or equal to 0"),
        ({"temperature": 0}, "greater than 0"),
        ({"windows": (5, 0)}, "each at least 1"),
        ({"windows": ()}, "give one number or more"),
        ({"embeddings": ()}, "at least 1 item"),
        ({"maps": ("enc2", "enc2")}, "named twice"),
        ({"pair": ("enc2", "enc2")}, "named twice"),
        ({"pair": ("enc2",)}, "at least 2 items"),
    ],
)
def test_exception_settings(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PDCR(**wrong)


def test_exception_maps() -> None:
    net = UNet(spec())
    for wrong in ({"maps": ("enc2", "enc3")}, {"pair": ("dec1", "enc3")}):
        for ask in (PDCR(**wrong).finetuning, PDCR(**wrong).pretraining):
            with pytest.raises(UserError, match="no map 'enc3'; with 2 poolings it has enc1, enc2, bottleneck"):
                ask(net)
    with pytest.raises(UserError, match="PDCR compares nothing"):
        PDCR(maps=("dec1",), decoder=0, across=0).maps_read(spec())


def test_feature_defaults_fit_every_depth() -> None:
    read = {depth: PDCR().maps_read(spec(depth=depth)) for depth in (1, 2, 3, 4)}
    assert read == {
        1: ("bottleneck",),
        2: ("enc2", "bottleneck", "dec2"),
        3: ("enc2", "enc3", "dec2"),
        4: ("enc2", "enc3", "dec2"),
    }
    assert PDCR().bridged(spec(depth=1)) == ()
    assert PDCR().bridged(spec(depth=4)) == ("enc2", "enc3")
    assert PDCR(maps=("dec1",), decoder=0).maps_read(spec()) == ("enc2", "bottleneck")
    assert PDCR(maps=("dec1", "enc1"), across=0).maps_read(spec()) == ("enc1", "dec1")


def test_feature_hands_on_what_it_trains() -> None:
    deep = spec(depth=4)
    assert PDCR(decoder=0).hands_on(deep) == ("enc1", "enc2", "enc3")
    assert PDCR().hands_on(deep) == (*deep.encoder_names, "dec4", "dec3", "dec2")


def test_feature_patches_of_a_map() -> None:
    method, deep = PDCR(), spec(3, depth=4)
    counts = {name: math.prod(map(len, method.grid(deep, name, (96, 96, 96)))) for name in deep.map_names}
    assert [counts[name] for name in deep.encoder_names] == [128, 64, 32, 8, 8]
    assert [counts[name] for name in deep.decoder_names] == [8, 32, 64, 128]
    assert method.grid(deep, "enc3", (10, 9, 1)) == ((0, 1, 2), (0, 1, 2), (0,))
    assert [method.sides(deep, name) for name in ("enc2", "enc3", "dec2")] == [(14,), (32,), (22,)]
    assert PDCR(windows=(5, 7, 9)).sides(deep, "enc3") == (5, 7, 9)


def test_feature_needs() -> None:
    slices, volumes = PDCR().needs(2), PDCR().needs(3)
    assert (slices.fixed, slices.free, slices.position, slices.superpixels.per) == (1, 0, False, "slice")
    assert (volumes.fixed, volumes.superpixels.per) == (1, "volume")


def test_feature_others_have_no_part_in_fine_tuning() -> None:
    class Other(PDCR):
        finetunes = False
        maps_read = Method.maps_read
        finetuning = Method.finetuning

    for ask in (lambda: Other().finetuning(UNet(spec())), lambda: Other().maps_read(spec())):
        with pytest.raises(UserError, match=r"Other learns without masks only\. Pre-train with it"):
            ask()
