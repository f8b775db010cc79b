from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from napari_medcl.data.volume import IGNORE
from napari_medcl.methods import PDCR
from napari_medcl.methods.grid import centres, regular_grid
from napari_medcl.methods.losses.patches import affinity, composition
from napari_medcl.methods.losses.pdcr import dragsaw
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet
from tests.methods.batches import batch

FIXTURES = pytest.mark.parametrize("number", range(3))
BOTH = pytest.mark.parametrize("dims", [2, 3])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def likeness(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def literal_dragsaw(
    features: Tensor, a: Tensor, d: Tensor, temperature: float, others: Tensor, pairs: Tensor
) -> Tensor:
    """Loops over images and pairs."""
    losses = []
    for b, i, j in pairs.nonzero().tolist():
        s = [
            (functional.cosine_similarity(features[b, :, i], others[b, :, k], dim=0) - 1) / temperature
            for k in range(others.shape[2])
        ]
        apart = sum(torch.exp(s[k] * d[b, i, k]) for k in range(others.shape[2]) if pairs[b, i, k])
        losses.append(-torch.log(torch.exp(s[j] * a[b, i, j]) / apart))
    return torch.stack(losses).mean()


def spec(dims: int = 2, depth: int = 2, **more: object) -> NetworkSpec:
    return NetworkSpec(in_channels=1, classes=3, spatial_dims=dims, width=4, depth=depth, **more)


def size(dims: int) -> tuple[int, ...]:
    return (36, 24, 20)[:dims]


def halves(dims: int, images: int = 2) -> Tensor:
    """Labels of class 1 on one side, 2 on the other."""
    labels = torch.ones(images, *size(dims), dtype=torch.long)
    labels[:, size(dims)[0] // 2 :] = 2
    return labels


def all_maps(net: UNet, image: Tensor) -> dict[str, Tensor]:
    maps = net.encode(image)
    return {**maps, **net.decode(maps)}


@BOTH
def test_smoke(dims: int) -> None:
    net = UNet(spec(dims))
    terms = PDCR().finetuning(net)(all_maps(net, torch.randn(2, 1, *size(dims))), halves(dims))
    assert set(terms) == {"enc2", "bottleneck", "dec2", "across"}
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())


def test_exception() -> None:
    with pytest.raises(ValueError, match=r"must be \(2, 5, 5\), not \(2, 5, 4\) and \(2, 5, 5\)"):
        dragsaw(random(2, 3, 5), likeness(2, 5, 4), likeness(2, 5, 5), 1)
    with pytest.raises(ValueError, match="temperature must be positive"):
        dragsaw(random(2, 3, 5), likeness(2, 5, 5), likeness(2, 5, 5), 0)


@FIXTURES
def test_feature_agrees_with_the_authors(shared, number: int) -> None:
    theirs = np.load(shared / f"reference/pdcr_{number}.npz")
    features = torch.tensor(theirs["embeddings"], requires_grad=True)
    a, d = torch.tensor(theirs["affinity"]), torch.tensor(theirs["divergence"])
    loss = dragsaw(features, a, d, float(theirs["temperature"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), theirs["loss"], rtol=1e-5)
    np.testing.assert_allclose(features.grad, theirs["grad"], atol=1e-5 * np.abs(theirs["grad"]).max())


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1])
@pytest.mark.parametrize("left_out", [False, True])
def test_feature_the_loss_is_a_loop_over_pairs(temperature: float, left_out: bool) -> None:
    one, other = random(2, 4, 6), random(2, 4, 5, seed=1)
    for second, columns in ((one, None), (other, other)):
        shape = (2, 6, second.shape[2])
        a, d = likeness(*shape), likeness(*shape, seed=1)
        pairs = torch.ones(shape, dtype=torch.bool)
        if left_out:
            pairs[0, 1], pairs[1, :, 2] = False, False
        found = dragsaw(one, a, d, temperature, others=columns, pairs=pairs if left_out else None)
        torch.testing.assert_close(found, literal_dragsaw(one, a, d, temperature, second, pairs))


def test_feature_what_is_left_out_is_as_if_it_were_not_there() -> None:
    features, a = random(1, 4, 6), likeness(1, 6, 6)
    kept = torch.tensor([0, 2, 5])
    pairs = torch.zeros(6, 6, dtype=torch.bool)
    pairs[kept[:, None], kept] = True
    part = a[:, kept][..., kept]
    features.requires_grad_()
    loss = dragsaw(features, a, 1 - a, 0.5, pairs=pairs[None])
    torch.testing.assert_close(loss, dragsaw(features[..., kept], part, 1 - part, 0.5))
    loss.backward()
    assert torch.equal(features.grad.any(1)[0], pairs.any(1))


def test_feature_without_any_pair_nothing_is_learned() -> None:
    features = random(2, 4, 6).requires_grad_()
    loss = dragsaw(features, likeness(2, 6, 6), likeness(2, 6, 6), 1, pairs=torch.zeros(2, 6, 6, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert not features.grad.any()


@given(st.integers(1, 3), st.integers(1, 9), st.floats(0.05, 2), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_feature_length_does_not_matter(images: int, count: int, temperature: float, seed: int) -> None:
    features, a = random(images, 5, count, seed=seed), likeness(images, count, count, seed=seed)
    lengths = 0.1 + likeness(images, 1, count, seed=seed + 1)
    loss = dragsaw(features, a, 1 - a, temperature)
    assert loss >= math.log(count) - 2 / temperature
    torch.testing.assert_close(dragsaw(lengths * features, a, 1 - a, temperature), loss)
    order = torch.randperm(count)
    shuffled = a[:, order][..., order]
    torch.testing.assert_close(dragsaw(features[..., order], shuffled, 1 - shuffled, temperature), loss)


def test_gradcheck() -> None:
    one, other = random(2, 3, 5).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_()
    inside, across = likeness(2, 5, 5), likeness(2, 5, 4)
    pairs = likeness(2, 5, 4, seed=2) < 0.7
    assert torch.autograd.gradcheck(lambda f: dragsaw(f, inside, 1 - inside, 0.5), one)
    assert torch.autograd.gradcheck(lambda f, g: dragsaw(f, across, 1 - across, 0.5, others=g), (one, other))
    assert torch.autograd.gradcheck(lambda f, g: dragsaw(f, across, 1 - across, 1, others=g, pairs=pairs), (one, other))


@BOTH
def test_feature_terms_are_the_parts(dims: int) -> None:
    method = PDCR(encoder=2, decoder=3, across=0.5, windows=(5, 8), maps=("enc1", "dec1"), pair=("enc2", "dec2"))
    net = UNet(spec(dims)).eval()
    labels, tau = batch(method.needs(dims), size(dims)).superpixels % 3, 0.5 if dims == 3 else 1
    labels[0, :9] = IGNORE
    maps = all_maps(net, torch.randn(4, 1, *size(dims)))
    module = method.finetuning(net)
    assert {name.split(".")[1] for name, _ in module.named_parameters()} == {"enc2", "dec2"}

    def at(name: str, window: int) -> tuple[Tensor, Tensor]:
        stride = net.spec.stride(name)
        grid = regular_grid([-(-n // stride) for n in size(dims)], {1: 128, 2: 64}[stride])
        chosen = maps[name][(..., *np.ix_(*grid))].flatten(2)
        return chosen, composition(labels, centres(grid, stride), window, 3)

    def loss(one: str, other: str, window: int, bridges: tuple[object, object]) -> Tensor:
        (f, r), (g, q) = at(one, window), at(other, window)
        pairs = (r.sum(-1) > 0)[:, :, None] & (q.sum(-1) > 0)[:, None]
        assert not pairs.all()
        a = affinity(r, q)
        return dragsaw(bridges[0](f), a, 1 - a, tau, others=bridges[1](g), pairs=pairs)

    plain, bridges = (lambda x: x,) * 2, (module.bridges["enc2"], module.bridges["dec2"])
    expected = {
        "enc1": 2 * sum(loss("enc1", "enc1", window, plain) for window in (5, 8)) / 2,
        "dec1": 3 * sum(loss("dec1", "dec1", window, plain) for window in (5, 8)) / 2,
        "across": 0.5 * sum(loss("enc2", "dec2", window, bridges) for window in (5, 8)) / 2,
    }
    found = module(maps, labels)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("left_out", ["encoder", "decoder", "across"])
def test_feature_no_weight_no_term(left_out: str) -> None:
    terms = {"encoder": {"enc2", "bottleneck"}, "decoder": {"dec2"}, "across": {"across"}}
    net = UNet(spec())
    module = PDCR(**{left_out: 0}).finetuning(net)
    found = module(all_maps(net, torch.randn(2, 1, 36, 24)), halves(2))
    assert set(found) == set.union(*terms.values()) - terms[left_out]
    assert bool(module.bridges) is (left_out != "across")


def test_feature_owns_its_parameters_alone() -> None:
    net = UNet(spec())
    theirs = {id(value) for value in net.parameters()}
    assert not any(id(value) in theirs for value in PDCR().finetuning(net).parameters())


def cosines(feature: Tensor, labels: Tensor, stride: int) -> tuple[float, float]:
    """Mean cosine similarity of patches of one class, and of patches of two."""
    grid = regular_grid(feature.shape[2:], 64)
    made_of = composition(labels, centres(grid, stride), 3, 3)
    a = affinity(made_of)
    rows = functional.normalize(feature[(..., *np.ix_(*grid))].flatten(2), dim=1)
    s = rows.mT @ rows
    return s[a > 0.99].mean().item(), s[a < 0.01].mean().item()


def test_a_step_draws_like_patches_together_and_unlike_ones_apart() -> None:
    made_of = torch.eye(3)[[0, 0, 0, 1, 1, 1, 2, 2]][None].double()
    a = affinity(made_of)
    features = random(1, 6, 8).requires_grad_()
    for temperature in (0.5, 1):
        before = functional.normalize(features.detach(), dim=1)
        (grad,) = torch.autograd.grad(dragsaw(features, a, 1 - a, temperature), features)
        after = functional.normalize(features.detach() - 0.1 * grad, dim=1)
        change = after.mT @ after - before.mT @ before
        assert change[a > 0.99].mean() > 0
        assert change[a < 0.01].mean() < 0


@BOTH
def test_steps_of_the_network_do_so_too(dims: int) -> None:
    """In the maps of the encoder and the decoder, on a picture whose halves can be told apart."""
    torch.manual_seed(0)
    net = UNet(spec(dims))
    module = PDCR(windows=(3,), maps=("enc2", "dec2"), decoder=0.1).finetuning(net)
    labels = halves(dims)
    image = 2 * labels[:, None] - 3 + 0.5 * torch.randn(2, 1, *size(dims))
    optimiser = torch.optim.SGD([*net.parameters(), *module.parameters()], lr=0.1)
    seen = []
    for _ in range(6):
        maps = all_maps(net, image)
        seen.append([cosines(maps[name].detach(), labels, 2) for name in ("enc2", "dec2")])
        optimiser.zero_grad()
        sum(module(maps, labels).values()).backward()
        optimiser.step()
    for (like, unlike), (liker, unliker) in zip(seen[0], seen[-1], strict=True):
        assert liker > like + 0.01
        assert unliker < unlike - 0.005


@BOTH
@pytest.mark.parametrize("kind", ["one class", "empty", "one image", "ignored", "half ignored", "odd size"])
def test_awkward_labels_stay_finite(dims: int, kind: str) -> None:
    shape = (15, 9, 10)[:dims] if kind == "odd size" else size(dims)
    labels = torch.randint(0, 3, (1 if kind == "one image" else 2, *shape))
    if kind in ("one class", "empty", "ignored"):
        labels.fill_({"one class": 2, "empty": 0, "ignored": IGNORE}[kind])
    if kind == "half ignored":
        labels[0] = IGNORE
    net = UNet(spec(dims))
    module = PDCR(windows=(5, 9)).finetuning(net)
    terms = module(all_maps(net, torch.randn(len(labels), 1, *shape)), labels)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(value.grad.isfinite().all() for value in module.parameters())
    assert kind != "ignored" or not any(terms.values())


@pytest.mark.parametrize("temperature", [None, 0.05])
def test_mixed_precision_stays_finite(temperature: float | None) -> None:
    net = UNet(spec())
    module = PDCR(temperature=temperature).finetuning(net)
    with torch.autocast("cpu", torch.bfloat16):
        terms = module(all_maps(net, torch.randn(2, 1, *size(2))), halves(2))
    sum(terms.values()).backward()
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert all(value.grad.isfinite().all() for value in [*net.enc1.parameters(), *module.parameters()])


@BOTH
def test_feature_pretraining_takes_superpixels_for_classes(dims: int) -> None:
    """The names of the superpixels do not matter; the weights are relative to the largest."""
    method = PDCR(windows=(5,))
    net = UNet(spec(dims)).eval()
    module = method.pretraining(net)
    given = batch(method.needs(dims), size(dims))
    terms = module(given)
    _, classes = given.superpixels.unique(return_inverse=True)
    expected = module.comparison(all_maps(net, given.fixed[0]), classes, int(classes.max()) + 1)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value / 0.1)
    given.superpixels.copy_(7 * given.superpixels + 3)
    for name, value in module(given).items():
        torch.testing.assert_close(value, terms[name])
