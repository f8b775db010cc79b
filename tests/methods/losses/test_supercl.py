from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from napari_medcl.data.superpixels import at_grid
from napari_medcl.errors import UserError
from napari_medcl.methods import SuperCL
from napari_medcl.methods.losses.contrast import by_label, contrastive, other_view, similarity
from napari_medcl.methods.losses.supercl import asp, ccl, igcp, ilcp, on_grid, weak_positives
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet
from tests.methods.batches import batch, regions

SIZES = pytest.mark.parametrize("size", [(4, 6), (3, 4, 2)])
FIXTURES = pytest.mark.parametrize("number", range(3))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def superpixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 5, shape, generator=torch.Generator().manual_seed(seed))


def literal_ilcp(view_1: Tensor, view_2: Tensor, ids: Tensor, stride: int, temperature: float) -> Tensor:
    losses = []
    for a, b, labels in zip(view_1.flatten(2), view_2.flatten(2), ids.flatten(1), strict=True):
        chosen = range(0, a.shape[1], stride)
        views = torch.stack([torch.stack([a[:, k], b[:, k]]) for k in chosen])
        losses.append(contrastive(views, by_label(labels[list(chosen)]), temperature))
    return torch.stack(losses).mean()


def literal_asp(feature: Tensor, ids: Tensor, normaliser: str) -> Tensor:
    average = feature.mean(1)
    pooled = torch.zeros_like(average)
    for image, value in np.ndindex(len(ids), 10):
        region = ids[image] == value
        if region.any():
            pooled[image][region] = average[image][region].sum() / (
                region.numel() if normaliser == "grid" else region.sum()
            )
    return pooled


def literal_ccl(likeness: Tensor) -> np.ndarray:
    links = np.zeros(likeness.shape)
    for i, row in enumerate(likeness.numpy()):
        others = [j for j in range(len(row)) if j != i]
        if others:
            links[i, max(others, key=lambda j: row[j])] = 1
    component = connected_components(links, directed=False)[1]
    return component[:, None] == component[None, :]


def spec(dims: int = 2, depth: int = 2) -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=4, depth=depth)


@SIZES
def test_smoke(size: tuple[int, ...]) -> None:
    f1, f2, ids = random(2, 3, *size), random(2, 3, *size, seed=1), superpixels(2, *size)
    assert ilcp(f1, f2, ids, stride=2).isfinite()
    assert igcp(random(2, 2, 4), asp(f1, ids), asp(f2, ids)).isfinite()


def test_exception() -> None:
    with pytest.raises(ValueError, match=r"superpixels \(2, 4, 5\) do not lie on the grid"):
        ilcp(random(2, 3, 4, 6), random(2, 3, 4, 6), superpixels(2, 4, 5))
    with pytest.raises(ValueError, match="do not lie on the grid"):
        asp(random(2, 3, 4, 6), superpixels(1, 4, 6))


def test_exception_too_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_medcl.methods.losses.supercl._MOST_PAIRS", 4 * 64**2)
    method = SuperCL(map="enc1", stride=2)
    given = batch(method.needs(2), (16, 16))
    with pytest.raises(UserError, match="set stride to 8 or more, or map to a coarser one"):
        method.pretraining(UNet(spec()))(given)
    SuperCL(map="enc1", stride=8).pretraining(UNet(spec()))(given)


@SIZES
def test_shapes(size: tuple[int, ...]) -> None:
    f1, ids = random(2, 3, *size), superpixels(2, *size)
    assert ilcp(f1, f1, ids).shape == ()
    assert asp(f1, ids).shape == (2, *size)
    assert weak_positives(asp(f1, ids), asp(f1, ids)).shape == (4, 4)
    assert ccl(random(3, 5, 5)).shape == (3, 5, 5)
    assert on_grid(superpixels(2, *[8 * n for n in size]), 4, torch.Size(size)).shape == (2, *size)


@SIZES
@pytest.mark.parametrize("stride", [1, 3, 16, 100])
def test_feature_ilcp_is_a_loop_over_images(size: tuple[int, ...], stride: int) -> None:
    f1, f2, ids = random(3, 5, *size), random(3, 5, *size, seed=1), superpixels(3, *size)
    torch.testing.assert_close(ilcp(f1, f2, ids, stride, 0.2), literal_ilcp(f1, f2, ids, stride, 0.2))


@SIZES
@pytest.mark.parametrize("normaliser", ["grid", "region"])
def test_feature_asp_is_a_loop_over_superpixels(size: tuple[int, ...], normaliser: str) -> None:
    feature, ids = random(3, 5, *size), superpixels(3, *size)
    expected = literal_asp(feature, ids, normaliser)
    torch.testing.assert_close(asp(feature, ids, normaliser), expected)
    offset = torch.tensor([0, 1000, -7]).view(-1, *[1] * len(size))
    torch.testing.assert_close(asp(feature, ids + offset, normaliser), expected)


@given(st.integers(1, 40), st.integers(0, 10_000), st.sampled_from([1, 3, 1000]))
@settings(max_examples=80, deadline=None)
def test_feature_ccl_finds_connected_components(count: int, seed: int, levels: int) -> None:
    likeness = torch.randint(0, levels, (count, count), generator=torch.Generator().manual_seed(seed)) / levels - 1
    np.testing.assert_array_equal(ccl(likeness), literal_ccl(likeness))


def test_feature_ccl_follows_long_chains() -> None:
    """Every map is most like the next one, so that all hang together over the longest path."""
    count = 100
    likeness = torch.zeros(count, count)
    likeness[range(count - 1), range(1, count)] = 1
    assert ccl(likeness).all()
    batched = torch.stack([likeness, torch.eye(count).roll(1, 0) + torch.eye(count).roll(-1, 0)])
    assert torch.equal(ccl(batched)[1], ccl(batched[1]))


def test_feature_weak_positives_keep_the_other_view() -> None:
    """Maps 0, 1 of the first view are twins, as are those of the second: only the other view links them."""
    asp_1, asp_2 = torch.tensor([[1.0, 0, 0], [1, 0.01, 0]]), torch.tensor([[0.0, 0, 1], [0, 0.01, 1]])
    expected = [[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1]]
    assert weak_positives(asp_1, asp_2).long().tolist() == expected


@FIXTURES
def test_feature_ilcp_agrees_with_the_authors(shared, number: int) -> None:
    theirs = np.load(shared / f"reference/supercl_ilcp_{number}.npz")
    views = [torch.tensor(theirs[f"view_{v}"], requires_grad=True) for v in (1, 2)]
    loss = ilcp(*views, torch.tensor(theirs["superpixels_1"]), int(theirs["stride"]), float(theirs["temperature"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), theirs["loss"], rtol=1e-5)
    for view, name in zip(views, ("grad_1", "grad_2"), strict=True):
        np.testing.assert_allclose(view.grad, theirs[name], atol=1e-4 * np.abs(theirs[name]).max())


@FIXTURES
def test_feature_igcp_agrees_with_the_authors(shared, number: int) -> None:
    theirs = np.load(shared / f"reference/supercl_igcp_{number}.npz")
    pooled = [asp(torch.tensor(theirs[f"feature_{v}"]), torch.tensor(theirs[f"superpixels_{v}"])) for v in (1, 2)]
    for ours, name in zip(pooled, ("asp_1", "asp_2"), strict=True):
        np.testing.assert_allclose(ours, theirs[name], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(similarity(torch.cat(pooled).flatten(1)), theirs["similarity"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weak_positives(*pooled), theirs["positive_mask"] > 0)
    instances = torch.tensor(theirs["instances"], requires_grad=True)
    loss = igcp(instances, *pooled, float(theirs["temperature"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), theirs["loss"], rtol=1e-5)
    np.testing.assert_allclose(instances.grad, theirs["grad"], atol=1e-4 * np.abs(theirs["grad"]).max())


def test_feature_ccl_agrees_with_the_authors(shared) -> None:
    theirs = np.load(shared / "reference/supercl_ccl.npz")
    np.testing.assert_array_equal(ccl(torch.tensor(theirs["similarity"])), theirs["component_mask"] > 0)


@pytest.mark.parametrize("size", [(16, 24), (13, 9), (8, 12, 5)])
def test_feature_on_grid_is_what_the_screen_shows(size: tuple[int, ...]) -> None:
    ids = regions(1, size, 3)
    shape = torch.Size([-(-n // 4) for n in size])
    np.testing.assert_array_equal(on_grid(ids, 4, shape)[0], at_grid(ids[0].numpy(), [4] * len(size)))


@pytest.mark.parametrize("dims", [2, 3])
def test_feature_terms_are_the_parts(dims: int) -> None:
    method = SuperCL(instance=2, intra=3, inter=0.25, stride=2, temperature=0.2, positives="position")
    net = UNet(spec(dims)).eval()
    module = method.pretraining(net).eval()
    given = batch(method.needs(dims), (16, 12, 8)[:dims])
    terms = module(given)
    f1, f2 = (net.encode(view)["bottleneck"] for view in given.fixed)
    instances = torch.stack([module.head(net.encode(view)["bottleneck"]) for view in given.free], dim=1)
    ids = on_grid(given.superpixels, 4, f1.shape[2:])
    near = (given.position[:, None] - given.position[None]).abs() < 0.1
    expected = {
        "instance": 2 * contrastive(instances, near.repeat(2, 2), 0.2),
        "intra": 3 * ilcp(f1, f2, ids, 2, 0.2),
        "inter": 0.25 * igcp(instances, asp(f1, ids), asp(f2, ids), 0.2),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize("left_out", ["instance", "intra", "inter"])
def test_feature_no_weight_no_term(left_out: str) -> None:
    method = SuperCL(**{left_out: 0})
    assert set(method.pretraining(UNet(spec()))(batch(method.needs(2), (16, 16)))) == {"instance", "intra", "inter"} - {
        left_out
    }


@pytest.mark.parametrize("positives", ["simclr", "position"])
def test_feature_baselines_need_two_free_views(positives: str) -> None:
    method = SuperCL(positives=positives, intra=0, inter=0)
    needs = method.needs(2)
    assert (needs.fixed, needs.free, needs.superpixels) == (0, 2, None)
    assert needs.position is (positives == "position")
    assert set(method.pretraining(UNet(spec()))(batch(needs, (16, 16)))) == {"instance"}


def test_feature_weak_labels_carry_no_gradient() -> None:
    """Without the intra term the fixed views only choose positives, and cost no backward pass."""
    for method, expected in ((SuperCL(intra=0), [False, False, True, True]), (SuperCL(), [True] * 4)):
        net = UNet(spec())
        carried: list[bool] = []
        net.bottleneck.register_forward_hook(lambda _, __, out, carried=carried: carried.append(out.requires_grad))
        module = method.pretraining(net)
        given = batch(method.needs(2), (16, 16))
        module(given)
        assert carried == expected
        with torch.no_grad():
            assert not any(term.requires_grad for term in module(given).values())


def test_feature_a_copy_is_on_its_own() -> None:
    method = SuperCL()
    module = method.pretraining(UNet(spec()))
    given = batch(method.needs(2), (16, 16))
    other = copy.deepcopy(module)
    before = sum(module.eval()(given).values())
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    assert sum(module(given).values()) == before
    assert sum(other.eval()(given).values()) != before


@SIZES
def test_gradcheck(size: tuple[int, ...]) -> None:
    f1, f2 = random(2, 3, *size).requires_grad_(), random(2, 3, *size, seed=1).requires_grad_()
    ids = superpixels(2, *size)
    assert torch.autograd.gradcheck(lambda a, b: ilcp(a, b, ids, 3, 0.2), (f1, f2))
    assert torch.autograd.gradcheck(lambda a: asp(a, ids, "region"), f1)
    pooled = asp(f1.detach(), ids), asp(f2.detach(), ids)
    assert torch.autograd.gradcheck(lambda z: igcp(z, *pooled, 0.2), random(2, 2, 4).requires_grad_())


def test_feature_one_image_and_other_view() -> None:
    pooled = torch.rand(1, 4, 4)
    assert torch.equal(weak_positives(pooled, pooled), torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(other_view(1), torch.ones(2, 2, dtype=torch.bool))
