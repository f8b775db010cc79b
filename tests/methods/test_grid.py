from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_medcl.errors import UserError
from napari_medcl.methods.grid import centres, receptive_field, regular_grid
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet


def test_exception() -> None:
    with pytest.raises(UserError, match="no map 'enc3'"):
        receptive_field(NetworkSpec(in_channels=1, classes=2, spatial_dims=2, depth=2), "enc3")


@given(st.lists(st.integers(1, 60), min_size=2, max_size=3), st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_feature_grids_are_regular(sizes: list[int], most: int) -> None:
    grid = regular_grid(sizes, most)
    count = math.prod(map(len, grid))
    assert 1 <= count <= most
    if math.prod(sizes) <= most:
        assert count == math.prod(sizes)
    for size, axis in zip(sizes, grid, strict=True):
        assert 0 <= axis[0] <= axis[-1] < size
        assert abs(axis[0] - (size - 1 - axis[-1])) <= 1
        steps = {b - a for a, b in itertools.pairwise(axis)}
        assert not steps or max(steps) - min(steps) <= 1
        assert min(steps, default=1) > 0


@pytest.mark.parametrize(
    ("sizes", "most", "counts"),
    [
        ((64, 64), 64, (8, 8)),
        ((64, 64), 128, (8, 16)),
        ((32, 32), 32, (4, 8)),
        ((64, 16), 64, (16, 4)),
        ((64, 64), 127, (9, 14)),
        ((32, 32, 32), 128, (4, 4, 8)),
        ((16, 16, 16), 32, (2, 4, 4)),
        ((4, 4, 4), 8, (2, 2, 2)),
        ((40, 10, 40), 128, (8, 2, 8)),
        ((64, 64, 2), 128, (11, 11, 1)),
        ((100, 1), 32, (32, 1)),
    ],
)
def test_feature_grids_are_as_even_as_the_map_allows(sizes: tuple[int, ...], most: int, counts: tuple[int]) -> None:
    assert tuple(map(len, regular_grid(sizes, most))) == counts


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["enc1", "enc2", "bottleneck", "dec2", "dec1"])
def test_feature_the_receptive_field_is_what_a_pixel_sees(dims: int, name: str) -> None:
    """A window is where the gradient of a pixel is not 0; a map of the decoder is looked at through its skip."""
    torch.manual_seed(0)
    spec = NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=2, depth=2)
    net = UNet(spec).eval()
    net.pool = (nn.AvgPool2d if dims == 2 else nn.AvgPool3d)(2)  # a max-pool passes only one gradient on
    for stage in (net.dec1, net.dec2):
        nn.init.zeros_(stage.up.weight)
    for layer in net.bottleneck.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            layer.weight.data.abs_()  # none of its ReLUs is shut
    image = torch.rand(1, 1, *[48] * dims, requires_grad=True)
    maps = net.encode(image)
    maps |= net.decode(maps)
    pixel = [size // 2 for size in maps[name].shape[2:]]
    maps[name][(0, slice(None), *pixel)].sum().backward()
    seen = image.grad[0, 0].nonzero()
    side = receptive_field(spec, name)
    begins = [axis[0] - side // 2 for axis in centres([[place] for place in pixel], spec.stride(name))]
    assert seen.amin(0).tolist() == begins
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [side] * dims
