"""The loss of PDCR: patches are as alike as the classes that they are made of.

Everything here works for 2D and 3D by the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_medcl.methods.grid import centres
from napari_medcl.methods.losses.contrast import unit
from napari_medcl.methods.losses.patches import affinity, composition
from napari_medcl.models.together import share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_medcl.data.batch import Batch
    from napari_medcl.methods.pdcr import PDCR
    from napari_medcl.models import Network, NetworkSpec


def dragsaw(
    features: Tensor,
    affinity: Tensor,
    divergence: Tensor,
    temperature: float,
    *,
    others: Tensor | None = None,
    pairs: Tensor | None = None,
) -> Tensor:
    """Pulls patches together by their affinity a, and pushes them apart by their divergence d.

    With s = cosine similarity / τ, less its largest possible value 1/τ (inside a map its maximum, on the diagonal),

        loss = mean_ij −log( exp(s_ij·a_ij) / Σ_k exp(s_ik·d_ik) )

    It is computed in single precision at least, also under autocast.

    Args:
        features: Embeddings (B, C, N) of the patches i.
        affinity: a (B, N, M), in [0, 1].
        divergence: d (B, N, M), as defined 1 − a.
        temperature: τ.
        others: Embeddings (B, C, M) of the patches j in another map; without them those of the same map.
        pairs: (B, N, M) bool, false where i and j are not compared; the mean is over the others, in all processes.

    Returns:
        The loss, a scalar; 0 without any pair.

    Raises:
        ValueError: The shapes do not fit or the temperature is not positive.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows = unit(features.transpose(1, 2))
        columns = rows if others is None else unit(others.transpose(1, 2))
        _check(rows, columns, affinity, divergence, temperature)
        logits = (rows @ columns.transpose(1, 2) - 1) / temperature
        attraction, repulsion = logits * affinity, logits * divergence
        if pairs is None:
            return (repulsion.logsumexp(-1, keepdim=True) - attraction).mean()
        apart = repulsion.masked_fill(~pairs & pairs.any(-1, keepdim=True), -torch.inf)
        losses: Tensor = (apart.logsumexp(-1, keepdim=True) - attraction) * pairs
        return losses.sum() / share(pairs.sum())


class Comparison(nn.Module):
    """The terms of the loss; its parameters are the 1×1 convolutions that bring the pair's maps to one width."""

    def __init__(self, method: PDCR, spec: NetworkSpec) -> None:
        super().__init__()
        self.method, self.spec = method, spec
        self.read = method.maps_read(spec)
        pair = method.bridged(spec)
        width = min((spec.channels(name) for name in pair), default=0)
        self.bridges = nn.ModuleDict({name: nn.Conv1d(spec.channels(name), width, 1) for name in pair})

    def forward(self, maps: Mapping[str, Tensor], labels: Tensor, classes: int | None = None) -> dict[str, Tensor]:
        """Weighted terms.

        Args:
            maps: By name, at least those that `maps_read` says.
            labels: Class indices (B, *S); IGNORE where nobody annotated.
            classes: Number of classes; without it those of the network.
        """
        patches = {name: self._patches(name, maps[name], labels, classes or self.spec.classes) for name in self.read}
        terms = {
            name: weight * self._loss(patches[name], patches[name])
            for name, weight in self.method.weights(self.spec).items()
        }
        if self.bridges:
            bridged = [(bridge(patches[name][0]), patches[name][1]) for name, bridge in self.bridges.items()]
            terms["across"] = self.method.across * self._loss(*bridged)
        return terms

    def _patches(self, name: str, feature: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, list[Tensor]]:
        """Embeddings (B, C, N), and what their patches are made of (B, N, K) at every size."""
        grid = self.method.grid(self.spec, name, labels.shape[1:])
        places = centres(grid, self.spec.stride(name))
        pixels = torch.zeros((), dtype=torch.long)
        for axis, length in zip(grid, feature.shape[2:], strict=True):
            pixels = pixels[..., None] * length + torch.tensor(axis)
        vectors = feature.movedim(1, -1).flatten(1, -2)  # pixels first: the gradient keeps the layout of the map
        chosen = vectors.index_select(1, pixels.flatten().to(feature.device)).mT
        return chosen, [composition(labels, places, side, classes) for side in self.method.sides(self.spec, name)]

    def _loss(self, one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> Tensor:
        """The mean over the sizes of patches; what has no annotated voxel is compared with nothing."""
        temperature = self.method.temperature or (0.5 if self.spec.spatial_dims == 3 else 1.0)
        losses = []
        for first, second in zip(one[1], other[1], strict=True):
            alike = affinity(first, second)
            pairs = first.any(-1)[:, :, None] & second.any(-1)[:, None]
            losses.append(dragsaw(one[0], alike, 1 - alike, temperature, others=other[0], pairs=pairs))
        return torch.stack(losses).mean()


class Pretraining(nn.Module):
    """The stages on the way to the last map that is read, and the comparison of the maps."""

    def __init__(self, method: PDCR, net: Network) -> None:
        super().__init__()
        self.comparison = method.finetuning(net)
        self.stages = nn.ModuleDict({name: net.get_submodule(name) for name in method.hands_on(net.spec)})
        across = [method.across] if method.bridged(net.spec) else []
        self.largest = max([*method.weights(net.spec).values(), *across])
        self._net = (net,)  # in a tuple, not registered: the stages behind are not trained

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Terms by name, whose weights are divided by the largest."""
        if batch.superpixels is None:
            raise ValueError("The batch holds no superpixels, which PDCR asked for.")
        net, last = self._net[0], self.comparison.read[-1]
        maps = net.encode(batch.fixed[0])
        if last in net.spec.decoder_names:
            maps |= net.decode(maps, to=last)
        ids, classes = torch.unique(batch.superpixels, return_inverse=True)
        terms = self.comparison(maps, classes, len(ids))
        return {name: term / self.largest for name, term in terms.items()}


def _check(rows: Tensor, columns: Tensor, affinity: Tensor, divergence: Tensor, temperature: float) -> None:
    shape = (len(rows), rows.shape[1], columns.shape[1])
    if affinity.shape != shape or divergence.shape != shape:
        raise ValueError(
            f"affinity and divergence must be {shape}, not {tuple(affinity.shape)} and {tuple(divergence.shape)}."
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}.")
