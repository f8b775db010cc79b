"""Readers and writers, chosen by the suffix of the file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_medcl.data import itk, nifti, pictures
from napari_medcl.data.names import stem, suffix
from napari_medcl.data.recognise import looks_like_labels as _looks_like_labels
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.errors import UserError
from napari_medcl.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


__all__ = [
    "READABLE",
    "looks_like_labels",
    "read_labels",
    "read_source",
    "read_volume",
    "stem",
    "suffix",
    "write_labels",
    "write_volume",
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
"""Suffixes of files that can be read; a folder with a DICOM series can be, too."""
_ROUNDING = 1e-3


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


def write_labels(labels: Labels, path: Path | str) -> Path:
    """Writes a mask with exactly the geometry of `labels.source`, in the smallest unsigned type.

    Without a source the mask lies where its spacing and origin say.

    Raises:
        UserError: The suffix is not one for masks, a label is negative, or the file cannot be written.
    """
    path = Path(path)
    low, high = int(labels.array.min()), int(labels.array.max())
    if low < 0:
        raise UserError(f"The mask for {path} has the label {low}; labels are 0, 1, 2, ...")
    source = labels.source or Source.of_grid(labels.shape, labels.spacing, labels.origin)
    array = source.stored(labels.array.astype(np.min_scalar_type(high), copy=False))
    with _writing(path) as part:
        if suffix(path) == ".png":
            pictures.write_mask(_plane(array, source, path), part)
        else:
            _write(array, source, path, part)
    return path


def write_volume(volume: Volume, path: Path | str, step: float | None = None) -> Path:
    """Writes maps, such as probabilities, as float32 with exactly the geometry of `volume.source`.

    Args:
        volume: The maps.
        path: Where to.
        step: What 1 stands for in maps of whole numbers, which NIfTI files then hold as they are.

    Raises:
        UserError: The suffix is not one for maps, or the file cannot be written.
    """
    path = Path(path)
    source = volume.source or Source.of_grid(volume.shape, volume.spacing, volume.origin)
    array = volume.array[0] if volume.channels == 1 else volume.array
    with _writing(path) as part:
        if step is not None and suffix(path) in (".nii", ".nii.gz"):
            nifti.write(source.stored(array), source, part, step)
        else:
            _write(source.stored(array.astype(np.float32) * (step or 1)), source, path, part)
    return path


def _write(array: NDArray[Any], source: Source, path: Path, part: Path) -> None:
    match suffix(path):
        case ".nii" | ".nii.gz":
            nifti.write(array, source, part)
        case ".nrrd" | ".mha":
            itk.write(array, source, part)
        case _:
            raise UserError(
                f"{path} cannot be written in the format that its name asks for. End the name with .nii.gz, "
                ".nii, .nrrd or .mha, or for the mask of a picture with .png."
            )


def _plane(array: NDArray[Any], source: Source, path: Path) -> NDArray[Any]:
    """The (height, width) of a mask that is to become a picture."""
    if source.format == "picture":
        return array
    if source.grid[0] > 1:
        raise UserError(f"A mask with {source.grid[0]} slices does not fit in {path}. Save it as .nii.gz.")
    plane: NDArray[Any] = source.canonical(array)[0]
    return plane


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
        return itk, "DICOM series"
    if not path.is_file():
        raise UserError(f"{path} is not there. Check the name and the folder.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. Copy or export it again.")
    if suffix(path) not in _READERS:
        raise UserError(f"{path} is of an unknown kind; known are {', '.join(READABLE)} and DICOM folders.")
    return _READERS[suffix(path)]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        with whole(path) as part:
            yield part
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}. Choose a folder that is "
            "there, has space and may be written to."
        ) from error


def _check_channel(source: Source, channel: int, path: Path) -> None:
    if not 0 <= channel < source.channels:
        raise UserError(f"{path} has no channel {channel}: it has {source.channels}, counted from 0. Choose another.")


def _numbers(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Integers in native byte order, or finite float32."""
    if array.dtype.kind in "iub":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind != "f":
        raise UserError(f"{path} holds values of the type {array.dtype}, no grey values or colours.")
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32, copy=False)
        if np.isfinite(array.sum()):
            return array
    finite = np.isfinite(array)
    if not finite.any():
        raise UserError(f"{path} holds no finite value. Export the scan again.")
    return np.where(finite, array, np.float32(0))


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
