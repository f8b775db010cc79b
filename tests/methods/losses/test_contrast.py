from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_medcl.methods.losses.contrast import by_label, by_position, contrastive, other_view, similarity

HOWS = ["simclr", "position", "label", "mask"]


def literal(views: Tensor, positives: Tensor, temperature: float, base: float = 0.07) -> float:
    """The formula, row by row."""
    images = len(views)
    rows = [views[i, v].double() for v in range(2) for i in range(images)]

    def logit(i: int, j: int) -> float:
        return float(rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm())) / temperature

    total = 0.0
    for i in range(2 * images):
        others = [j for j in range(2 * images) if j != i]
        chosen = [j for j in others if positives[i, j]]
        if chosen:
            bottom = math.log(sum(math.exp(logit(i, j)) for j in others))
            total -= temperature / base * sum(logit(i, j) - bottom for j in chosen) / len(chosen)
    return total / (2 * images)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_smoke() -> None:
    assert contrastive(random(4, 2, 8), other_view(4), 0.1).item() > 0


def test_exception() -> None:
    with pytest.raises(ValueError, match="views must be"):
        contrastive(random(4, 3, 8), other_view(4), 0.1)
    with pytest.raises(ValueError, match=r"positives must be bool \(..., 8, 8\)"):
        contrastive(random(4, 2, 8), other_view(3), 0.1)
    with pytest.raises(ValueError, match="positives must be bool"):
        contrastive(random(4, 2, 8), other_view(4).float(), 0.1)
    with pytest.raises(ValueError, match="temperature must be positive"):
        contrastive(random(4, 2, 8), other_view(4), 0.0)


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3)])
def test_shapes(lead: tuple[int, ...]) -> None:
    views, labels = random(*lead, 4, 2, 8), torch.randint(0, 2, (*lead, 4))
    losses = contrastive(views, by_label(labels), 0.1)
    assert losses.shape == lead
    alone = [contrastive(v, by_label(p), 0.1) for v, p in zip(views.view(-1, 4, 2, 8), labels.view(-1, 4), strict=True)]
    torch.testing.assert_close(losses.flatten(), torch.stack(alone))
    torch.testing.assert_close(contrastive(views, other_view(4), 0.1).shape, torch.Size(lead))


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.05, 2), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_feature_is_the_formula(images: int, length: int, temperature: float, seed: int) -> None:
    views = random(images, 2, length, seed=seed, dtype=torch.double)
    mask = random(2 * images, 2 * images, seed=seed + 1) > 0.5
    expected = literal(views, mask, temperature)
    assert contrastive(views, mask, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("how", HOWS)
def test_feature_agrees_with_the_authors(shared, how: str, number: int) -> None:
    theirs = np.load(shared / f"reference/supcon_{how}_{number}.npz")
    views = torch.tensor(theirs["views"], requires_grad=True)
    positives = {
        "simclr": other_view(len(views)),
        "position": by_position(torch.tensor(theirs["positions"]), float(theirs["threshold"])),
        "label": by_label(torch.tensor(theirs["labels"])),
        "mask": torch.tensor(theirs["mask"]) > 0,
    }[how]
    loss = contrastive(views, positives, float(theirs["temperature"]), float(theirs["base_temperature"]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), theirs["loss"], rtol=1e-5)
    np.testing.assert_allclose(views.grad, theirs["grad"], atol=1e-4 * np.abs(theirs["grad"]).max())


def test_feature_positives() -> None:
    assert other_view(3).long().tolist() == (torch.eye(3).repeat(2, 2)).long().tolist()
    near = by_position(torch.tensor([0.1, 0.15, 0.5]), 0.1)
    assert near[0].tolist() == [True, True, False] * 2
    assert near[5].tolist() == [False, False, True] * 2
    assert by_label(torch.tensor([7, 9, 7]))[0].tolist() == [True, False, True] * 2


def test_feature_no_positive_adds_nothing() -> None:
    views = random(3, 2, 4).requires_grad_()
    none = torch.zeros(6, 6, dtype=torch.bool)
    loss = contrastive(views, none, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert not views.grad.any()
    one = none.clone()
    one[0, 3] = True
    assert contrastive(views, one, 0.1).item() == pytest.approx(literal(views.detach(), one, 0.1), rel=1e-5)
    assert torch.equal(contrastive(views, one | torch.eye(6, dtype=torch.bool), 0.1), contrastive(views, one, 0.1))


def test_feature_one_image_costs_nothing() -> None:
    assert contrastive(random(1, 2, 4), other_view(1), 0.1).item() == pytest.approx(0, abs=1e-6)


def test_feature_same_position_everywhere() -> None:
    views, positions = random(4, 2, 8), torch.full((4,), 0.5)
    everyone = torch.ones(8, 8, dtype=torch.bool)
    assert torch.equal(by_position(positions, 0.1), everyone)
    assert contrastive(views, everyone, 0.1).item() == pytest.approx(literal(views, everyone, 0.1), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_feature_half_precision(dtype: torch.dtype) -> None:
    views = (50 * random(8, 2, 32)).to(dtype)
    views[0, 0] = views[1, 1]
    views = views.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive(views, other_view(8), 0.05)
    loss.backward()
    assert loss.dtype == torch.float32
    assert views.grad.isfinite().all()
    assert loss.item() == pytest.approx(literal(views.detach(), other_view(8), 0.05), rel=1e-4)


def test_feature_null_vectors() -> None:
    views = random(3, 2, 4)
    views[1] = 0
    views.requires_grad_()
    loss = contrastive(views, other_view(3), 0.05)
    loss.backward()
    assert loss.isfinite()
    assert views.grad.isfinite().all()
    assert not views.grad[1].any(), "a vector without direction would get a gradient without bound"
    assert not contrastive(torch.zeros(3, 2, 4), other_view(3), 0.1).isnan()


def test_feature_similarity_is_cosine() -> None:
    maps = random(2, 5, 7)
    expected = torch.nn.functional.cosine_similarity(maps[:, :, None], maps[:, None], dim=-1)
    torch.testing.assert_close(similarity(maps), expected)


@pytest.mark.parametrize("how", HOWS)
def test_gradcheck(how: str) -> None:
    views = random(2, 3, 2, 4, dtype=torch.double).requires_grad_()
    positives = {
        "simclr": other_view(3),
        "position": by_position(torch.tensor([0.1, 0.15, 0.9]), 0.1),
        "label": by_label(torch.tensor([[1, 2, 1], [1, 1, 1]])),
        "mask": random(6, 6) > 0,
    }[how]
    assert torch.autograd.gradcheck(lambda v: contrastive(v, positives, 0.2), views)


@pytest.mark.parametrize("slices", [10, 20, 30, 70])
def test_places_that_differ_by_the_threshold_are_not_alike_however_they_are_rounded(slices: int) -> None:
    places = torch.arange(1, slices + 1) / slices
    alike = by_position(places, 0.1)[:slices, :slices]
    apart = (torch.arange(slices)[:, None] - torch.arange(slices)).abs()
    assert alike.equal(10 * apart < slices)
