"""NIfTI files (.nii, .nii.gz), version 1 and 2."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.arrayproxy import ArrayProxy

from napari_medcl.data.geometry import Source
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's codes for metre, millimetre and micrometre."""
_NIFTI2_BYTES = 540
_LARGEST_NIFTI1 = 32767
_SCANNER = 1
_CHUNK = 2**22
"""Bytes of a lazy array that are read together."""


def read_source(path: Path) -> Source:
    """What the header says."""
    return _source(_load(path), path)


def read_scan(path: Path, channel: int | None, *, lazily: bool = False) -> tuple[NDArray[Any], Source]:
    """Voxels in the file's axis order (x, y[, z][, channel]) and where they lie; scaled ones are float32.

    Args:
        path: The file.
        channel: The only one that is read.
        lazily: Whether to give a dask array, which reads what is asked for; the file must not be compressed.
    """
    image = _load(path)
    source = _source(image, path)
    several = source.channels > 1 and not source.rgb
    raw = (_lazy if lazily else _raw)(image, source, channel if several else None)
    if source.rgb:
        raw = np.stack([raw[colour] for colour in "RGB"], axis=-1)
        return (raw if channel is None else raw[..., channel]), source
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if (slope, inter) == (1, 0):
        return raw, source
    scaled = np.multiply(raw, slope, dtype=np.promote_types(raw.dtype, np.float32))
    scaled += inter
    return scaled.astype(np.float32, copy=False), source


def read_mask(path: Path) -> tuple[NDArray[Any], Source]:
    """Values in the file's axis order, scaled as the header says."""
    image = _load(path)
    source = _source(image, path)
    if source.channels > 1:
        raise UserError(
            f"{path} has {source.channels} channels; a mask has one number per voxel. "
            "Save one mask, with the numbers 1, 2, ... for the classes."
        )
    raw = _raw(image, source, None)
    slope, inter = image.dataobj.slope, image.dataobj.inter
    return (raw if (slope, inter) == (1, 0) else raw * float(slope) + float(inter)), source


def write(array: NDArray[Any], source: Source, path: Path, step: float | None = None) -> None:
    """Writes an array in the file's axis order with the geometry of `source`, to the bit if that is NIfTI.

    With a step, the file says that each number stands for so many times itself.
    """
    if len(source.shape) == 2 and array.ndim == 3:
        array = array[:, :, None]
    header = _header(source) if source.format == "nifti" else _fresh_header(source, array)
    header.set_data_dtype(array.dtype)
    header["cal_max"] = header["cal_min"] = 0
    header["intent_code"] = 0
    # Without an affine nibabel leaves sform and qform as they are in the header.
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(array, None, header)
    if step is not None:
        image.header.set_slope_inter(step, 0)  # an image forgets that of the header that it is given
    nib.save(image, path)


def _load(path: Path) -> Any:
    if path.suffix.lower() == ".gz":
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                raise UserError(
                    f"{path} is not compressed as its name says. If it is a NIfTI file, rename it to end "
                    "with .nii; otherwise export the scan again."
                )
    return nib.load(path, mmap=False)


def _source(image: Any, path: Path) -> Source:
    header = image.header
    shape = tuple(int(size) for size in header.get_data_shape())
    more = [size for size in shape[3:] if size > 1]
    if len(more) > 1 or (more and len(shape) > 4 and shape[3] == 1):
        raise UserError(
            f"{path} has the shape {shape}: a field of vectors or tensors, not a scan. "
            "Open the scan that it was made from."
        )
    names = header.get_data_dtype().names
    return Source(
        shape=shape[:3],
        affine=np.asarray(image.affine, dtype=np.float64),
        path=path,
        format="nifti",
        channels=3 if names else (more or [1])[0],
        rgb=bool(names),
        header=header.binaryblock,
        unit=_MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0),
    )


def _raw(image: Any, source: Source, channel: int | None) -> NDArray[Any]:
    """Unscaled voxels (*source.shape[, channels]); of a single channel no others are read."""
    path = image.dataobj.file_like
    with igzip.open(path) if str(path).lower().endswith(".gz") else nullcontext(path) as file:
        proxy = _proxy(image, source, file)
        raw: NDArray[Any] = np.asarray(proxy.get_unscaled() if channel is None else proxy[..., channel])
    return raw


def _lazy(image: Any, source: Source, channel: int | None) -> Any:
    """The same as a dask array; a chunk is some of the file's slices."""
    import dask.array

    proxy = _proxy(image, source, image.dataobj.file_like)
    file, there = source.path, proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize
    if file is not None and file.stat().st_size < there:
        raise UserError(f"{file} is cut off: {there} bytes should be there. Copy or export it again.")
    rows = proxy.shape[:2]
    slices = max(1, _CHUNK // (math.prod(rows) * proxy.dtype.itemsize))
    chunks = (*rows, slices, 1)[: len(proxy.shape)]
    array = dask.array.from_array(proxy, chunks=chunks, name=False)
    return array if channel is None else array[..., channel]


def _proxy(image: Any, source: Source, file: Any) -> ArrayProxy:
    """What reads the unscaled voxels from the image's file."""
    stored = image.dataobj
    shape = source.shape if source.channels == 1 or source.rgb else (*source.shape, source.channels)
    return ArrayProxy(file, (shape, stored.dtype, stored.offset, 1.0, 0.0), mmap=False)


def _header(source: Source) -> Any:
    kind = nib.Nifti2Header if len(source.header) == _NIFTI2_BYTES else nib.Nifti1Header
    return kind(source.header, check=False)


def _fresh_header(source: Source, array: NDArray[Any]) -> Any:
    header = nib.Nifti2Header() if max(array.shape) > _LARGEST_NIFTI1 else nib.Nifti1Header()
    header.set_data_shape(array.shape)
    affine = np.diag([source.unit, source.unit, source.unit, 1.0]) @ source.affine
    header.set_qform(affine, code=_SCANNER)
    header.set_sform(affine, code=_SCANNER)
    header.set_xyzt_units("mm")
    return header
