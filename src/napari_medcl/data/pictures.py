"""Ordinary pictures: PNG, JPEG, BMP, single-page TIFF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_medcl.data.geometry import Source
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ROWS_COLUMNS = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
"""Rows run along P, columns along L, with 1 mm between them: pictures carry no size."""
_GREY = {"1": "L", "LA": "L", "La": "L"}
_KEPT = ("L", "RGB", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_IDS = ("medcl", "label ids")
"""A note in masks that we wrote: the values are label ids, 255 among them."""
_PURE = 0.95
_NEAR = 32


def read_source(path: Path) -> Source:
    """Size and colours."""
    with _open(path) as image:
        return _source(image, path)


def read_scan(path: Path, channel: int | None) -> tuple[NDArray[Any], Source]:
    """Pixels (height, width[, colour]), without transparency; the EXIF orientation is not applied."""
    with _open(path) as image:
        source = _source(image, path)
        pixels = np.asarray(image.convert(_mode(image)))
    return (pixels if channel is None or not source.rgb else pixels[..., channel]), source


def read_mask(path: Path) -> tuple[NDArray[Any], Source]:
    """Label ids (height, width): palette numbers, or grey values.

    Black and white, as editors draw it (0 and the largest value), means 0 and 1; so do JPEG masks and
    smoothed ones, whose values lie near black and white. Files that MedCL wrote hold ids as they are.
    """
    with _open(path) as image:
        palette = image.mode == "P"
        pixels = np.asarray(image if palette else image.convert(_mode(image)))
        source = Source(shape=pixels.shape[:2], affine=_ROWS_COLUMNS, path=path, format="picture")
        ids = image.info.get(_IDS[0]) == _IDS[1]
        lossy = image.format == "JPEG"
    if pixels.ndim == 3:
        if np.ptp(pixels, axis=2).max() > (_NEAR if lossy else 0):
            raise UserError(
                f"{path} is a colour picture; a mask has one number per pixel. Save it in grey values "
                "0, 1, 2, ... or with a palette, as PNG."
            )
        pixels = pixels[..., 0]
    return (pixels if palette or ids else _from_black_and_white(pixels, path, lossy)), source


def write_mask(array: NDArray[Any], path: Path) -> None:
    """Writes label ids (height, width), 8 or 16 bits, as PNG."""
    if array.dtype.itemsize > 2:
        raise UserError(f"PNG holds labels up to 65535; this mask has {array.max()}. Save it as .nii.gz instead.")
    note = PngInfo()
    note.add_text(*_IDS)
    Image.fromarray(np.ascontiguousarray(array)).save(path, format="PNG", pnginfo=note)


def _open(path: Path) -> Image.Image:
    image = Image.open(path)
    if getattr(image, "n_frames", 1) > 1:
        image.close()
        raise UserError(f"{path} has several pages. Save each page as a picture, or the stack as NIfTI.")
    return image


def _mode(image: Image.Image) -> str:
    return image.mode if image.mode in _KEPT else _GREY.get(image.mode, "RGB")


def _source(image: Image.Image, path: Path) -> Source:
    rgb = _mode(image) == "RGB"
    return Source(
        shape=(image.height, image.width),
        affine=_ROWS_COLUMNS,
        path=path,
        format="picture",
        channels=3 if rgb else 1,
        rgb=rgb,
    )


def _from_black_and_white(pixels: NDArray[np.uint8], path: Path, lossy: bool) -> NDArray[Any]:
    if pixels.dtype.kind != "u":
        return pixels
    white = np.iinfo(pixels.dtype).max
    grey = (pixels != 0) & (pixels != white)
    if pixels.max() == white and not grey.any():
        return np.asarray(pixels == white, dtype=np.uint8)
    if not lossy:
        return pixels
    if np.mean(np.minimum(pixels, white - pixels) < _NEAR) < _PURE:
        raise UserError(
            f"{path} is a JPEG whose values are not near black and white, so what its labels are cannot "
            "be told: JPEG changes values. Export the mask as PNG."
        )
    return np.asarray(pixels > white // 2, dtype=np.uint8)
