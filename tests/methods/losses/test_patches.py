from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_medcl.data.volume import IGNORE
from napari_medcl.methods.grid import regular_grid
from napari_medcl.methods.losses.patches import affinity, composition

FIXTURES = pytest.mark.parametrize("number", range(3))
SIZES = pytest.mark.parametrize("size", [(13, 18), (7, 10, 9)])


def random_labels(*shape: int, classes: int = 4, seed: int = 0, ignored: bool = False) -> Tensor:
    """Coarse blocks of classes with some speckle; a corner of the first image is not annotated if asked for."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, [shape[0], *[-(-n // 4) for n in shape[1:]]], generator=random)
    for axis, size in enumerate(shape[1:], start=1):
        coarse = coarse.repeat_interleave(4, axis).narrow(axis, 0, size)
    speckle = torch.randint(0, classes, shape, generator=random)
    labels = torch.where(torch.rand(shape, generator=random) < 0.2, speckle, coarse)
    if ignored:
        labels[(0, *[slice(0, 6)] * (len(shape) - 1))] = IGNORE
    return labels


def literal_composition(labels: Tensor, axes: list[list[int]], window: int, classes: int) -> Tensor:
    """A loop over images, windows and classes."""
    rows = []
    for image in labels.numpy():
        for centre in itertools.product(*axes):
            begins = [c - window // 2 for c in centre]
            inside = image[tuple(slice(max(b, 0), max(b + window, 0)) for b in begins)]
            counts = [int((inside == k).sum()) for k in range(classes)]
            rows.append([count / max(sum(counts), 1) for count in counts])
    return torch.tensor(rows).view(len(labels), -1, classes)


def literal_affinity(first: Tensor, second: Tensor) -> Tensor:
    found = torch.zeros(len(first), first.shape[1], second.shape[1])
    for b, i, j in np.ndindex(*found.shape):
        found[b, i, j] = 1 - sum(abs(p - q) for p, q in zip(first[b, i], second[b, j], strict=True)) / 2
    return found


def test_exception() -> None:
    with pytest.raises(ValueError, match=r"centres has 1 axes, the labels \(1, 4, 4\) have 2"):
        composition(random_labels(1, 4, 4), [(0, 1)], 3, 4)


@FIXTURES
def test_feature_agrees_with_the_reference(shared, number: int) -> None:
    theirs = np.load(shared / f"reference/pdcr_composition_{number}.npz")
    axes = [np.unique(axis).tolist() for axis in theirs["centres"].T]
    assert list(itertools.product(*axes)) == [tuple(centre) for centre in theirs["centres"].tolist()]
    found = composition(torch.tensor(theirs["labels"]), axes, int(theirs["window"]), int(theirs["classes"]))
    np.testing.assert_allclose(found, theirs["composition"], atol=1e-6)
    np.testing.assert_allclose(affinity(found), theirs["affinity"], atol=1e-6)


@SIZES
@pytest.mark.parametrize("window", [1, 4, 5, 9, 40])
@pytest.mark.parametrize("ignored", [False, True])
def test_feature_composition_is_a_loop_over_windows(size: tuple[int, ...], window: int, ignored: bool) -> None:
    labels = random_labels(3, *size, ignored=ignored)
    axes = [[0, 2, 3, size[0] - 1], [5, 1], [4, 8]][: len(size)]
    found = composition(labels, axes, window, 4)
    assert found.shape == (3, math.prod(map(len, axes)), 4)
    torch.testing.assert_close(found, literal_composition(labels, axes, window, 4))


def test_feature_windows_past_the_border_are_empty() -> None:
    found = composition(torch.ones(1, 8, 8, dtype=torch.long), [(0, 20), (4,)], 5, 3)
    assert found.tolist() == [[[0, 1, 0], [0, 0, 0]]]


def test_feature_what_nobody_annotated_counts_for_nothing() -> None:
    labels = random_labels(1, 12, 12)
    labels[:, :6] = IGNORE
    found = composition(labels, [(1, 5, 9), (6,)], 4, 4)
    assert found[0, 0].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(found[0, 1:], literal_composition(labels, [[5, 9], [6]], 4, 4)[0])
    torch.testing.assert_close(found[0, 1:].sum(-1), torch.ones(2))


def test_feature_superpixels_may_be_more_than_a_mask_can_name() -> None:
    labels = torch.arange(600).view(1, 20, 30)
    found = composition(labels, [(8, 10), (15, 20)], 3, 600)
    torch.testing.assert_close(found, literal_composition(labels, [[8, 10], [15, 20]], 3, 600))
    assert labels[0, 8, 15] == IGNORE
    assert found[0, 0, IGNORE].item() == pytest.approx(1 / 9)


def test_feature_composition_is_exact_under_autocast() -> None:
    labels, axes = random_labels(1, 40, 40), [(10, 20), (20, 30)]
    with torch.autocast("cpu", torch.bfloat16):
        found = composition(labels, axes, 31, 4)
    assert torch.equal(found, composition(labels, axes, 31, 4))


@given(st.integers(2, 3), st.integers(1, 12), st.integers(1, 5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_feature_compositions_and_affinities_are_fractions(dims: int, window: int, classes: int, seed: int) -> None:
    labels = random_labels(2, *(9, 11, 6)[:dims], classes=classes, seed=seed)
    grid = regular_grid(labels.shape[1:], 20)
    made_of = composition(labels, grid, window, classes)
    torch.testing.assert_close(made_of.sum(-1), torch.ones(made_of.shape[:2]))
    assert made_of.min() >= 0
    alike = affinity(made_of)
    assert alike.min() >= 0
    assert alike.max() <= 1
    assert torch.equal(alike, alike.mT)
    assert torch.equal(alike.diagonal(dim1=1, dim2=2), torch.ones(made_of.shape[:2]))
    torch.testing.assert_close(alike, literal_affinity(made_of, made_of))


def test_feature_affinity_of_two_sets() -> None:
    first, second = torch.rand(2, 5, 3).softmax(-1), torch.rand(2, 4, 3).softmax(-1)
    torch.testing.assert_close(affinity(first, second), literal_affinity(first, second))
    nothing_in_common = affinity(torch.tensor([[[1.0, 0, 0]]]), torch.tensor([[[0, 0.3, 0.7]]]))
    assert nothing_in_common.item() == pytest.approx(0)
