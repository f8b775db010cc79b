"""Which slices of a scan SuperCL takes for alike: what a training step computes, to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from napari_medcl.data.plan import make_plan
from napari_medcl.data.superpixels import cached_superpixels, superpixels
from napari_medcl.data.views import CHANGED, change_appearance
from napari_medcl.data.volume import Volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.foreign import load_model
from napari_medcl.inference.groups import Groups
from napari_medcl.methods.losses.contrast import similarity
from napari_medcl.methods.losses.supercl import asp, ccl, on_grid
from napari_medcl.models import Network, NetworkSpec, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medcl.data.plan import Plan
    from napari_medcl.data.superpixels import SuperpixelSettings

Dims = Literal[2, 3]
_WIDTH = {2: 32, 3: 16}
"""Channels of a new network's first level, as training on a CPU chooses them."""
_AXES = "zyx"
_MOST_PIXELS = 16 * 512**2
"""That a network sees at once: some 3 GB."""
_SEED = 0
"""Of a new network's weights and of the views: the same question has the same answer."""


def new_network(volume: Volume, dims: Dims, axis: int = 0) -> tuple[Network, Plan]:
    """A network as at the start of training on a scan, and how the scan becomes its input.

    Args:
        volume: The scan.
        dims: 2 for its slices, 3 for crops of it.
        axis: Which of z, y, x counts the slices.
    """
    if dims == 3:
        plan, depth = make_plan([volume], "3d")
    else:
        slices = [Volume(one[:, None]) for one in np.moveaxis(volume.array, axis + 1, 0)]
        plan, depth = make_plan(slices, "2d")
        plan = plan.model_copy(update={"slice_axis": axis})
    spec = NetworkSpec(in_channels=plan.channels, classes=2, spatial_dims=dims, width=_WIDTH[dims], depth=depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return build(spec), plan


def trained_network(path: Path, dims: Dims, axis: int = 0) -> tuple[Network, Plan]:
    """The network of a model file, and how a scan becomes its input.

    Raises:
        UserError: The file cannot be read, or the model learned from something else than is asked for.
    """
    model = load_model(path)
    learned = model.plan
    if learned.spatial_dims != dims:
        have, want = ("slices", "volumes") if learned.spatial_dims == 2 else ("volumes", "slices")
        raise UserError(
            f"The model is {learned.spatial_dims}D, it learned from {have}; you look at {want}. "
            f"Look at {have}, or choose a {dims}D model."
        )
    if dims == 2 and learned.slice_axis != axis:
        raise UserError(
            f"The model learned from slices along {_AXES[learned.slice_axis]}; you look at slices along {_AXES[axis]}. "
            f"Roll the dimensions to {_AXES[learned.slice_axis]}, or take a new network."
        )
    return model.build(), learned


def slice_groups(
    volume: Volume,
    net: Network,
    plan: Plan,
    how: SuperpixelSettings,
    count: int,
    index: int,
    *,
    progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Groups:
    """Links slices by their superpixels, as a step of SuperCL does.

    Slices are spread evenly over the scan, the one in view among them, and taken whole; crops are as large as in
    training and spread evenly along z, through the middle of the scan. Each gets its two fixed views, the network's
    innermost maps of them are pooled by superpixel (ASP), and every pooled map is linked to its nearest other (CCL).

    Args:
        volume: The scan.
        net: Sees the slices; normalises by the batch, as in training.
        plan: How the scan becomes the network's input.
        how: How superpixels are made; `per` is chosen by the network.
        count: Slices or crops wanted; there may be fewer.
        index: The slice in view.
        progress: Told the part that is done, up to 1.
        stop: Asked whether to stop.

    Raises:
        UserError: There is one slice or crop only, they are too many for the memory, or the scan has other channels
            than the network takes.
        Stopped: `stop` said so.
    """
    say, wanted = progress or (lambda _: None), stop or (lambda: False)
    scan = plan.conform(volume)
    corners, size = _corners(scan.shape[1:], plan, count, index)
    images, regions = _cut(scan, plan, how, corners, size, lambda part: say(0.5 * part), wanted)
    random = torch.Generator().manual_seed(_SEED)
    net.train()
    pooled: list[Tensor] = []
    with torch.no_grad():
        for part in (0.75, 1.0):
            if wanted():
                raise Stopped
            feature = net.encode(change_appearance(images, CHANGED, random))["bottleneck"]
            ids = on_grid(regions, 2**net.spec.depth, feature.shape[2:])
            pooled.append(asp(feature, ids))
            say(part)
    flat = plan.spatial_dims == 2
    axis, stride = plan.slice_axis, 2**net.spec.depth
    voxels = np.divide(np.moveaxis(volume.array[0], axis, 0).shape, scan.shape[1:])
    middle = (corners[:, 0] + size[0] // 2 + 0.5) * voxels[0] - 0.5
    alike = similarity(torch.cat(pooled).flatten(1))
    maps = pooled[0].numpy()
    return Groups(
        axis=axis,
        slices=np.rint(middle).astype(np.intp),
        views=groups_of(ccl(alike)),
        likeness=alike.view(2, len(corners), 2, len(corners)).amax((0, 2)).numpy(),
        pooled=np.moveaxis(maps[:, None], 1, axis + 1) if flat else maps,
        first=_upright(corners * voxels, axis),
        cell=_upright(voxels * ([1, stride, stride] if flat else [stride] * 3), axis),
    )


def groups_of(linked: Tensor) -> NDArray[np.intp]:
    """Numbers (2, B) of the components, from 0 in the order they are met, of links (2B, 2B) between two views."""
    first = linked.int().argmax(1)
    return np.asarray(torch.unique(first, return_inverse=True)[1].reshape(2, -1).numpy(), np.intp)


def _corners(shape: tuple[int, ...], plan: Plan, count: int, index: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the slices or crops begin (B, 3), and their size (3,), on the network's grid, slices first."""
    size = np.minimum((1, *shape[1:]) if plan.spatial_dims == 2 else plan.patch, shape)
    last = np.subtract(shape, size)
    if last[0] < 1:
        what = "There is one slice" if plan.spatial_dims == 2 else f"A crop of {_size(size)} voxels holds all slices"
        raise UserError(f"{what}, and no other to compare it with. Open a scan with more slices.")
    along = np.unique(np.linspace(0, last[0], min(count, last[0] + 1)).round())
    if plan.spatial_dims == 2:
        along[np.abs(along - index).argmin()] = index
    corners = np.stack([along, *(np.full(len(along), n // 2) for n in last[1:])], axis=1)
    if len(corners) * size.prod() > _MOST_PIXELS:
        raise UserError(
            f"{len(corners)} times {_size(size)} voxels take too much memory at once. "
            f"Compare {_MOST_PIXELS // size.prod()} or fewer."
        )
    return corners.astype(np.intp), size.astype(np.intp)


def _cut(
    scan: NDArray[np.float32],
    plan: Plan,
    how: SuperpixelSettings,
    corners: NDArray[np.intp],
    size: NDArray[np.intp],
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> tuple[Tensor, Tensor]:
    """Images (B, C, *S) and their superpixels (B, *S)."""
    if plan.spatial_dims == 2:
        chosen = np.ascontiguousarray(scan[:, corners[:, 0]])
        regions = superpixels(chosen, how.model_copy(update={"per": "slice"}), progress=progress, stop=stop)
        return torch.from_numpy(np.moveaxis(chosen, 1, 0).copy()), torch.from_numpy(regions).long()
    spacing = tuple(step or 1.0 for step in plan.spacing)
    whole = cached_superpixels(scan, how.model_copy(update={"per": "volume"}), spacing, progress=progress, stop=stop)
    boxes: list[Any] = [(..., *(slice(c, c + s) for c, s in zip(corner, size, strict=True))) for corner in corners]
    images, ids = (np.stack([array[box] for box in boxes]) for array in (scan, whole))
    return torch.from_numpy(images), torch.from_numpy(ids.astype(np.int64))


def _upright(places: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Numbers (…, 3) along slices first and the other two, as along z, y, x."""
    return np.insert(places[..., 1:], axis, places[..., 0], axis=-1)


def _size(numbers: NDArray[np.intp]) -> str:
    return " × ".join(map(str, numbers.tolist()))
