"""Readers, chosen by the suffix of the file or by what a folder holds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_medcl.data import itk, ngff, nifti, pictures
from napari_medcl.data.names import stem, suffix
from napari_medcl.data.recognise import looks_like_labels as _looks_like_labels
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


__all__ = [
    "LAZY",
    "READABLE",
    "is_scan",
    "looks_like_labels",
    "open_volume",
    "read_labels",
    "read_source",
    "read_volume",
    "stem",
    "suffix",
]


class _Reader(Protocol):
    def read_source(self, path: Path) -> Source: ...

    def read_scan(self, path: Path, channel: int | None) -> tuple[NDArray[Any], Source]: ...

    def read_mask(self, path: Path) -> tuple[NDArray[Any], Source]: ...


_READERS: dict[str, tuple[_Reader, str]] = {
    **dict.fromkeys((".nii", ".nii.gz"), (nifti, "NIfTI file")),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), (pictures, "picture")),
    **dict.fromkeys((".nrrd", ".mha", ".mhd"), (itk, "NRRD or MetaImage file")),
}
READABLE = tuple(_READERS)
"""Suffixes of files that can be read; an OME-Zarr folder and one with a DICOM series can be, too."""
LAZY = 2**28
"""Bytes of an uncompressed NIfTI file from which on `open_volume` leaves it on the disk."""
_ROUNDING = 1e-3


def is_scan(path: Path) -> bool:
    """Whether a file or folder has a name, or is a folder with files, that can be read as a scan or mask."""
    if not path.is_dir():
        return suffix(path) in READABLE
    return ngff.is_zarr(path) or any(path.glob("*.dcm"))


def read_source(path: Path | str) -> Source:
    """What the header says about shape, channels and geometry; voxels are not read.

    Raises:
        UserError: The file cannot be read.
    """
    path = Path(path)
    with _reading(path) as reader:
        return reader.read_source(path)


def read_volume(path: Path | str, channel: int | None = None) -> Volume:
    """The scan in a file, or in a folder with a DICOM series.

    Integers stay as stored; scaled values and floats become float32, with 0 for what is not finite.

    Args:
        path: The file or folder.
        channel: The channel, time point or colour wanted, from 0; None for all.

    Raises:
        UserError: The file cannot be read, has no such channel, or is not a scan.
    """
    path = Path(path)
    with _reading(path) as reader:
        if channel is not None:
            _check_channel(reader.read_source(path), channel, path)
        array, source = reader.read_scan(path, channel)
        array = source.canonical(_numbers(array, path))
    return Volume(
        array=array if array.ndim == 4 else array[None],
        spacing=source.spacing,
        origin=source.origin,
        source=source,
        rgb=source.rgb and channel is None,
    )


def open_volume(path: Path | str, channel: int | None = None) -> Volume:
    """The same as `read_volume`, but what can stay on the disk does: OME-Zarr, and large NIfTI files as .nii.

    The array is then dask's: a part of it is read when it is asked for, as `voxels(volume.array[:, begin:end])`.

    Raises:
        UserError: See `read_volume`; only the header and the metadata are looked at here.
    """
    path = Path(path)
    with _reading(path) as reader:
        source = reader.read_source(path)
        if source.rgb or not (reader is ngff or (suffix(path) == ".nii" and path.stat().st_size >= LAZY)):
            return read_volume(path, channel)
        if channel is not None:
            _check_channel(source, channel, path)
        array, source = (ngff if reader is ngff else nifti).read_scan(path, channel, lazily=True)
        array = source.canonical(_numbers(array, path))
    return Volume(array if array.ndim == 4 else array[None], source.spacing, source.origin, source)


def read_labels(path: Path | str) -> Labels:
    """The mask in a file; integers that were stored as floats are taken, other floats are not.

    Raises:
        UserError: The file cannot be read or is not a mask.
    """
    path = Path(path)
    with _reading(path) as reader:
        array, source = reader.read_mask(path)
        array = source.canonical(_integers(array, path))
    return Labels(array=array, spacing=source.spacing, origin=source.origin, source=source)


def looks_like_labels(scan: Path | str | Volume | NDArray[Any]) -> bool:
    """Whether a file, scan or array is rather a mask than an image.

    A file that cannot be read as a mask is none.
    """
    if isinstance(scan, np.ndarray):
        return _looks_like_labels(scan)
    if isinstance(scan, Volume):
        path = scan.source.path if scan.source else None
        if path is None or scan.source is None or scan.source.format != "picture":
            return scan.channels == 1 and _looks_like_labels(scan.array[0], path)
        scan = path  # palettes and white need the file
    try:
        return _looks_like_labels(read_labels(scan).array, Path(scan))
    except UserError:
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[_Reader]:
    """The reader for a file; whatever it meets there becomes a message for the user."""
    reader, kind = _reader(path)
    try:
        yield reader
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make a parser raise anything
        reason = " ".join(str(error).split())[-200:] or type(error).__name__
        raise UserError(
            f"{path} cannot be read: it is cut off, damaged, or no {kind} ({reason}). "
            "Copy or export it again, or choose another file."
        ) from error


def _reader(path: Path) -> tuple[_Reader, str]:
    if path.is_dir():
        return (ngff, "OME-Zarr image") if ngff.is_zarr(path) else (itk, "DICOM series")
    if not path.is_file():
        raise UserError(f"{path} is not there. Check the name and the folder.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. Copy or export it again.")
    if suffix(path) not in _READERS:
        raise UserError(
            f"{path} is of an unknown kind; known are {', '.join(READABLE)} and folders with OME-Zarr or DICOM."
        )
    return _READERS[suffix(path)]


def _check_channel(source: Source, channel: int, path: Path) -> None:
    if not 0 <= channel < source.channels:
        raise UserError(f"{path} has no channel {channel}: it has {source.channels}, counted from 0. Choose another.")


def _numbers(array: Any, path: Path) -> Any:
    """Integers in native byte order, or finite float32."""
    if array.dtype.kind in "iub":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind != "f":
        raise UserError(f"{path} holds values of the type {array.dtype}, no grey values or colours.")
    if not isinstance(array, np.ndarray):
        lazy: NDArray[Any] = array.map_blocks(_finite, dtype=np.float32)
        return lazy
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32, copy=False)
        if np.isfinite(array.sum()):
            return array
    if not np.isfinite(array).any():
        raise UserError(f"{path} holds no finite value. Export the scan again.")
    return _finite(array)


def _finite(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(array.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)


def _integers(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        with np.errstate(invalid="ignore"):
            whole_numbers = bool((np.abs(array - rounded) < _ROUNDING).all())
        if not whole_numbers or np.abs(rounded).max() >= 2**31:
            raise UserError(
                f"{path} is not a mask: its values are not all whole numbers. Choose the mask, or round it."
            )
        array = rounded.astype(np.int32)
    elif array.dtype.kind not in "iub":
        raise UserError(f"{path} is not a mask: it holds values of the type {array.dtype}.")
    if array.min() < 0:
        raise UserError(f"{path} is not a mask: it has the value {array.min()}; labels are 0, 1, 2, ...")
    return array.astype(np.min_scalar_type(int(array.max())), copy=False)
