from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from napari_medcl.errors import UserError
from napari_medcl.models import NetworkSpec, build
from napari_medcl.models.uafs import UAFS, entropy, uncertainties

BOTH = pytest.mark.parametrize("dims", [2, 3])
NETWORKS = pytest.mark.parametrize("architecture", ["unet", "attention"])


def spec(dims: int = 2, **settings: object) -> NetworkSpec:
    given = {"in_channels": 1, "classes": 3, "spatial_dims": dims, "width": 4, "depth": 2} | settings
    return NetworkSpec.model_validate(given)


def literal(block: UAFS, x: Tensor) -> tuple[Tensor, Tensor]:
    """H and the output in evaluation mode, pixel by pixel, as the formula says."""
    conv, normalise, _, _, last = block.logits
    size = x.shape[2:]
    larger = nn.functional.pad(x, [1] * 2 * len(size))
    found = []
    for image in larger:
        for pixel in np.ndindex(*size):
            window = image[(slice(None), *(slice(i, i + 3) for i in pixel))]
            hidden = [(kernel * window).sum() for kernel in conv.weight]
            spread = (normalise.running_var + normalise.eps).sqrt()
            hidden = (torch.stack(hidden) - normalise.running_mean) / spread * normalise.weight + normalise.bias
            hidden = [max(h, 0 * h) for h in hidden]
            scores = [
                bias + sum(w * h for w, h in zip(row.flatten(), hidden, strict=True))
                for row, bias in zip(last.weight, last.bias, strict=True)
            ]
            total = sum(score.exp() for score in scores)
            shares = [score.exp() / total for score in scores]
            found.append(-sum(p * p.log() for p in shares) / math.log(len(shares)))
    uncertainty = torch.stack(found).view(len(x), 1, *size)
    return uncertainty, x * (1 + (1 - uncertainty))


def lively(dims: int, classes: int = 3, channels: int = 5) -> UAFS:
    """A block in double precision, evaluation mode, whose norm does something."""
    torch.manual_seed(0)
    block = UAFS(spec(dims, classes=classes), channels).double()
    block(torch.randn(4, channels, *[6] * dims, dtype=torch.double) * 3 + 1)
    nn.init.normal_(block.logits[1].weight)
    nn.init.normal_(block.logits[1].bias)
    return block.eval()


def test_fixture(shared) -> None:
    numbers = {name: torch.from_numpy(value) for name, value in np.load(shared / "reference/uafs.npz").items()}
    block = UAFS(spec(classes=4), 8)
    block.logits = nn.Identity()
    block.logits.forward = lambda _: numbers["uncertainty_logits"]
    torch.testing.assert_close(block.uncertainty(numbers["feature"])[:, 0], numbers["entropy"])
    torch.testing.assert_close(block(numbers["feature"]), numbers["output"])


@BOTH
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_what_the_formula_says(dims: int, classes: int) -> None:
    block, x = lively(dims, classes), torch.randn(2, 5, *(4, 3, 2)[:dims], dtype=torch.double, requires_grad=True)
    uncertainty, output = literal(block, x)
    torch.testing.assert_close(block.uncertainty(x), uncertainty)
    torch.testing.assert_close(block(x), output)
    places, pull = (x, *block.parameters()), torch.randn(output.shape, dtype=torch.double)
    ours, theirs = (torch.autograd.grad(y, places, pull) for y in (block(x), output))
    torch.testing.assert_close(ours, theirs)


@BOTH
def test_gradcheck(dims: int) -> None:
    block = lively(dims, channels=2)
    x = torch.randn(1, 2, *[2] * dims, dtype=torch.double, requires_grad=True)
    weights = tuple(block.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *weights))


@given(logits=st.lists(st.floats(-500, 500), min_size=2, max_size=6))
def test_entropy_is_a_share(logits: list[float]) -> None:
    values = torch.tensor(logits, requires_grad=True)
    found = entropy(values.view(1, -1, 1, 1))
    assert -1e-6 <= found.item() <= 1 + 1e-6
    found.sum().backward()
    assert values.grad.isfinite().all()


@pytest.mark.parametrize(("logits", "expected"), [([0, 0, 0], 1), ([900, 0, 0], 0), ([5, 5, -900], math.log(2, 3))])
def test_entropy_at_the_ends(logits: list[float], expected: float) -> None:
    assert entropy(torch.tensor(logits).float().view(1, -1, 1)).item() == pytest.approx(expected, abs=1e-6)


@BOTH
@NETWORKS
def test_feature_maps_are_those_behind_the_blocks(dims: int, architecture: str) -> None:
    torch.manual_seed(0)
    plain = spec(dims, architecture=architecture)
    for behind in ("enc1", "bottleneck", "dec2"):
        net = build(plain.model_copy(update={"uafs": (behind,)})).eval()
        bare = build(plain).eval()
        bare.load_state_dict({n: v for n, v in net.state_dict().items() if not n.startswith("blocks.")})
        image = torch.randn(2, 1, *[9] * dims)
        maps, plains = net.encode(image), bare.encode(image)
        maps, plains = maps | net.decode(maps), plains | bare.decode(plains)
        first = plain.map_names.index(behind)
        for name in plain.map_names[:first]:
            assert torch.equal(maps[name], plains[name]), name
        torch.testing.assert_close(maps[behind], net.blocks[behind](plains[behind]))
        for name in plain.map_names[first + 1 :]:
            reached = behind == "enc1" or name.startswith("dec")
            assert torch.equal(maps[name], plains[name]) != reached, name


@BOTH
@NETWORKS
def test_feature_uncertainties(dims: int, architecture: str) -> None:
    names = ("enc2", "bottleneck", "dec2", "dec1")
    net = build(spec(dims, architecture=architecture, uafs=names)).eval()
    image = torch.randn(2, 1, *[9] * dims)
    found = uncertainties(net, image)
    assert set(found) == set(names)
    for name, uncertainty in found.items():
        assert uncertainty.shape == (2, 1, *[12 // net.spec.stride(name)] * dims), name
    before = build(net.spec).eval()
    before.load_state_dict(net.state_dict())
    before.blocks["enc2"] = nn.Identity()
    torch.testing.assert_close(found["enc2"], net.blocks["enc2"].uncertainty(before.encode(image)["enc2"]))
    assert all(not block.logits._forward_hooks for block in net.blocks.values())
    assert uncertainties(build(spec(dims)), image) == {}


@NETWORKS
def test_feature_every_block_learns(architecture: str) -> None:
    net = build(spec(architecture=architecture, uafs=("bottleneck", "dec2", "dec1")))
    net(torch.randn(2, 1, 16, 16)).square().mean().backward()
    grads = {name: value.grad for name, value in net.named_parameters() if name.startswith("blocks.")}
    assert {name.split(".")[1] for name in grads} == {"bottleneck", "dec2", "dec1"}
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in grads.values())


@BOTH
def test_feature_mixed_precision(dims: int) -> None:
    block = UAFS(spec(dims), 4)
    x = (100 * torch.randn(2, 4, *[6] * dims)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        half = x.to(torch.bfloat16)
        output, uncertainty = block(half), block.uncertainty(half)
    assert (output.dtype, uncertainty.dtype) == (torch.bfloat16, torch.float32)
    assert output.isfinite().all()
    output.float().mean().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_feature_half_precision_of_large_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([[60000.0, -60000.0, 0.0], [1.0, 1.0, 1.0]]).to(dtype).requires_grad_()
    found = entropy(logits)
    torch.testing.assert_close(found, torch.tensor([[0.0], [1.0]]))
    found.sum().backward()
    assert logits.grad.isfinite().all()


def test_exception() -> None:
    with pytest.raises(ValidationError, match=r"behind dec3, head: with 2 poolings it has enc1, enc2, bottleneck"):
        spec(uafs=("dec1", "head", "dec3"))
    with pytest.raises(ValidationError, match="two classes"):
        spec(uafs=("dec1",), classes=1)
    with pytest.raises(UserError, match="no map 'dec3'; with 2 poolings"):
        spec().stride("dec3")
