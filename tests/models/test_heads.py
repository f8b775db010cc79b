from __future__ import annotations

import pytest
import torch

from napari_medcl.models.heads import InstanceHead

BOTH = pytest.mark.parametrize("dims", [2, 3])


@BOTH
def test_shapes(dims: int) -> None:
    assert InstanceHead(6, 4, 5)(torch.randn(3, 6, *[2] * dims)).shape == (3, 5)


@BOTH
def test_feature_is_the_average_of_the_map(dims: int) -> None:
    head = InstanceHead(6, 4, 5)
    feature = torch.randn(3, 6, *[4] * dims)
    average = feature.mean(tuple(range(2, dims + 2)), keepdim=True)
    torch.testing.assert_close(head(feature), head(average))


def test_gradcheck() -> None:
    head = InstanceHead(3, 4, 2).double()
    assert torch.autograd.gradcheck(head, torch.randn(2, 3, 2, 2, dtype=torch.double, requires_grad=True))
