"""What a network makes of a scan at its innermost level, as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medcl.data.volume import Volume
from napari_medcl.device import Device, Precision, autocast, resolve_device
from napari_medcl.device import precision as number_format
from napari_medcl.errors import Stopped
from napari_medcl.inference.tiles import blended
from napari_medcl.models.network import padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.plan import Plan
    from napari_medcl.data.volume import Millimetres

_MAP = "bottleneck"
_BATCH = {2: 1, 3: 4}
"""Windows at a time."""
_SLICE = 512
"""Smallest side of a window of slices: most are taken whole, so that there are no seams."""
_COLOURS = 3
_MOST_PIXELS = 2**15
"""Of which the components are found; enough for any scan."""
_PERCENTILES = (1.0, 99.0)
"""Of a component, shown as black and as full colour."""
_SMALLEST = 1e-4
"""Range of a component; one that is the same everywhere, but for rounding, is black."""


@dataclass(frozen=True, eq=False)
class Features:
    """The bottleneck of a network over a scan.

    Attributes:
        components: (3, Z', Y', X') the three principal components of the map over its pixels.
        picture: They as red, green and blue, uint8, on a grid that is coarser than the scan's and lies over it.
    """

    components: NDArray[np.float32]
    picture: Volume


def features(
    model: Checkpoint,
    volume: Volume,
    device: Device = "auto",
    precision: Precision = "auto",
    *,
    like: Features | None = None,
    stop: Callable[[], bool] | None = None,
) -> Features:
    """Looks at a scan with the encoder of a model.

    Args:
        model: Trained in any way.
        volume: The scan, with as many channels as the model was trained on.
        device: Where to compute.
        precision: Number format of the network's products.
        like: Of the same scan: the components are turned to be as near to these as they can, so that the colours of
            a network that learns stay the same.
        stop: Is asked before every batch of windows whether to stop.

    Raises:
        UserError: The scan has another number of channels, or does not fit into the device's memory.
        Stopped: `stop` said so.
    """
    plan, where = model.plan, resolve_device(device)
    dtype = number_format(where, precision)
    net, image = model.build().to(where), torch.from_numpy(plan.conform(volume))
    flat = plan.spatial_dims == 2

    def encode(tiles: Tensor) -> Tensor:
        with autocast(where, dtype):
            return net.encode(tiles)[_MAP].float()

    def watch(_: float) -> None:
        if stop is not None and stop():
            raise Stopped

    stride = net.spec.stride(_MAP)
    image = padded(image.movedim(1, 0), stride).movedim(0, 1) if flat else padded(image[None], stride)[0]
    patch = [max(side, _SLICE) for side in plan.patch] if flat else plan.patch
    overlap, batch = [_half(side // stride) for side in patch], _BATCH[plan.spatial_dims]
    found = blended(image.numpy(), encode, patch=patch, overlap=overlap, batch=batch, device=where, watch=watch)
    components = _principal(torch.cat([*found], 1).numpy())
    if like is not None:
        components = _turned(components, like.components)
    spacing, origin = _place(volume, plan, stride, net.middle(_MAP))
    return Features(components, Volume(_colours(plan.upright(components)), spacing, origin, volume.source, rgb=True))


def _half(pixels: int) -> float:
    """Part that windows of so many coarse pixels share: about a half, and they lie whole pixels apart.

    What is left out for rounding is less than a fine pixel.
    """
    return max(0.0, pixels // 2 - 0.01) / pixels


def _principal(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """(3, *S): the principal components of (D, *S) over its pixels, the largest first.

    A direction and its opposite are equally good: taken is the one whose largest entry is positive.
    """
    pixels = found.reshape(len(found), -1)
    pixels = pixels - pixels.mean(1, keepdims=True)
    some = pixels[:, :: -(-pixels.shape[1] // _MOST_PIXELS)].astype(np.float64)
    directions = np.linalg.eigh(some @ some.T)[1][:, : -_COLOURS - 1 : -1]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0)
    directions = (directions * np.sign(largest)).astype(np.float32)
    components: NDArray[np.float32] = directions.T @ pixels
    return components.reshape(_COLOURS, *found.shape[1:])


def _turned(components: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotates and mirrors among themselves components that are as near as possible to others (Procrustes)."""
    one, other = components.reshape(_COLOURS, -1), like.reshape(_COLOURS, -1)
    left, _, right = np.linalg.svd(other @ one.T)
    turned: NDArray[np.float32] = left @ right @ one
    return turned.reshape(components.shape)


def _colours(components: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each component from 0 to 255, without its outliers."""
    low, high = np.percentile(components, _PERCENTILES, axis=(1, 2, 3), keepdims=True)
    scaled: NDArray[np.float32] = (components - low) / np.where(high - low > _SMALLEST, high - low, np.inf)
    return (255 * scaled.clip(0, 1)).round().astype(np.uint8)


def _place(volume: Volume, plan: Plan, stride: int, middle: float) -> tuple[Millimetres, Millimetres]:
    """Spacing and origin of a map.

    Args:
        volume: The scan.
        plan: How it became the network's input.
        stride: Pixels of the network's grid in one of the map.
        middle: Where the map's first pixel lies, see `Network.middle`.
    """
    spacing, origin = [*volume.spacing], [*volume.origin]
    for axis, (size, pixels) in enumerate(zip(volume.shape, plan.grid(volume), strict=True)):
        single = plan.spatial_dims == 2 and axis == plan.slice_axis
        step, first = (1, 0.0) if single else (stride, middle)
        spacing[axis] *= step * size / pixels
        origin[axis] += ((first + 0.5) * size / pixels - 0.5) * volume.spacing[axis]
    return (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2])
