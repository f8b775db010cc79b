from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.models import NetworkSpec
from napari_medcl.models.network import padded
from napari_medcl.models.unet import UNet

BOTH = pytest.mark.parametrize("dims", [2, 3])


def spec(dims: int = 2, **settings: int) -> NetworkSpec:
    return NetworkSpec(**{"in_channels": 1, "classes": 3, "spatial_dims": dims, "width": 4, "depth": 2} | settings)


def our_name(theirs: str) -> str | None:
    """`module.share_encoder.contr_2_1.0.weight` -> `enc2.0.weight`; None for the projectors."""
    _, part, block, *rest = theirs.split(".")
    if part not in {"share_encoder", "online_decoder"}:
        return None
    if block == "center":
        return ".".join(["bottleneck", *rest])
    if up := re.fullmatch(r"upscale(\d)", block):
        return ".".join([f"dec{int(up[1]) - 1}", "up", *rest])
    way, level, conv = block.split("_")
    index, *rest = rest
    stage = f"enc{level}" if way == "contr" else f"dec{level}.convs"
    return ".".join([stage, str(int(index) + 3 * (int(conv) - 1)), *rest])


@BOTH
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_smoke(dims: int, depth: int) -> None:
    net = UNet(spec(dims, depth=depth, width=2)).eval()
    assert net(torch.randn(1, 1, *[2**depth] * dims)).shape == (1, 3, *[2**depth] * dims)


def test_exception() -> None:
    net = UNet(spec())
    with pytest.raises(UserError, match=r"takes images \(images, 1, y, x\), but got the shape \(2, 3, 8, 8\)"):
        net(torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match="got the shape"):
        net(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(UserError, match="no map 'dec3'; it has dec2, dec1"):
        net.decode(net.encode(torch.zeros(1, 1, 8, 8)), to="dec3")
    with pytest.raises(UserError, match="no map 'enc3'; with 2 poolings it has enc1, enc2, bottleneck"):
        net.spec.channels("enc3")


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"depth": 6}, {"spatial_dims": 4}, {"width": 0}])
def test_exception_spec(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        spec(**wrong)


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(dims: int, channels: int) -> None:
    net = UNet(spec(dims, in_channels=channels, depth=3))
    size = (24, 16, 32)[:dims]
    maps = net.encode(torch.randn(2, channels, *size))
    maps |= net.decode(maps)
    assert tuple(maps) == net.spec.map_names
    for name, found in maps.items():
        stride = net.spec.stride(name)
        assert found.shape == (2, net.spec.channels(name), *(n // stride for n in size)), name


def test_shapes_names() -> None:
    names = ("enc1", "enc2", "bottleneck", "dec2", "dec1")
    assert spec().map_names == names
    assert [spec().channels(name) for name in names] == [4, 8, 16, 8, 4]
    assert [spec().stride(name) for name in names] == [1, 2, 4, 2, 1]
    keys = {key.split(".")[0] for key in UNet(spec()).state_dict()}
    assert keys == {*names, "head"}


@BOTH
@pytest.mark.parametrize("size", [1, 3, 7, 13])
def test_shapes_any_size(dims: int, size: int) -> None:
    net = UNet(spec(dims, depth=3)).eval()
    image = torch.randn(1, 1, size, *[9] * (dims - 1))
    assert net(image).shape == (1, 3, *image.shape[2:])
    assert net.encode(image)["bottleneck"].shape[2:] == (-(-size // 8), *[2] * (dims - 1))


@BOTH
def test_feature_padding_repeats_the_far_edge(dims: int) -> None:
    image = torch.randn(1, 1, *[5] * dims)
    larger = padded(image, 4)
    expected = np.pad(image.numpy(), [(0, 0), (0, 0), *[(0, 3)] * dims], mode="edge")
    np.testing.assert_array_equal(larger.numpy(), expected)
    assert padded(larger, 4) is larger
    net = UNet(spec(dims)).eval()
    crop = (..., *[slice(0, 5)] * dims)
    torch.testing.assert_close(net(image), net(larger)[crop])


@BOTH
def test_feature_decoder_stops_early(dims: int) -> None:
    net = UNet(spec(dims, depth=3)).eval()
    maps = net.encode(torch.randn(1, 1, *[16] * dims))
    whole, part = net.decode(maps), net.decode(maps, to="dec2")
    assert tuple(part) == ("dec3", "dec2")
    for name, found in part.items():
        assert torch.equal(found, whole[name])


def test_feature_initialisation() -> None:
    net = UNet(spec(width=32))
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name
    weight = net.get_submodule("enc2.3").weight
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (64 * 9)) ** 0.5, rel=0.02)
    assert net.head.bias is None


@BOTH
def test_feature_every_stage_learns(dims: int) -> None:
    net = UNet(spec(dims))
    net(torch.randn(2, 1, *[8] * dims)).square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in net.parameters())


def test_feature_weights_stay_contiguous() -> None:
    net = UNet(spec())
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(value.is_contiguous() for value in net.state_dict().values())


def test_feature_mixed_precision() -> None:
    net = UNet(spec())
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 1, 8, 8)).isfinite().all()


def test_feature_agrees_with_the_authors_network(shared) -> None:
    theirs = torch.load(shared / "reference/jcl_authors_checkpoint.pth", weights_only=True)["net"]
    weights = {name: value for key, value in theirs.items() if (name := our_name(key))}
    net = UNet(spec(depth=4)).eval()
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["head.weight"], [])
    numbers = np.load(shared / "reference/jcl_authors_unet.npz")
    with torch.no_grad():
        maps = net.encode(torch.from_numpy(numbers["image"]))
        maps |= net.decode(maps)
    for theirs in set(numbers) - {"image"}:
        ours = maps[theirs.replace("skip", "enc").replace("up", "dec")].numpy()
        scale = np.abs(numbers[theirs]).max()
        np.testing.assert_allclose(ours / scale, numbers[theirs] / scale, atol=1e-5, err_msg=theirs)


@BOTH
def test_gradcheck(dims: int) -> None:
    net = UNet(spec(dims, width=1, depth=1)).double().eval()
    image = torch.randn(1, 1, *[3] * dims, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(net, image)
