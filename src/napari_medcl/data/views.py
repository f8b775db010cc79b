"""Views of a batch: geometry and intensity changes, made on the device for the whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_DEGREE = torch.pi / 180
_MOST_CONTRAST = 0.9
"""Of the contrast that may be taken away or added; without any nothing is left to see."""


@dataclass(frozen=True)
class Part:
    """One of so many equal parts of a batch, whose images stand one after the other.

    Random numbers are drawn for the whole batch, and the part takes its own: all parts together are then what the
    whole would be.
    """

    index: int = 0
    parts: int = 1

    def of(self, whole: Any) -> Any:
        """The part's own of what stands in a row for the images of the batch."""
        size = len(whole) // self.parts
        return whole[self.index * size : (self.index + 1) * size]


WHOLE = Part()


@dataclass(frozen=True)
class Geometry:
    """How far a view may move: flips, rotation in degrees, scale and elastic shift (parts of the crop).

    `p` is the chance of each image to be turned, scaled and bent; the others keep every voxel's value, as
    the scans do that a model is applied to. `any_angle` is the share of the turned ones that `rotation` does not bind.
    """

    p: float
    flip: bool
    rotation: float
    scale: tuple[float, float]
    elastic: float
    any_angle: float = 0.0


@dataclass(frozen=True)
class Appearance:
    """How far a view's intensities may change.

    `p` is the chance of each change for each image. Where channels change `apart`, brightness, contrast, gamma and the
    strength of the noise are drawn for each of them, so that colours shift.
    """

    p: float
    brightness: float
    contrast: float
    gamma: float
    noise: float
    blur: float
    apart: bool = False

    def times(self, factor: float) -> Appearance:
        """All but the blur so many times as far (see `_MOST_CONTRAST`)."""
        contrast = min(factor * self.contrast, _MOST_CONTRAST)
        return replace(
            self, brightness=factor * self.brightness, contrast=contrast, gamma=factor * self.gamma,
            noise=factor * self.noise,
        )  # fmt: skip


FREE = Geometry(p=1, flip=True, rotation=30, scale=(0.7, 1.3), elastic=0.03)
"""The views of contrastive pre-training that have a geometry of their own."""
CHANGED = Appearance(p=0.8, brightness=0.3, contrast=0.3, gamma=0.3, noise=0.1, blur=1.0, apart=True)
"""Intensities of the views of contrastive pre-training, at the least that is of use (see `PretrainConfig.changes`)."""


def uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """Numbers (count,) between low and high."""
    return torch.rand(count, generator=random, device=random.device) * (high - low) + low


def sampling_grid(
    count: int,
    patch: Sequence[int],
    crop: Sequence[int],
    voxel: Sequence[float],
    geometry: Geometry,
    random: torch.Generator,
    part: Part = WHOLE,
) -> Tensor:
    """Where every voxel of the views lies in their crops, for `grid_sample`.

    Rotation and scale act in millimetres about the centre, so that shapes keep their form however
    long the voxel's sides are.

    Args:
        count: Images in the batch, B.
        patch: Shape S of a view, slowest axis first.
        crop: Shape of the crop that the views are taken from.
        voxel: Voxel size of patch and crop.
        geometry: How far the views may move.
        random: Source of randomness; its device is the grid's.
        part: Which part of a batch these images are.

    Returns:
        (B, *S, D), coordinates fastest axis first, -1 and 1 at the outer edges of the crop.
    """
    device, dims = random.device, len(patch)
    size = torch.tensor(voxel, device=device)
    half_patch = torch.tensor(patch, device=device) * size / 2
    half_crop = torch.tensor(crop, device=device) * size / 2
    axes = [torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=device) for n in patch]
    unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    whole = count * part.parts
    active = uniform(whole, 0, 1, random) < geometry.p
    scale = torch.where(active, uniform(whole, *geometry.scale, random), 1)
    degrees = active * float(geometry.rotation)
    if geometry.any_angle:  # where not, the numbers to come stay those of runs from before there was a share
        degrees = torch.where(uniform(whole, 0, 1, random) < geometry.any_angle, active * 180.0, degrees)
    linear = _rotation(degrees, dims, random) / scale.view(-1, 1, 1)
    if geometry.flip:
        sign = 1 - 2 * torch.randint(0, 2, (whole, 1, dims), generator=random, device=device)
        linear = linear * sign
    moved = torch.einsum("bij,...j->b...i", part.of(linear), unit * half_patch)
    if geometry.elastic > 0:
        moved = moved + _elastic(active, patch, geometry.elastic, random, part) * half_patch
    return (moved / half_crop).flip(-1)


def _rotation(degrees: Tensor, dims: int, random: torch.Generator) -> Tensor:
    """Rotations (B, D, D) by up to so many degrees (B,): about the one axis in 2D, about each in 3D."""
    pairs = [(0, 1)] if dims == 2 else [(1, 2), (0, 2), (0, 1)]
    count = len(degrees)
    total = torch.eye(dims, device=random.device).expand(count, dims, dims)
    for first, second in pairs:
        angle = degrees * uniform(count, -1, 1, random) * _DEGREE
        turn = torch.eye(dims, device=random.device).repeat(count, 1, 1)
        turn[:, first, first] = turn[:, second, second] = angle.cos()
        turn[:, first, second], turn[:, second, first] = -angle.sin(), angle.sin()
        total = total @ turn
    return total


def _elastic(active: Tensor, patch: Sequence[int], strength: float, random: torch.Generator, part: Part) -> Tensor:
    """Smooth random shifts (B, *S, D) of half of the active images: a coarse grid of normal numbers, interpolated.

    `active` is of the whole batch.
    """
    dims, count = len(patch), len(active)
    coarse = torch.randn(count, dims, *[5] * dims, generator=random, device=random.device) * strength
    active = (active & (uniform(count, 0, 1, random) < 0.5)).view(-1, *[1] * (dims + 1))
    mode = "bicubic" if dims == 2 else "trilinear"
    coarse = part.of(coarse * active)
    return functional.interpolate(coarse, size=tuple(patch), mode=mode, align_corners=True).movedim(1, -1)


def move_image(image: Tensor, grid: Tensor) -> Tensor:
    """Images (B, C, *crop) at the places of a grid, interpolated linearly, continued past the edge."""
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def move_labels(labels: Tensor, grid: Tensor, outside: int) -> Tensor:
    """Label maps (B, *crop) at the places of a grid, nearest voxel; `outside` past the edge."""
    shifted = (labels - outside).unsqueeze(1).float()
    moved = functional.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.squeeze(1).round().long() + outside


def centre(array: Tensor, patch: Sequence[int]) -> Tensor:
    """The middle of a crop (..., *crop), as large as a patch."""
    for axis, size in enumerate(patch, start=array.ndim - len(patch)):
        array = array.narrow(axis, (array.shape[axis] - size) // 2, size)
    return array


def change_appearance(image: Tensor, how: Appearance, random: torch.Generator, part: Part = WHOLE) -> Tensor:
    """Normalised images (B, C, *S), a part of a batch, with blur, noise, brightness, contrast and gamma changed."""
    whole = len(image) * part.parts
    shape = (len(image), *[1] * (image.ndim - 1))
    channels = image.shape[1] if how.apart else 1

    def drawn(low: float, high: float) -> Tensor:
        numbers: Tensor = part.of(uniform(whole, low, high, random))
        return numbers

    def perhaps(changed: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        active = drawn(0, 1) < how.p
        return torch.where(active.view(shape), changed(image), image)

    def between(low: float, high: float) -> Tensor:
        numbers: Tensor = part.of(uniform(whole * channels, low, high, random).view(whole, channels))
        return numbers.view(len(image), channels, *shape[2:])

    spatial = tuple(range(2, image.ndim))

    def contrast(image: Tensor) -> Tensor:
        middle = image.mean(spatial, keepdim=True)
        return (image - middle) * between(1 - how.contrast, 1 + how.contrast) + middle

    def gamma(image: Tensor) -> Tensor:
        low, high = image.amin(spatial, keepdim=True), image.amax(spatial, keepdim=True)
        span = (high - low).clamp_min(1e-6)
        power = torch.exp(between(-how.gamma, how.gamma))
        return ((image - low) / span).clamp(0, 1).pow(power) * span + low

    def noise(image: Tensor) -> Tensor:
        grain: Tensor = part.of(torch.randn((whole, *image.shape[1:]), generator=random, device=random.device))
        return image + grain * between(0, how.noise)

    image = perhaps(lambda one: _blur(one, drawn(0.3, 0.3 + how.blur)), image)
    image = perhaps(noise, image)
    image = perhaps(lambda one: one + between(-how.brightness, how.brightness), image)
    return perhaps(gamma, perhaps(contrast, image))


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation (B,) in voxels of its own for every image."""
    count, channels, *size = image.shape
    dims = len(size)
    radius = 3
    steps = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    convolve = functional.conv2d if dims == 2 else functional.conv3d
    flat = image.reshape(1, count * channels, *size)
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = len(steps)
        pad = [0] * (2 * dims)
        pad[2 * (dims - 1 - axis)] = pad[2 * (dims - 1 - axis) + 1] = radius
        padded = functional.pad(flat, pad, mode="replicate")
        flat = convolve(padded, kernel.view(-1, 1, *shape), groups=count * channels)
    return flat.reshape(image.shape)
