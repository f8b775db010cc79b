from __future__ import annotations

import pytest
import torch
from monai.networks.nets import AttentionUnet
from pydantic import ValidationError

from napari_medcl.models import NetworkSpec, build
from napari_medcl.models.attention import AttentionUNet

BOTH = pytest.mark.parametrize("dims", [2, 3])


def spec(dims: int = 2, **settings: int) -> NetworkSpec:
    given = {"in_channels": 1, "classes": 3, "spatial_dims": dims, "width": 4, "depth": 2, "architecture": "attention"}
    return NetworkSpec(**given | settings)


def our_name(theirs: str, depth: int) -> str:
    """`model.1.submodule.0.conv.0` -> `enc2.conv.0`: every `submodule` is a level, the last one the bottleneck."""
    _, place, *rest = theirs.split(".")
    if place != "1":
        return ".".join(["enc1" if place == "0" else "head", *rest])
    level = 1
    while rest[0] == "submodule":
        level += 1
        if level > depth:
            return ".".join(["bottleneck", *rest[1:]])
        _, part, *rest = rest
        if part == "0":
            return ".".join([f"enc{level}", *rest])
    return ".".join([f"dec{level}", *rest])


@BOTH
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_monai_computes(dims: int, depth: int, training: bool) -> None:
    torch.manual_seed(0)
    theirs = (
        AttentionUnet(dims, 2, 3, [2 * 2**level for level in range(depth + 1)], [2] * depth).double().train(training)
    )
    net = AttentionUNet(spec(dims, depth=depth, width=2, in_channels=2)).double().train(training)
    weights = {our_name(name, depth): value for name, value in theirs.state_dict().items()}
    net.load_state_dict(weights)
    image = torch.randn(3, 2, *[2 ** (depth + 1)] * dims, dtype=torch.double)
    torch.testing.assert_close(net(image), theirs(image))


@BOTH
@pytest.mark.parametrize("depth", [1, 3])
def test_shapes(dims: int, depth: int) -> None:
    net = build(spec(dims, depth=depth)).eval()
    assert isinstance(net, AttentionUNet)
    image = torch.randn(2, 1, *(13, 16, 9)[:dims])
    maps = net.encode(image)
    maps |= net.decode(maps)
    assert tuple(maps) == net.spec.map_names
    whole = [-(-size // 2**depth) * 2**depth for size in image.shape[2:]]
    for name, found in maps.items():
        stride = net.spec.stride(name)
        assert found.shape == (2, net.spec.channels(name), *(size // stride for size in whole)), name
    assert net(image).shape == (2, 3, *image.shape[2:])
    assert tuple(net.decode(maps, to=f"dec{depth}")) == (f"dec{depth}",)
    assert {key.split(".")[0] for key in net.state_dict()} == {*net.spec.map_names, "head"}


def test_feature_every_stage_learns() -> None:
    net = AttentionUNet(spec())
    net(torch.randn(2, 1, 8, 8)).square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in net.parameters())


def test_feature_mixed_precision() -> None:
    net = AttentionUNet(spec())
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 1, 8, 8)).isfinite().all()


def test_exception_width() -> None:
    with pytest.raises(ValidationError, match="width of 2"):
        spec(width=1)
