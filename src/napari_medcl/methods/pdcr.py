"""PDCR: patches are as alike as the classes that they are made of.

Reference: PDCR and UAFS (IEEE TMI 2022). Everything here works for 2D and 3D by the same code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from napari_medcl.data.batch import Needs
from napari_medcl.data.superpixels import SuperpixelShape
from napari_medcl.errors import UserError
from napari_medcl.methods.contrast import unit
from napari_medcl.methods.method import Method
from napari_medcl.methods.patches import affinity, centres, composition, receptive_field, regular_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.config import JsonDict
    from torch import Tensor

    from napari_medcl.data.batch import Batch
    from napari_medcl.models import Network, NetworkSpec

_ADVANCED: JsonDict = {"advanced": True}


class PDCR(Method):
    """Patches of like classes become alike; pre-training by superpixels is MedCL's own addition, not the paper's.

    In fine-tuning, as published, the classes are those of the masks. In pre-training an image's own superpixels stand
    in their place.
    """

    finetunes: ClassVar[bool] = True

    name: Literal["pdcr"] = "pdcr"
    encoder: float = Field(
        0.1,
        title="Encoder weight",
        ge=0,
        description="Weight of the loss inside each map of the encoder; 0 leaves it out.",
    )
    decoder: float = Field(
        0.01,
        title="Decoder weight",
        ge=0,
        description="Weight of the loss inside each map of the decoder; 0 leaves it out.",
    )
    across: float = Field(
        0.01, title="Across weight", ge=0, description="Weight of the loss between the pair of maps; 0 leaves it out."
    )
    windows: tuple[int, ...] | None = Field(
        None,
        description="Side of a patch; with several, such as 5,7,9, the loss is their mean. Without it a patch is what "
        "a pixel of the map sees (its receptive field).",
        json_schema_extra={"unit": "voxels"},
    )
    maps: tuple[str, ...] | None = Field(
        None,
        description="Maps whose patches are compared; without it levels 2 and 3 of the encoder and the last but one "
        "of the decoder.",
        json_schema_extra=_ADVANCED,
    )
    pair: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Two maps whose patches are compared with each other; without it levels 2 and 3 of the encoder.",
        json_schema_extra=_ADVANCED,
    )
    embeddings: tuple[int, ...] = Field(
        (128, 64, 32, 8),
        min_length=1,
        description="Most patches of a map, by its level; the last number holds for all deeper ones.",
        json_schema_extra=_ADVANCED,
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Lower looks harder at what is most alike; without it 0.5 in 3D, 1 in 2D.",
        json_schema_extra=_ADVANCED,
    )
    superpixels: SuperpixelShape = Field(
        default_factory=SuperpixelShape,
        description="Pre-training only: how superpixels are made; slices are divided in 2D, volumes in 3D.",
        json_schema_extra={"stage": "pretrain"},
    )

    @field_validator("windows", "embeddings")
    @classmethod
    def _positive(cls, numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if numbers is not None and (not numbers or min(numbers) < 1):
            raise ValueError("give one number or more, each at least 1.")
        return numbers

    @field_validator("maps", "pair")
    @classmethod
    def _different(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError("a map is named twice: name different ones.")
        return names

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not (self.encoder or self.decoder or self.across):
            raise ValueError("encoder, decoder and across are all 0, and nothing is learned: set one above 0.")
        return self

    def needs(self, spatial_dims: int) -> Needs:
        """In pre-training one fixed view with superpixels."""
        return Needs(fixed=1, superpixels=self.superpixels.in_dims(spatial_dims))

    def hands_on(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The stages on the way to the last map that is read."""
        names = spec.map_names
        return names[: names.index(self.maps_read(spec)[-1]) + 1]

    def maps_read(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The maps that a weight above 0 compares, in the order they are computed."""
        read = {*self.weights(spec), *self.bridged(spec)}
        for name in read:
            spec.stride(name)
        if not read:
            raise UserError(
                f"PDCR compares nothing in a network with the maps {', '.join(spec.map_names)}: "
                "set maps to some of them whose weight, encoder or decoder, is above 0."
            )
        return tuple(name for name in spec.map_names if name in read)

    def weights(self, spec: NetworkSpec) -> dict[str, float]:
        """The maps in which patches are compared, and the weight of each."""
        maps = spec.encoder_names[1:3] + spec.decoder_names[-2:-1] if self.maps is None else self.maps
        weights = {name: self.decoder if name.startswith("dec") else self.encoder for name in maps}
        return {name: weight for name, weight in weights.items() if weight}

    def bridged(self, spec: NetworkSpec) -> tuple[str, ...]:
        """The two maps that are compared with each other, or none."""
        pair = spec.encoder_names[1:3] if self.pair is None else self.pair
        return pair if self.across and len(pair) == 2 else ()

    def grid(self, spec: NetworkSpec, name: str, size: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The places of a map's embeddings along every axis, over an image of the size S."""
        stride = spec.stride(name)
        most = self.embeddings[min(stride.bit_length(), len(self.embeddings)) - 1]
        return regular_grid([math.ceil(length / stride) for length in size], most)

    def sides(self, spec: NetworkSpec, name: str) -> tuple[int, ...]:
        """The sides, in voxels, of the patches that an embedding of a map stands for, one after the other."""
        return self.windows or (receptive_field(spec, name),)

    def finetuning(self, net: Network) -> _Comparison:
        """From maps and labels to a term for each map that is compared, and `across`."""
        return _Comparison(self, net.spec)

    def pretraining(self, net: Network) -> nn.Module:
        """The same terms from a batch, with an image's own superpixels for classes.

        This is MedCL's own extension. The paper has no pre-training. No other loss stands beside the terms here, so
        that their weights are divided by the largest.
        """
        return _Pretraining(self, net)


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
        pairs: (B, N, M) bool, false where i and j are not compared; the mean is over the others.

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
        return losses.sum() / pairs.sum().clamp_min(1)


class _Comparison(nn.Module):
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


class _Pretraining(nn.Module):
    def __init__(self, method: PDCR, net: Network) -> None:
        super().__init__()
        self.comparison = method.finetuning(net)
        self.stages = nn.ModuleDict({name: net.get_submodule(name) for name in method.hands_on(net.spec)})
        across = [method.across] if method.bridged(net.spec) else []
        self.largest = max([*method.weights(net.spec).values(), *across])
        self._net = (net,)  # in a tuple, not registered: the stages behind are not trained

    def forward(self, batch: Batch) -> dict[str, Tensor]:
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
