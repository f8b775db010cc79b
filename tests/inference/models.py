"""Models whose right answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.models import NetworkSpec, build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

CLASSES = {0: "background", 1: "anterior", 2: "posterior"}
RAW = Intensity(scheme="dataset", low=-100, high=100, mean=0, std=1)
"""Leaves intensities as they are."""


def checkpoint(
    patch: Sequence[int],
    classes: dict[int, str] | None = None,
    channels: int = 1,
    spacing: tuple[float | None, float | None, float | None] = (None, None, None),
    slice_axis: int = 0,
    seed: int = 0,
    **network: Any,
) -> Checkpoint:
    """A tiny model with random weights that leaves intensities as they are."""
    classes = CLASSES if classes is None else classes
    dims = len(patch)
    spec = NetworkSpec(
        in_channels=channels, classes=max(len(classes), 1), spatial_dims=dims, width=4, depth=2, **network
    )
    torch.manual_seed(seed)
    net = build(spec)
    net(torch.randn(4, channels, *[16] * dims))
    plan = Plan(
        channels=channels,
        spatial_dims=dims,
        spacing=spacing,
        slice_axis=slice_axis,
        patch=tuple(patch),
        intensities=(RAW,) * channels,
    )
    kind = "finetune" if classes else "pretrain"
    return Checkpoint(spec, net.state_dict(), plan, classes, kind, parts=spec.map_names)


class Function(nn.Module):
    """A network that is a given function, and counts how often it is asked."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.sizes: list[torch.Size] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.sizes.append(image.shape)
        return self.function(image)


def replace_network(monkeypatch: pytest.MonkeyPatch, function: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    """Lets every checkpoint build a network that computes `function`."""
    net = Function(function)
    monkeypatch.setattr(Checkpoint, "build", lambda _: net)
    return net


def by_intensity(image: torch.Tensor) -> torch.Tensor:
    """Logits of the nearest of 0, 1, 2 to each voxel's intensity."""
    return torch.cat([-8 * (image[:, :1] - value) ** 2 for value in range(3)], 1)
