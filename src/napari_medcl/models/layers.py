"""Layers by the number of dimensions, and those that act on the batch of all processes that train together."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_medcl.models.together import gathered, processes, rank, summed

if TYPE_CHECKING:
    from torch import Tensor


class Conv3d(nn.Conv3d):
    """A 3D convolution that computes maps of two slices in float32 on the CPU.

    In bfloat16 the gradient of its weights reads memory there that nobody wrote (torch 2.13, processors with AVX-512
    BF16 and without AMX): it is not finite, or wrong without a word.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv3d`."""
        if x.shape[2] != 2 or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def mend_convolutions(module: nn.Module) -> None:
    """Makes the 3D convolutions of a module `Conv3d`; its state keeps its names."""
    for layer in module.modules():
        if type(layer) is nn.Conv3d:
            layer.__class__ = Conv3d


CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class VectorNorm(nn.BatchNorm1d):
    """Batch norm of vectors (B, C). One alone has no statistics of its own and is taken as in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of the same shape."""
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def fuse(module: nn.Module) -> None:
    """Takes the batch norms behind convolutions into their weights, for evaluation: the same results, sooner."""
    for layers in [layer for layer in module.modules() if isinstance(layer, nn.Sequential)]:
        for index, (conv, norm) in enumerate(pairwise(layers)):
            if isinstance(conv, (nn.Conv2d, nn.Conv3d)) and isinstance(norm, _BatchNorm) and not norm.training:
                layers[index], layers[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def over_processes(module: nn.Module) -> None:
    """Makes the layers of a module that depend on the batch see that of all processes; its state keeps its names."""
    if processes() == 1:
        return
    for layer in module.modules():
        for kind, joined in _JOINED.items():
            if type(layer) is kind:
                layer.__class__ = joined


class _JoinedBatchNorm(_BatchNorm):
    """Batch norm with the mean and the variance of all processes, which torch has for CUDA only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, variance, count = _statistics(x)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum or 0)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum or 0)
        scale = (variance + self.eps).rsqrt()
        normalised = _Normalised.apply(x, self.weight, self.bias, mean, scale)  # type: ignore[no-untyped-call]
        return cast("Tensor", normalised)

    def _check_input_dim(self, x: Tensor) -> None:
        """Whatever it was before has a shape that fits."""


class _JoinedDropout(nn.Dropout):
    """Dropout that draws for the whole batch and takes its part, so that no two images lose the same."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = functional.dropout(torch.cat([torch.ones_like(x)] * processes()), self.p)
        return x * kept[rank() * len(x) : (rank() + 1) * len(x)]


_JOINED: dict[type[nn.Module], type[nn.Module]] = {
    VectorNorm: _JoinedBatchNorm,
    nn.BatchNorm2d: _JoinedBatchNorm,
    nn.BatchNorm3d: _JoinedBatchNorm,
    nn.Dropout: _JoinedDropout,
}


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of every channel over the whole batch, and of how many values."""
    variance, mean = torch.var_mean(_single(x), _others(x), correction=0)
    means, variances = gathered(torch.stack([mean, variance])[None]).unbind(1)
    count = processes() * x.numel() // x.shape[1]
    return means.mean(0), variances.mean(0) + means.var(0, correction=0), count


class _Normalised(Function):
    """(x − mean)·scale·weight + bias; mean and scale depend on x in all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, mean, scale)
        slope = weight * scale
        return torch.addcmul(_on(bias - mean * slope, x), _single(x), _on(slope, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        gradient, centred = _single(gradients[0]), _single(x) - _on(mean, x)
        sums = torch.stack([gradient.sum(_others(x)), (gradient * centred).sum(_others(x))])
        means = summed(sums) / (processes() * x.numel() // x.shape[1])
        back = gradient - _on(means[0], x) - centred * _on(means[1] * scale**2, x)
        return (back * _on(weight * scale, x)).to(x.dtype), sums[1] * scale, sums[0], None, None


def _single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _others(x: Tensor) -> tuple[int, ...]:
    """The axes of all but the channels."""
    return (0, *range(2, x.ndim))


def _on(channels: Tensor, x: Tensor) -> Tensor:
    """One number for every channel, to be spread over x."""
    return channels.view(-1, *[1] * (x.ndim - 2))
