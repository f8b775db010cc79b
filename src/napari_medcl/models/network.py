"""What every network offers: maps with names, on the way down and on the way up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional

from napari_medcl.errors import UserError
from napari_medcl.models.uafs import UAFS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class NetworkSpec(BaseModel):
    """What it takes to build a network; kept in the checkpoint.

    Maps are named by level from the full size down: `enc1` … `enc<depth>`, `bottleneck`,
    `dec<depth>` … `dec1`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: int = Field(ge=1, description="Channels of the image")
    classes: int = Field(ge=1, description="Classes that the head tells apart, background included")
    spatial_dims: Literal[2, 3] = Field(description="2 for slices and pictures, 3 for volumes")
    width: int = Field(32, ge=1, description="Channels of the first level; every level doubles them")
    depth: int = Field(4, ge=1, le=5, description="Number of poolings")
    architecture: Literal["unet", "attention"] = Field("unet", description="U-Net of the papers, or attention U-Net")
    uafs: tuple[str, ...] = Field((), description="Maps behind which a UAFS block sits")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if unknown := set(self.uafs) - set(self.map_names):
            raise ValueError(f"no UAFS block fits behind {', '.join(sorted(unknown))}: {self._has()}")
        if self.uafs and self.classes < 2:
            raise ValueError("UAFS blocks need two classes at least")
        if self.architecture == "attention" and self.width < 2:
            raise ValueError("the attention U-Net needs a width of 2 at least")
        return self

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """`enc1` … `bottleneck`, in the order they are computed."""
        return (*(f"enc{level}" for level in range(1, self.depth + 1)), "bottleneck")

    @property
    def decoder_names(self) -> tuple[str, ...]:
        """`dec<depth>` … `dec1`, in the order they are computed."""
        return tuple(f"dec{level}" for level in range(self.depth, 0, -1))

    @property
    def map_names(self) -> tuple[str, ...]:
        """Every map, in the order they are computed."""
        return self.encoder_names + self.decoder_names

    def channels(self, name: str) -> int:
        """Channels of a map."""
        return self.width * self.stride(name)

    def stride(self, name: str) -> int:
        """Image pixels to one pixel of a map, along every axis.

        Raises:
            UserError: This network has no such map.
        """
        if name not in self.map_names:
            raise UserError(f"The network has no map '{name}'; {self._has()}.")
        return int(2**self.depth) if name == "bottleneck" else int(2 ** (int(name[3:]) - 1))

    def _has(self) -> str:
        return f"with {self.depth} poolings it has {', '.join(self.map_names)}"


class Network(nn.Module):
    """An encoder and a decoder whose stages carry the names of the maps they compute.

    A subclass adds one module for every name of `spec.map_names`, and a `head`. A stage of the encoder takes the
    map above it, behind `pool`; a stage of the decoder takes the map below it and the encoder's map of its level.

    Attributes:
        spec: What the network was built from.
        blocks: The UAFS block behind a map, by its name; every map that is given or read is the one behind it.
        pool: What halves a map before the next stage of the encoder; nothing where the stages do so themselves.
        head: From `dec1` to the class logits.
    """

    pool: nn.Module
    head: nn.Module

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleDict({name: UAFS(spec, spec.channels(name)) for name in spec.uafs})

    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Computes the maps on the way down.

        Args:
            image: (B, C, *S), any size; it is padded at its far edges (see `padded`).

        Returns:
            `enc1` … `bottleneck`, each (B, channels(name), *padded S / stride(name)).

        Raises:
            UserError: The image has other channels or dimensions than the network.
        """
        self._check(image)
        x = _channels_last(padded(image, 2**self.spec.depth))
        maps: dict[str, Tensor] = {}
        for name in self.spec.encoder_names:
            x = self._behind(name, self.get_submodule(name)(self.pool(x) if maps else x))
            maps[name] = x
        return maps

    def decode(self, maps: Mapping[str, Tensor], to: str = "dec1") -> dict[str, Tensor]:
        """Computes the maps on the way up, and stops after the map `to`.

        Args:
            maps: What `encode` gave.
            to: The last map wanted.

        Returns:
            `dec<depth>` … `to`, each (B, channels(name), *padded S / stride(name)).

        Raises:
            UserError: `to` is no map of the decoder.
        """
        names = self.spec.decoder_names
        if to not in names:
            raise UserError(f"The decoder has no map '{to}'; it has {', '.join(names)}.")
        x = maps["bottleneck"]
        decoded: dict[str, Tensor] = {}
        for name in names[: names.index(to) + 1]:
            x = self._behind(name, self.get_submodule(name)(x, maps[f"enc{name[3:]}"]))
            decoded[name] = x
        return decoded

    def forward(self, image: Tensor) -> Tensor:
        """Class logits (B, classes, *S) of an image (B, C, *S)."""
        return self.classify(self.decode(self.encode(image)), image.shape[2:])

    def classify(self, maps: Mapping[str, Tensor], size: Sequence[int]) -> Tensor:
        """Class logits (B, classes, *size) of the map `dec1`, without what the image was padded by."""
        return cast("Tensor", self.head(maps["dec1"])[(..., *(slice(0, length) for length in size))])

    def middle(self, name: str) -> float:
        """Where the middle of a map's first pixel lies: image pixels from the middle of the image's first one."""
        return (self.spec.stride(name) - 1) / 2

    def _behind(self, name: str, x: Tensor) -> Tensor:
        return cast("Tensor", self.blocks[name](x)) if name in self.blocks else x

    def _check(self, image: Tensor) -> None:
        wanted = f"(images, {self.spec.in_channels}, {'z, y, x' if self.spec.spatial_dims == 3 else 'y, x'})"
        if image.ndim != self.spec.spatial_dims + 2 or image.shape[1] != self.spec.in_channels:
            raise UserError(f"The network takes images {wanted}, but got the shape {tuple(image.shape)}.")


def padded(image: Tensor, multiple: int) -> Tensor:
    """Repeats the last row, column, … until `multiple` divides every size.

    Args:
        image: (B, C, *S) floating point.
        multiple: What shall divide the sizes.
    """
    missing = [-size % multiple for size in reversed(image.shape[2:])]
    if not any(missing):
        return image
    return functional.pad(image, [pad for after in missing for pad in (0, after)], mode="replicate")


def _channels_last(image: Tensor) -> Tensor:
    """The layout that a CPU computes a tenth to a quarter faster in.

    Not on MPS: batch norm has wrong gradients in it there (pytorch issue 175189).
    """
    if image.device.type == "mps":
        return image
    return image.to(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)
