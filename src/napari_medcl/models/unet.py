"""The U-Net that all methods share, in 2D and 3D, with named maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_SLOPE = 0.01


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
            names = ", ".join(self.map_names)
            raise UserError(f"The network has no map '{name}'; with {self.depth} poolings it has {names}.")
        return int(2**self.depth) if name == "bottleneck" else int(2 ** (int(name[3:]) - 1))


class UNet(nn.Module):
    """U-Net whose stages carry the names of the maps they compute.

    Level ℓ: two × (conv3 → batch norm → leaky ReLU 0.01), width `width·2^(ℓ-1)`, max-pool 2 between levels.
    Bottleneck: two × (conv3 → ReLU). Decoder block: transposed conv 2, the skip behind it, two × (conv3 →
    batch norm → leaky ReLU). Head: conv1 without bias. Kaiming-normal weights, zero biases.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        dims, inputs = spec.spatial_dims, spec.in_channels
        for name in spec.encoder_names:
            build = _plain_stage if name == "bottleneck" else _norm_stage
            self.add_module(name, build(dims, inputs, spec.channels(name)))
            inputs = spec.channels(name)
        for name in spec.decoder_names:
            self.add_module(name, _DecoderStage(dims, inputs, spec.channels(name)))
            inputs = spec.channels(name)
        self.pool = _POOL[dims](2)
        self.head = _CONV[dims](inputs, spec.classes, 1, bias=False)
        self.apply(_initialise)

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
            x = self.get_submodule(name)(self.pool(x) if maps else x)
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
            x = cast("_DecoderStage", self.get_submodule(name))(x, maps[f"enc{name[3:]}"])
            decoded[name] = x
        return decoded

    def forward(self, image: Tensor) -> Tensor:
        """Class logits (B, classes, *S) of an image (B, C, *S)."""
        logits = self.head(self.decode(self.encode(image))["dec1"])
        return cast("Tensor", logits[(..., *(slice(0, size) for size in image.shape[2:]))])

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


def _norm_stage(dims: int, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        conv = _CONV[dims](channels, outputs, 3, padding=1)
        layers += [conv, _NORM[dims](outputs), nn.LeakyReLU(_SLOPE, inplace=True)]
    return nn.Sequential(*layers)


def _plain_stage(dims: int, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [_CONV[dims](channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class _DecoderStage(nn.Module):
    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = _UP[dims](inputs, outputs, 2, stride=2)
        self.convs = _norm_stage(dims, 2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return cast("Tensor", self.convs(torch.cat([self.up(x), skip], dim=1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
