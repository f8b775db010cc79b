from __future__ import annotations

import pytest
import torch

from napari_medcl.models.heads import InstanceHead, PixelHead

BOTH = pytest.mark.parametrize("dims", [2, 3])


@BOTH
def test_shapes(dims: int) -> None:
    assert InstanceHead(6, 4, 5)(torch.randn(3, 6, *[2] * dims)).shape == (3, 5)
    assert PixelHead(dims, 6, 5)(torch.randn(3, 6, *[2] * dims)).shape == (3, 5, *[2] * dims)


@BOTH
def test_feature_is_the_average_of_the_map(dims: int) -> None:
    head = InstanceHead(6, 4, 5)
    feature = torch.randn(3, 6, *[4] * dims)
    average = feature.mean(tuple(range(2, dims + 2)), keepdim=True)
    torch.testing.assert_close(head(feature), head(average))


@BOTH
def test_feature_pixels_see_two_pixels_far(dims: int) -> None:
    head = PixelHead(dims, 2, 3).eval()
    feature = torch.randn(1, 2, *[9] * dims, requires_grad=True)
    head(feature)[(0, 0, *[4] * dims)].backward()
    seen = torch.zeros(9)
    seen[2:7] = 1
    assert torch.equal(feature.grad.abs().sum((0, 1, *range(3, dims + 2))) > 0, seen > 0)


@BOTH
def test_gradcheck_pixels(dims: int) -> None:
    head = PixelHead(dims, 1, 2).double()
    assert torch.autograd.gradcheck(head, torch.randn(2, 1, *[2] * dims, dtype=torch.double, requires_grad=True))


def test_a_norm_tells_images_apart_that_have_nearly_all_in_common() -> None:
    """In a new network the maps of all images are alike, and so would be the vectors that the loss compares."""
    feature = 1 + 0.01 * torch.randn(16, 32, 2, 2, generator=torch.Generator().manual_seed(0))

    def likeness(head: InstanceHead) -> float:
        vectors = torch.nn.functional.normalize(head(feature), dim=1)
        return float((vectors @ vectors.T)[~torch.eye(16, dtype=torch.bool)].mean().detach())

    torch.manual_seed(0)
    assert likeness(InstanceHead(32, 32, 16)) > 0.99
    assert likeness(InstanceHead(32, 32, 16, norm=True)) < 0.8


def test_one_image_alone_is_normalised_as_in_evaluation() -> None:
    head, feature = InstanceHead(3, 4, 2, norm=True), torch.randn(1, 3, 2, 2)
    head(torch.randn(8, 3, 2, 2))
    torch.testing.assert_close(head(feature), head.eval()(feature))


@pytest.mark.parametrize("norm", [False, True])
def test_gradcheck(norm: bool) -> None:
    head = InstanceHead(3, 4, 2, norm=norm).double()
    assert torch.autograd.gradcheck(head, torch.randn(2, 3, 2, 2, dtype=torch.double, requires_grad=True))
