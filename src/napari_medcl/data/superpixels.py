"""Superpixels (SLIC) of scans: the pseudo masks of contrastive learning."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_medcl.data.cache import home, kept, room
from napari_medcl.data.volume import voxels
from napari_medcl.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ROUNDS = 10
"""Rounds of SLIC."""
_PERCENTILES = (0.5, 99.5)


class SuperpixelShape(BaseModel):
    """How many superpixels are made and how far they follow the image, wherever they are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: int = Field(
        default=100,
        ge=2,
        le=100_000,
        description="Superpixels wanted, per slice or per volume; about as many come.",
    )
    compactness: float = Field(
        default=0.2,
        gt=0,
        le=1000,
        description="Weight of distance against intensity (scaled to 0-1): 0.1 to 0.3 follows edges, "
        "1 and more gives squares (SuperCL as published: 10).",
    )
    smoothing: float = Field(
        default=0.0,
        ge=0,
        le=20,
        description="Sigma of the Gaussian blur before.",
        json_schema_extra={"unit": "voxels"},
    )

    def in_dims(self, spatial_dims: int) -> SuperpixelSettings:
        """The same of single slices in 2D, of volumes in 3D: in a 3D crop slices would share ids, but no tissue."""
        per: Literal["slice", "volume"] = "volume" if spatial_dims == 3 else "slice"
        return SuperpixelSettings(
            segments=self.segments, compactness=self.compactness, smoothing=self.smoothing, per=per
        )


class SuperpixelSettings(SuperpixelShape):
    """How superpixels are made."""

    per: Literal["slice", "volume"] = Field(
        default="slice", description="Whether every slice is divided for itself or the volume in 3D."
    )


def superpixel_slice(image: NDArray[Any], settings: SuperpixelSettings, rounds: int = ROUNDS) -> NDArray[np.int32]:
    """Superpixels of one slice.

    Every channel is scaled so that its 0.5 and 99.5 percentiles become 0 and 1. A slice without
    contrast is divided into squares.

    Args:
        image: (C, Y, X) or (Y, X).
        settings: How; `per` does not matter.
        rounds: Rounds of SLIC; fewer take less time.

    Returns:
        Ids 1 to n, (Y, X).
    """
    image = voxels(image)
    return _slic(image if image.ndim == 3 else image[None], settings, rounds=rounds)


def superpixels(
    array: Any,
    settings: SuperpixelSettings,
    spacing: Sequence[float] | None = None,
    progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> NDArray[np.int32]:
    """Superpixels of a volume, its slices side by side on all cores.

    Args:
        array: (C, Z, Y, X); of a dask array, slices are read when their turn comes.
        settings: How; per volume, channels are scaled over the volume.
        spacing: Voxel size (z, y, x), used per volume.
        progress: Told the part that is done, up to 1.
        stop: Asked between slices, or before and after a volume, whether to stop.

    Returns:
        Ids (Z, Y, X); per slice they restart at 1 in every slice.

    Raises:
        Stopped: `stop` said so.
    """
    if settings.per == "volume" and array.shape[1] > 1:
        _check(stop)
        result = _slic(voxels(array), settings, spacing)
        _check(stop)
        _tell(progress, 1.0)
        return result
    shape = array.shape[1:]
    result = np.empty(shape, np.int32) if isinstance(array, np.ndarray) else room(shape, np.int32)
    # SLIC releases the GIL: two threads on two cores take 0.55 of the time of one.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        slices = pool.map(partial(superpixel_slice, settings=settings), np.moveaxis(array, 1, 0))
        try:
            for index, ids in enumerate(slices):
                _check(stop)
                result[index] = ids
                _tell(progress, (index + 1) / len(result))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


def cached_superpixels(
    array: Any,
    settings: SuperpixelSettings,
    spacing: Sequence[float] | None = None,
    *,
    known_as: str | None = None,
    folder: Path | None = None,
    progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> NDArray[np.integer]:
    """The same as `superpixels`, kept on the disk in the smallest type and read as a memory map.

    Args:
        array: See `superpixels`.
        settings: How.
        spacing: Voxel size (z, y, x).
        known_as: What tells these voxels from all others; without it a hash of them.
        folder: Where maps are kept; None for the user's cache. A folder that cannot be written to, or a
            damaged file in it, costs time and nothing else.
        progress: See `superpixels`.
        stop: See `superpixels`.

    Raises:
        Stopped: `stop` said so.
    """
    place = tuple(map(float, spacing)) if spacing is not None and settings.per == "volume" else None
    known_as = _voxels(array) if known_as is None else known_as
    key = hashlib.sha256(f"{known_as} {array.shape} {settings!r} {place} {version('scikit-image')}".encode())

    def make() -> NDArray[np.integer]:
        found = superpixels(array, settings, spacing, progress, stop)
        return found.astype(np.min_scalar_type(int(found.max())))

    found = kept((folder or home() / "superpixels") / f"{key.hexdigest()}.npy", make)
    _tell(progress, 1.0)
    return found if found.shape == array.shape[1:] else make()


def at_grid(superpixels: NDArray[Any], cell: Sequence[int]) -> NDArray[Any]:
    """A map on the coarser grid of a network's map: the first pixel of each cell stands for it.

    The same as padding to whole cells and torch's `interpolate(mode="nearest")`.

    Args:
        superpixels: (Y, X) or (Z, Y, X).
        cell: Pixels in a cell, as many numbers.
    """
    return superpixels[tuple(slice(None, None, int(step)) for step in cell)]


def positives(grid: NDArray[Any], index: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where a map has the id that it has at `index`: what the loss pulls together."""
    return np.asarray(grid == grid[index])


def _slic(
    channels: NDArray[Any],
    settings: SuperpixelSettings,
    spacing: Sequence[float] | None = None,
    rounds: int = ROUNDS,
) -> NDArray[np.int32]:
    from skimage.segmentation import slic

    ids = slic(
        np.stack([_scaled(channel) for channel in channels], axis=-1),
        n_segments=settings.segments,
        compactness=settings.compactness,
        sigma=settings.smoothing,
        max_num_iter=rounds,
        # In units of the finest axis, so that compactness means the same for all voxel sizes.
        spacing=None if spacing is None else np.divide(spacing, min(spacing)),
        channel_axis=-1,
        convert2lab=False,
        start_label=1,
    )
    return np.asarray(ids, dtype=np.int32)


def _scaled(channel: NDArray[Any]) -> NDArray[np.float32]:
    low, high = np.percentile(channel, _PERCENTILES)
    if low == high:
        low, high = channel.min(), channel.max()
    scaled = (channel.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-12))
    return np.clip(scaled, 0, 1, out=scaled)


def _voxels(array: Any) -> str:
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    for channel in array:
        for one in channel:
            digest.update(np.ascontiguousarray(voxels(one)).data)
    return digest.hexdigest()


def _check(stop: Callable[[], bool] | None) -> None:
    if stop is not None and stop():
        raise Stopped


def _tell(progress: Callable[[float], None] | None, part: float) -> None:
    if progress is not None:
        progress(part)
