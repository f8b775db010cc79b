from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from napari_medcl.foreign import our_name
from napari_medcl.methods import JCL
from napari_medcl.methods.losses.contrast import by_position, contrastive, other_view
from napari_medcl.methods.losses.jcl import dense, equivariance, smaller
from napari_medcl.models import NetworkSpec
from napari_medcl.models.network import padded
from napari_medcl.models.unet import UNet
from tests.methods.batches import batch

SIZES = pytest.mark.parametrize("size", [(4, 6), (5, 3), (3, 4, 2)])
BOTH = pytest.mark.parametrize("dims", [2, 3])
DENSE = pytest.mark.parametrize("number", range(2))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def spec(dims: int = 2, depth: int = 2) -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=4, depth=depth)


def literal_dense(
    auxiliary: Tensor, dominant: Tensor, positions: Tensor, threshold: float, temperature: float
) -> Tensor:
    """Position by position, row by row."""
    images, losses = len(positions), []
    for place in np.ndindex(*auxiliary.shape[2:]):
        rows = [branch[(i, slice(None), *place)] for branch in (auxiliary, dominant) for i in range(images)]
        total = torch.zeros((), dtype=torch.double)
        for i, row in enumerate(rows):
            others = [j for j in range(len(rows)) if j != i]
            near = [j for j in others if abs(positions[i % images] - positions[j % images]) < threshold]
            logits = {j: functional.cosine_similarity(row, rows[j], dim=0) / temperature for j in others}
            bottom = torch.stack(list(logits.values())).exp().sum().log()
            total = total - temperature / 0.07 * sum(logits[j] - bottom for j in near) / len(near)
        losses.append(total / len(rows))
    return torch.stack(losses).mean()


def literal_smaller(image: Tensor, blocks: int) -> Tensor:
    """Pixel by pixel: each from the 2^dims pixels round the place that it has in the larger image."""
    sizes = [math.ceil(n / 2**blocks) for n in image.shape[2:]]
    padded_sizes = [n * 2**blocks for n in sizes]
    edges = [(0, 0), (0, 0), *((0, p - n) for p, n in zip(padded_sizes, image.shape[2:], strict=True))]
    larger = np.pad(image.numpy(), edges, mode="edge")
    found = np.zeros((*image.shape[:2], *sizes))
    for place in np.ndindex(*sizes):
        where = [i * (p - 1) / (n - 1) if n > 1 else 0.0 for i, p, n in zip(place, padded_sizes, sizes, strict=True)]
        for corner in np.ndindex(*[2] * len(sizes)):
            at = [min(int(w) + c, p - 1) for w, c, p in zip(where, corner, padded_sizes, strict=True)]
            share = math.prod(w % 1 if c else 1 - w % 1 for w, c in zip(where, corner, strict=True))
            found[(..., *place)] += share * larger[(..., *at)]
    return torch.from_numpy(found)


def test_smoke() -> None:
    assert dense(random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1), other_view(2)).isfinite()
    assert equivariance(random(2, 3, 8, 8), random(2, 3, 2, 2)).isfinite()


def test_exception() -> None:
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 3, 4, 4\), \(2, 3, 4, 5\)"):
        dense(random(2, 3, 4, 4), random(2, 3, 4, 5), other_view(2))
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 3, 2, 2\), \(2, 3, 1, 1\)"):
        equivariance(random(2, 3, 8, 8), random(2, 3, 1, 1))
    with pytest.raises(ValueError, match="holds no positions, which jcl asked for"):
        JCL(positives="position").pretraining(UNet(spec()))(batch(JCL().needs(2), (16, 16)))


@SIZES
def test_shapes(size: tuple[int, ...]) -> None:
    feature = random(2, 3, *size)
    assert dense(feature, feature, other_view(2)).shape == ()
    for blocks in range(5):
        found = smaller(feature, blocks)
        assert found.shape == (2, 3, *(-(-n // 2**blocks) for n in size))
        assert equivariance(feature, found, blocks).shape == ()


@SIZES
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_feature_dense_is_a_loop_over_positions(size: tuple[int, ...], temperature: float) -> None:
    positions = torch.tensor([0.1, 0.25, 0.3, 0.9])
    branches = [random(4, 5, *size, seed=seed).requires_grad_() for seed in (0, 1)]
    ours = dense(*branches, by_position(positions, 0.2), temperature)
    theirs = literal_dense(*branches, positions, 0.2, temperature)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(torch.autograd.grad(ours, branches), torch.autograd.grad(theirs, branches), strict=True):
        torch.testing.assert_close(one, other)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_feature_smaller_is_a_loop_over_pixels(size: list[int], blocks: int, seed: int) -> None:
    image = random(1, 2, *size, seed=seed)
    torch.testing.assert_close(smaller(image, blocks), literal_smaller(image, blocks))


@given(st.lists(st.integers(1, 6), min_size=2, max_size=3), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_feature_equivariance_is_the_formula(size: list[int], blocks: int, seed: int) -> None:
    auxiliary = random(2, 2, *size, seed=seed)
    expected = literal_smaller(auxiliary, blocks)
    dominant = random(*expected.shape, seed=seed + 1)
    torch.testing.assert_close(equivariance(auxiliary, dominant, blocks), (dominant - expected).abs().mean())
    assert equivariance(auxiliary, expected, blocks).item() == pytest.approx(0, abs=1e-12)


@DENSE
def test_feature_dense_agrees_with_the_authors(shared, number: int) -> None:
    theirs = np.load(shared / f"reference/jcl_dense_{number}.npz")
    branches = {name: torch.tensor(theirs[name], requires_grad=True) for name in ("auxiliary", "dominant")}
    positives = by_position(torch.tensor(theirs["positions"]), float(theirs["threshold"]))
    loss = dense(**branches, positives=positives, temperature=float(theirs["temperature"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), theirs["loss"], rtol=1e-5)
    for name, branch in branches.items():
        grad = theirs[f"grad_{name}"]
        np.testing.assert_allclose(branch.grad, grad, atol=1e-4 * np.abs(grad).max())


@DENSE
def test_feature_equivariance_agrees_with_the_authors(shared, number: int) -> None:
    theirs = np.load(shared / f"reference/jcl_equivariant_{number}.npz")
    blocks = round(-math.log2(float(theirs["scale"])))
    loss = equivariance(torch.tensor(theirs["auxiliary"]), torch.tensor(theirs["dominant"]), blocks)
    np.testing.assert_allclose(loss.item(), theirs["loss"], rtol=1e-5)


def authors(shared) -> nn.Module:
    """Network and heads with the authors' weights."""
    weights = torch.load(shared / "reference/jcl_authors_checkpoint.pth", weights_only=True)["net"]
    net = UNet(spec(depth=4))
    net.load_state_dict({ours: value for key, value in weights.items() if (ours := our_name(key))}, strict=False)
    module = JCL(projection=8, head_norm=False).pretraining(net)
    heads = {
        "target_instance_projector": (module.auxiliary_instance, 2),
        "online_instance_projector": (module.dominant_instance, 2),
        "target_pixel_projector": (module.auxiliary_pixel, 0),
    }
    for theirs, (head, first) in heads.items():
        found = {tuple(key.split(".")[2:]): value for key, value in weights.items() if theirs in key}
        head.layers.load_state_dict({f"{int(index) - first}.{name}": value for (index, name), value in found.items()})
    return module.eval()


@torch.no_grad()
def test_feature_agrees_with_the_authors_network(shared) -> None:
    module = authors(shared)
    theirs = {name: torch.from_numpy(value) for name, value in np.load(shared / "reference/jcl_network.npz").items()}
    full_fixed, small_fixed = module._auxiliary(theirs["view_fixed_1"]), module._dominant(theirs["view_fixed_2"])
    full_free, small_free = module._auxiliary(theirs["view_spatial_1"]), module._dominant(theirs["view_spatial_2"])
    ours = {
        "aux_feature": full_fixed,
        "aux_pixel": module.auxiliary_pixel(full_fixed),
        "aux_instance": module.auxiliary_instance(full_free),
        "dom_feature": small_fixed["bottleneck"],
        "dom_pixel": module._decoded(small_fixed, theirs["view_fixed_2"]),
        "dom_instance": module.dominant_instance(module._decoded(small_free, theirs["view_spatial_2"])),
    }
    for name, value in ours.items():
        scale = theirs[name].abs().max()
        torch.testing.assert_close(value / scale, theirs[name] / scale, atol=1e-5, rtol=0, msg=name)


@BOTH
@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(16, 24, 16), (13, 9, 10)])
def test_feature_terms_are_the_parts(dims: int, blocks: int, size: tuple[int, ...]) -> None:
    """Also where no size is a multiple of anything."""
    method = JCL(instance=2, dense=3, equivariance=0.25, blocks=blocks, temperature=0.2, positives="position")
    net = UNet(spec(dims, depth=3)).eval()
    module = method.pretraining(net).eval()
    given = batch(method.needs(dims), size[:dims])
    terms = module(given)
    last = (*net.spec.encoder_names, *net.spec.decoder_names)[3 + blocks]
    grid = [slice(0, math.ceil(n / 8)) for n in size[:dims]]

    def both(view: Tensor) -> tuple[Tensor, Tensor]:
        image = smaller(padded(view, 8), blocks)
        maps = net.encode(image)
        maps |= net.decode(maps)
        return maps["bottleneck"], maps[last][(..., *grid)]

    near = (given.position[:, None] - given.position[None]).abs() < 0.1
    full, (deep, pixels) = net.encode(given.fixed[0])["bottleneck"], both(given.fixed[1])
    assert pixels.shape[2:] == full.shape[2:]
    instances = [
        module.auxiliary_instance(net.encode(given.free[0])["bottleneck"]),
        module.dominant_instance(both(given.free[1])[1]),
    ]
    expected = {
        "instance": 2 * contrastive(torch.stack(instances, dim=1), near.repeat(2, 2), 0.2),
        "dense": 3 * dense(module.auxiliary_pixel(full), pixels, near.repeat(2, 2), 0.2),
        "equivariance": 0.25 * equivariance(full, deep, blocks),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


@BOTH
def test_feature_both_branches_see_one_place(dims: int) -> None:
    """A bright corner stays in its corner at the scale of the other branch, whatever the size."""
    for length in (13, 16, 23):
        image = torch.zeros(1, 1, *[length] * dims)
        image[(..., *[slice(-4, None)] * dims)] = 1
        found = smaller(padded(image, 8), 1)
        expected = padded(image, 8)[(..., *[slice(None, None, 2)] * dims)]
        assert (found - expected).abs().mean() < 0.1


@BOTH
@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_feature_trains_what_it_hands_on(dims: int, blocks: int) -> None:
    method, net = JCL(blocks=blocks), UNet(spec(dims))
    sum(method.pretraining(net)(batch(method.needs(dims), (16, 16, 16)[:dims])).values()).backward()
    expected = ("enc1", "enc2", "bottleneck", "dec2", "dec1")[: 3 + blocks]
    assert method.hands_on(net.spec) == expected
    assert {name.split(".")[0] for name, value in net.named_parameters() if value.grad is not None} == set(expected)


def test_feature_decodes_no_further_than_needed() -> None:
    net = UNet(spec(depth=4))
    ran: list[str] = []
    for name in net.spec.map_names:
        net.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    JCL().pretraining(net)(batch(JCL().needs(2), (64, 64)))
    assert {name: ran.count(name) for name in ran} == {
        **dict.fromkeys(net.spec.encoder_names, 4),
        "dec4": 2,
        "dec3": 2,
    }


@pytest.mark.parametrize(
    ("left_out", "views", "passes"),
    [("instance", (2, 0), 2), ("dense", (2, 2), 4), ("equivariance", (2, 2), 4)],
)
def test_feature_no_weight_no_term(left_out: str, views: tuple[int, int], passes: int) -> None:
    method, net = JCL(**{left_out: 0}), UNet(spec())
    needs, ran = method.needs(2), []
    net.bottleneck.register_forward_hook(lambda *_: ran.append(None))
    terms = method.pretraining(net)(batch(needs, (16, 16)))
    assert set(terms) == {"instance", "dense", "equivariance"} - {left_out}
    assert (needs.fixed, needs.free) == views
    assert len(ran) == passes


def test_feature_only_images() -> None:
    method = JCL(dense=0, equivariance=0, positives="position")
    needs = method.needs(2)
    assert (needs.fixed, needs.free, needs.position, needs.superpixels) == (0, 2, True, None)
    module = method.pretraining(UNet(spec()))
    assert set(module(batch(needs, (16, 16)))) == {"instance"}
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {
        "stages",
        "auxiliary_instance",
        "dominant_instance",
    }


@BOTH
@pytest.mark.parametrize("images", [1, 3])
def test_feature_mixed_precision_looking_hard(dims: int, images: int) -> None:
    method = JCL(temperature=0.05)
    module = method.pretraining(UNet(spec(dims)))
    with torch.autocast("cpu", torch.bfloat16):
        terms = module(batch(method.needs(dims), (16, 16, 16)[:dims], images=images))
    sum(terms.values()).backward()
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    assert all(value.grad.isfinite().all() for value in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_feature_half_precision(dtype: torch.dtype) -> None:
    auxiliary, dominant = ((30 * random(4, 8, 4, 4, seed=seed)).to(dtype).requires_grad_() for seed in (0, 1))
    small = smaller(dominant.float(), 2).to(dtype)
    loss = dense(auxiliary, dominant, other_view(4), 0.05) + equivariance(auxiliary, small)
    loss.backward()
    assert loss.dtype == torch.float32
    assert auxiliary.grad.isfinite().all()
    assert dominant.grad.isfinite().all()


def test_feature_one_image_has_nothing_to_compare() -> None:
    module = JCL().pretraining(UNet(spec()))
    terms = module(batch(JCL().needs(2), (16, 16), images=1))
    assert [terms[name].item() for name in ("instance", "dense")] == pytest.approx([0, 0], abs=1e-6)
    assert terms["equivariance"] > 0


@SIZES
def test_gradcheck(size: tuple[int, ...]) -> None:
    branches = random(2, 3, *size).requires_grad_(), random(2, 3, *size, seed=1).requires_grad_()
    near = by_position(torch.tensor([0.1, 0.9]), 0.1)
    assert torch.autograd.gradcheck(lambda a, b: dense(a, b, near, 0.2), branches)
    small = smaller(branches[1].detach(), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: equivariance(a, b, 1), (branches[0], small))
    assert torch.autograd.gradcheck(lambda a: smaller(a, 2), branches[0])
