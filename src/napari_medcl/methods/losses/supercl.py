"""The losses of SuperCL: superpixels choose what is alike inside an image and between images.

Everything here works for 2D and 3D by the same code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from napari_medcl.errors import UserError
from napari_medcl.methods.losses.contrast import alike, by_label, contrastive, other_view, similarity
from napari_medcl.models.heads import InstanceHead
from napari_medcl.models.network import padded
from napari_medcl.models.together import gathered

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medcl.data.batch import Batch
    from napari_medcl.methods.supercl import SuperCL
    from napari_medcl.models import Network

_MOST_PAIRS = 2**27
"""Pairs of pixels that one intra-image loss may compare: half a gigabyte of similarities."""


def ilcp(view_1: Tensor, view_2: Tensor, superpixels: Tensor, stride: int = 16, temperature: float = 0.1) -> Tensor:
    """Intra-image local contrast: pixels of one superpixel are alike, in both views.

    Every `stride`-th pixel in row-major order gives two rows, one of each view, labelled by its superpixel;
    the contrastive loss by label, averaged over the images.

    Args:
        view_1: Map (B, C, *S) of the first fixed view.
        view_2: Map (B, C, *S) of the second.
        superpixels: Ids (B, *S) on the grid of the maps (see `on_grid`).
        stride: Step between the pixels that are compared.
        temperature: τ.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: The shapes differ.
    """
    _same_grid(superpixels, view_1, view_2)
    pixels = [view.flatten(2)[..., ::stride].transpose(1, 2) for view in (view_1, view_2)]
    labels = superpixels.flatten(1)[:, ::stride]
    return contrastive(torch.stack(pixels, dim=2), by_label(labels), temperature).mean()


def asp(feature: Tensor, superpixels: Tensor, normaliser: Literal["grid", "region"] = "grid") -> Tensor:
    """Average superpixel pooling: every pixel gets what its whole superpixel holds.

    Args:
        feature: Map (B, C, *S); its channels are averaged first.
        superpixels: Ids (B, *S) on the same grid; every image has its own.
        normaliser: What a superpixel's sum is divided by: the number of pixels of the grid, or its own.

    Returns:
        (B, *S), in single precision at least.

    Raises:
        ValueError: The shapes differ.
    """
    _same_grid(superpixels, feature)
    flat = feature.to(torch.promote_types(feature.dtype, torch.float32)).mean(1).flatten(1)
    found, ids = torch.unique(superpixels, return_inverse=True)
    sums = _sums(flat, ids.flatten(1), len(found))
    size = flat.shape[1] if normaliser == "grid" else _sums(torch.ones_like(flat), ids.flatten(1), len(found))
    return (sums / size).view(superpixels.shape)


def ccl(likeness: Tensor) -> Tensor:
    """Connected component labelling: every map is linked to its nearest other; linked maps are alike.

    Args:
        likeness: (..., N, N), the higher the more alike; the diagonal is not read.

    Returns:
        (..., N, N) bool, true where two maps are in one component.
    """
    count = likeness.shape[-1]
    itself = torch.eye(count, dtype=torch.bool, device=likeness.device)
    nearest = likeness.masked_fill(itself, -torch.inf).argmax(-1, keepdim=True)
    linked = torch.zeros_like(likeness, dtype=torch.bool).scatter_(-1, nearest, True)
    reached = linked | linked.transpose(-2, -1) | itself
    with torch.autocast(likeness.device.type, enabled=False):
        for _ in range(count.bit_length()):  # each product doubles the length of the paths it has followed
            steps = reached.float()
            reached = steps @ steps > 0
    return reached


def weak_positives(asp_1: Tensor, asp_2: Tensor) -> Tensor:
    """Positives (2B, 2B) by the components of the pooled maps (B, *S), and every image's own other view."""
    maps = torch.cat([asp_1, asp_2]).flatten(1)
    return ccl(similarity(maps)) | other_view(len(asp_1), maps.device)


def igcp(instances: Tensor, asp_1: Tensor, asp_2: Tensor, temperature: float = 0.1) -> Tensor:
    """Inter-image global contrast: images whose pooled superpixel maps are linked are alike.

    Args:
        instances: Projections (B, 2, D) of the free views.
        asp_1: Pooled map (B, *S) of the first fixed view (see `asp`).
        asp_2: Pooled map (B, *S) of the second.
        temperature: τ.

    Returns:
        The loss, a scalar.
    """
    return contrastive(instances, weak_positives(asp_1, asp_2), temperature)


def on_grid(superpixels: Tensor, multiple: int, shape: torch.Size) -> Tensor:
    """Superpixels (B, *S) of an image on the grid of one of its maps, by nearest neighbour.

    Args:
        superpixels: Ids below 2^24, which single precision tells apart.
        multiple: The sizes that the network pads to (see `padded`).
        shape: Spatial shape of the map.
    """
    image = padded(superpixels[:, None].float(), multiple)
    return functional.interpolate(image, size=shape, mode="nearest")[:, 0].to(superpixels.dtype)


class Pretraining(nn.Module):
    """The encoder as far down as a loss reaches, and the head behind it."""

    def __init__(self, method: SuperCL, net: Network) -> None:
        super().__init__()
        self.method = method
        self.stages = nn.ModuleDict({name: net.get_submodule(name) for name in method.hands_on(net.spec)})
        width = net.spec.channels("bottleneck")
        self.head = None
        if method.instances:
            self.head = InstanceHead(width, width, method.projection, norm=method.head_norm)
        self._net = (net,)  # in a tuple, not registered: its decoder is not trained

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms by name."""
        method = self.method
        maps = self._fixed(batch)
        terms = {"intra": method.intra * self._intra(batch, maps)} if method.intra else {}
        if self.head is None:
            return terms
        vectors = [self.head(self._net[0].encode(view)["bottleneck"]) for view in batch.free]
        instances = gathered(torch.stack(vectors, dim=1))
        if method.instance:
            positives = alike(method, batch)
            terms["instance"] = method.instance * contrastive(instances, positives, method.temperature)
        if method.inter:
            pooled = [gathered(self._pooled(batch, encoded["bottleneck"])) for encoded in maps]
            terms["inter"] = method.inter * igcp(instances, pooled[0], pooled[1], method.temperature)
        return terms

    def _fixed(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Maps of the fixed views; without the intra term only weak labels come of them, without gradient."""
        if not self.method.regions:
            return []
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.method.intra > 0):
            return [self._net[0].encode(view) for view in batch.fixed]

    def _intra(self, batch: Batch, maps: list[dict[str, Tensor]]) -> Tensor:
        method = self.method
        view_1, view_2 = (encoded[method.map] for encoded in maps)
        self._check_pairs(view_1)
        return ilcp(view_1, view_2, self._regions(batch, view_1), method.stride, method.temperature)

    def _pooled(self, batch: Batch, feature: Tensor) -> Tensor:
        feature = feature.detach()
        return asp(feature, self._regions(batch, feature), self.method.asp_normaliser)

    def _regions(self, batch: Batch, feature: Tensor) -> Tensor:
        if batch.superpixels is None:
            raise ValueError("The batch holds no superpixels, which SuperCL asked for.")
        return on_grid(batch.superpixels, 2 ** self._net[0].spec.depth, feature.shape[2:])

    def _check_pairs(self, feature: Tensor) -> None:
        images, pixels = feature.shape[0], feature[0, 0].numel()
        rows = 2 * math.ceil(pixels / self.method.stride)
        if images * rows**2 > _MOST_PAIRS:
            least = math.ceil(pixels / (math.isqrt(_MOST_PAIRS // images) // 2))
            raise UserError(
                f"SuperCL would compare {rows} pixels of map '{self.method.map}' with each other in each of "
                f"{images} images, which takes too much memory: set stride to {least} or more, or map to a "
                "coarser one."
            )


def _same_grid(superpixels: Tensor, *maps: Tensor) -> None:
    for feature in maps:
        if feature.ndim < 3 or superpixels.shape != (feature.shape[0], *feature.shape[2:]):
            ids, grid = tuple(superpixels.shape), tuple(feature.shape)
            raise ValueError(f"superpixels {ids} do not lie on the grid of the map {grid}.")


def _sums(values: Tensor, ids: Tensor, count: int) -> Tensor:
    """For every pixel the sum (B, n) over its group of values (B, n), the groups being ids (B, n) < count."""
    return values.new_zeros(len(values), count).scatter_add(1, ids, values).gather(1, ids)
