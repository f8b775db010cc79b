"""Which slice of a scan is on the screen, and maps that lie over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.superpixels import at_grid, positives
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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

    def cell(self, position: Sequence[float]) -> tuple[int, ...] | None:
        """The cell at a position in the world, None outside; the slice is always the one that there is."""
        place = np.rint((np.asarray(position[-self.array.ndim :]) - self.translate) / self.scale)
        index = tuple(0 if n == 1 else int(i) for i, n in zip(place, self.array.shape, strict=True))
        inside = all(0 <= i < n for i, n in zip(index, self.array.shape, strict=True))
        return index if inside else None


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
    return np.asarray(np.take(array, shown.index, (shown.axis or 0) + 1))


def over_slice(layer: Any, shown: Shown, array: NDArray[Any]) -> Overlay:
    """A map (A, B) of the slice that is shown, laid over it."""
    scale, translate = (tuple(map(float, values[-3:])) for values in (layer.scale, layer.translate))
    if shown.axis is None:
        return Overlay(array, scale, translate)
    shift = np.eye(3)[shown.axis] * shown.index * scale
    return Overlay(np.expand_dims(array, shown.axis), scale, tuple((np.array(translate) + shift).tolist()))


def over_scan(layer: Any, array: NDArray[Any]) -> Overlay:
    """A map (Z, Y, X) of a whole scan, laid over it."""
    return Overlay(
        array[0] if layer.ndim == 2 else array,
        tuple(map(float, layer.scale[-3:])),
        tuple(map(float, layer.translate[-3:])),
    )


def bottleneck(superpixels: Overlay, depth: int) -> Overlay:
    """Superpixels as the network's innermost map sees them: the grid after `depth` poolings, over the scan."""
    fine = np.array(superpixels.array.shape)
    coarse = -(-fine // 2**depth)
    scale = np.array(superpixels.scale) * fine / coarse
    translate = np.array(superpixels.translate) + (scale - superpixels.scale) / 2
    grid = at_grid(superpixels.array, tuple(coarse.tolist()))
    return Overlay(grid, tuple(scale.tolist()), tuple(translate.tolist()))


def positives_of(grid: Overlay, index: tuple[int, ...], stride: int) -> Overlay:
    """The cells of a cell's superpixel, which the contrastive loss pulls towards it; it looks at every stride-th."""
    looked_at = np.zeros(grid.array.size, bool)
    looked_at[::stride] = True
    same = positives(grid.array, index)
    found = np.where(same, np.where(looked_at.reshape(same.shape), SAMPLED, POSITIVE), 0).astype(np.uint8)
    found[index] = CHOSEN
    return Overlay(found, grid.scale, grid.translate)
