"""Which slice of a scan is on the screen, and maps that lie over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.superpixels import positives
from napari_medcl.data.volume import voxels
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

POSITIVE, SAMPLED, CHOSEN = 1, 2, 3
"""Values of the map of positives: same superpixel; the same and looked at by the loss; the pixel itself."""


@dataclass(frozen=True)
class Shown:
    """The slice on the screen.

    Attributes:
        axis: Which of z, y, x counts the slices; None for a picture.
        index: Number of the slice.
        step: Time point of a time series, else 0.
    """

    axis: int | None
    index: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class Overlay:
    """A map with as many axes as the scan's layer, and its place in the world."""

    array: NDArray[Any]
    scale: tuple[float, ...]
    translate: tuple[float, ...]


def shown_slice(layer: Any, dims: Any) -> Shown:
    """The slice of an image layer that the viewer shows.

    Raises:
        UserError: None is: the view is 3D, the slider is outside the scan, or a picture is seen from its edge.
    """
    if dims.ndisplay == 3:
        raise UserError("The viewer shows the volume in 3D. Switch to 2D (button below the layer list) to see slices.")
    hidden = [axis - (dims.ndim - 3) for axis in range(dims.ndim) if axis not in dims.displayed]
    if layer.ndim == 2:
        if dims.ndim > 2 and hidden[-1] != 0:
            raise UserError(f"“{layer.name}” is a picture and seen from its edge. Roll the dimensions back.")
        return Shown(None)
    axis = hidden[-1]
    index = round(float(layer.world_to_data(dims.point)[axis - 3]))
    if not 0 <= index < layer.data.shape[layer.ndim - 3 + axis]:
        raise UserError(f"The slider is outside “{layer.name}”. Move it to a slice of the scan.")
    return Shown(axis, index, shown_step(layer, dims))


def shown_step(layer: Any, dims: Any) -> int:
    """The time point of a time series that the viewer shows; 0 for anything else.

    Raises:
        UserError: The slider is outside the series.
    """
    if layer.ndim != 4:
        return 0
    step = round(float(layer.world_to_data(dims.point)[0]))
    if not 0 <= step < layer.data.shape[0]:
        raise UserError(f"The slider is outside “{layer.name}”. Move it to a time point of the scan.")
    return step


def cut(array: NDArray[Any], shown: Shown) -> NDArray[Any]:
    """The slice (C, A, B) of a scan (C, Z, Y, X)."""
    return voxels(np.take(array, shown.index, (shown.axis or 0) + 1))


def over_slice(
    layer: Any, shown: Shown, array: NDArray[Any], first: ArrayLike = (0, 0), cell: ArrayLike = (1, 1)
) -> Overlay:
    """A map (A, B) of the slice that is shown, laid over it; see `over_scan`."""
    if shown.axis is None:
        return over_scan(layer, array, first, cell)
    axis = shown.axis
    first, cell = np.insert(np.asarray(first, float), axis, shown.index), np.insert(np.asarray(cell, float), axis, 1)
    return over_scan(layer, np.expand_dims(array, axis), first, cell)


def over_scan(layer: Any, array: NDArray[Any], first: ArrayLike = (0, 0, 0), cell: ArrayLike = (1, 1, 1)) -> Overlay:
    """A map with as many axes as the scan, laid over it.

    Args:
        layer: Shows the scan.
        array: The map, of the whole scan or of a part, as fine or coarser.
        first: Where the map begins: voxel edges of the scan, counted from its first voxel's.
        cell: Voxels of the scan in a pixel of the map.
    """
    array = array[0] if array.ndim > layer.ndim else array
    scale, translate, begin, size = (
        np.asarray(numbers, float)[-array.ndim :] for numbers in (layer.scale, layer.translate, first, cell)
    )
    middle = begin + (size - 1) / 2
    return Overlay(array, tuple((scale * size).tolist()), tuple((translate + middle * scale).tolist()))


def voxel_at(layer: Any, shown: Shown, position: Sequence[float], *, flat: bool) -> tuple[float, ...] | None:
    """The voxel of the volume, or of the slice that is shown, at a position in the world; None outside."""
    place = np.asarray(layer.world_to_data(position))[-3:]
    size = np.array(layer.data.shape[: layer.ndim][-3:])
    if flat and shown.axis is not None:
        place, size = np.delete(place, shown.axis), np.delete(size, shown.axis)
    return tuple(place.tolist()) if bool(((place > -0.5) & (place < size - 0.5)).all()) else None


def middle(layer: Any, shown: Shown) -> tuple[float, ...]:
    """The position of the middle of the slice that is shown, in the world."""
    voxel = np.array(layer.data.shape[: layer.ndim][-3:]) // 2
    if shown.axis is not None:
        voxel[shown.axis] = shown.index
    dims = len(voxel)
    return tuple((layer.translate[-dims:] + voxel * layer.scale[-dims:]).tolist())


def outline(size: Sequence[int]) -> NDArray[np.uint8]:
    """A box of so many voxels whose outermost ones are 1, the others 0."""
    box: NDArray[np.uint8] = np.ones(size, np.uint8)
    box[tuple(slice(1, -1) for _ in size)] = 0
    return box


def positives_of(grid: NDArray[Any], index: tuple[int, ...], stride: int) -> NDArray[np.uint8]:
    """The cells of a cell's superpixel, which the contrastive loss pulls towards it; it looks at every stride-th."""
    looked_at = np.zeros(grid.size, bool)
    looked_at[::stride] = True
    same = positives(grid, index)
    found = np.where(same, np.where(looked_at.reshape(same.shape), SAMPLED, POSITIVE), 0).astype(np.uint8)
    found[index] = CHOSEN
    return found


def near(count: int, index: int, threshold: float) -> NDArray[np.bool_]:
    """Which of a volume's slices are alike to one by position: |p_i − p_j| < threshold, p = number / count in (0, 1].

    Places that differ by the threshold, but for rounding, are not alike; training decides in the same way.
    """
    apart = np.abs(np.arange(count) - index) / count
    return np.asarray(apart < threshold - 1e-6)
