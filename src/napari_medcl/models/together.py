"""The batch of all processes that train together: each holds an equal part of it, one after the other.

Every process computes a loss of which the mean over the processes is that of the whole batch, so that the mean of
their gradients is the gradient of the whole. What compares images with each other gathers them first. A process that
trains alone holds the whole batch, and gets back what it gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import distributed
from torch.autograd import Function

if TYPE_CHECKING:
    from torch import Tensor


def processes() -> int:
    """How many train together."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if processes() > 1 else 0


def summed(tensor: Tensor) -> Tensor:
    """The sum over the processes, with gradient."""
    return tensor if processes() == 1 else cast("Tensor", _Sum.apply(tensor))  # type: ignore[no-untyped-call]


def gathered(tensor: Tensor) -> Tensor:
    """The rows (B, …) of every process as those of the whole batch, with gradient; in single precision at least."""
    if processes() == 1:
        return tensor
    if tensor.is_floating_point():
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    none = torch.zeros_like(tensor)
    return summed(torch.cat([tensor if index == rank() else none for index in range(processes())]))


def share(count: Tensor) -> Tensor:
    """What a sum over a part of the batch is divided by to count as a mean over `count` things in all parts."""
    return summed(count).clamp_min(1) / processes()


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Sum.apply(gradients[0])  # type: ignore[no-untyped-call]
