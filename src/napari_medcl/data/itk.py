"""What SimpleITK reads: NRRD, MetaImage (.mha, .mhd) and folders with a DICOM series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.geometry import Source
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_FLIP = np.array([-1.0, -1.0, 1.0])
"""LPS to RAS."""
_POSITION = "0020|0032"
_FRAMES = "0028|0008"
_UNEVEN = 0.05
"""Steps between slices may differ by so much of their mean; more means that slices are missing."""


def read_source(path: Path) -> Source:
    """What the header says, or the headers of all slices."""
    return _series_source(path, _series(path)) if path.is_dir() else _source(path)


def read_scan(path: Path, channel: int | None) -> tuple[NDArray[Any], Source]:
    """Voxels in ITK's axis order (x, y[, z][, channel]) and where they lie."""
    import SimpleITK as sitk  # noqa: N813

    files = _series(path) if path.is_dir() else []
    source = _series_source(path, files) if files else _source(path)
    image = sitk.ReadImage(files or str(path))
    array = sitk.GetArrayFromImage(image)
    many = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() == 4:
        array = np.moveaxis(array, 0, -1)
    last = [array.ndim - 1] if many or image.GetDimension() == 4 else []
    array = array.transpose(*range(len(source.shape))[::-1], *last)
    if last and source.channels == 1:
        array = array[..., 0]
    return (array if channel is None or source.channels == 1 else array[..., channel]), source


def read_mask(path: Path) -> tuple[NDArray[Any], Source]:
    """Values in ITK's axis order."""
    array, source = read_scan(path, None)
    if source.channels > 1:
        raise UserError(
            f"{path} has {source.channels} channels; a mask has one number per voxel. "
            "Save one mask, with the numbers 1, 2, ... for the classes."
        )
    return array, source


def write(array: NDArray[Any], source: Source, path: Path) -> None:
    """Writes an array in the file's axis order with the geometry of `source`, to the bit if that is ITK."""
    import SimpleITK as sitk  # noqa: N813

    dims = len(source.shape)
    several = array.ndim > dims
    turned = array.transpose(*range(dims)[::-1], *range(dims, array.ndim))
    image = sitk.GetImageFromArray(np.ascontiguousarray(turned), isVector=several)
    origin, spacing, direction = _unpack(source.header, dims) if source.format == "itk" else _frame(source)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _frame(source: Source) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Origin, spacing and direction (LPS) of a source of another format."""
    dims = len(source.shape)
    lps = source.unit * source.affine[:3] * _FLIP[:, None]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    direction = lps[:, :3] / spacing
    if dims == 2:
        # A plane in space has no 2D direction; pictures and axial slices do.
        return lps[:2, 3], spacing[:2], direction[:2, :2]
    return lps[:, 3], spacing, direction


def _pack(origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float]) -> bytes:
    return np.array([*origin, *spacing, *direction], dtype="<f8").tobytes()


def _unpack(header: bytes, dims: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    numbers = np.frombuffer(header, dtype="<f8")
    return numbers[:dims], numbers[dims : 2 * dims], numbers[2 * dims :].reshape(dims, dims)


def _information(path: Path | str) -> Any:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.LoadPrivateTagsOff()
    reader.ReadImageInformation()
    return reader


def _source(path: Path) -> Source:
    reader = _information(path)
    size, whole = reader.GetSize(), reader.GetDimension()
    components = reader.GetNumberOfComponents()
    if whole > 4 or (whole == 4 and components > 1 and size[3] > 1):
        raise UserError(f"{path} has {whole} axes and {components} numbers per voxel; a scan has 2-4 and 1.")
    dims = min(whole, 3)
    origin, spacing = reader.GetOrigin()[:dims], reader.GetSpacing()[:dims]
    direction = np.reshape(reader.GetDirection(), (whole, whole))[:dims, :dims]
    affine = np.eye(4)
    affine[:dims, :dims] = direction * spacing
    affine[:dims, 3] = origin
    affine[:3] *= _FLIP[:, None]
    return Source(
        shape=size[:dims],
        affine=affine,
        path=path,
        format="itk",
        channels=components * (size[3] if whole == 4 else 1),
        rgb=components == 3 and "8-bit unsigned" in _type_name(reader),
        header=_pack(origin, spacing, direction.ravel().tolist()),
    )


def _type_name(reader: Any) -> str:
    import SimpleITK as sitk  # noqa: N813

    return str(sitk.GetPixelIDValueAsString(reader.GetPixelID()))


def _series(folder: Path) -> list[str]:
    """The files of the one series in a folder, in order of their position."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # our message says it better
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise UserError(f"{folder} holds no DICOM series. Choose a scan, or a folder with one series.")
    if len(series) > 1:
        raise UserError(f"{folder} holds {len(series)} DICOM series. Put each into a folder of its own.")
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))


def _series_source(folder: Path, files: list[str]) -> Source:
    """The geometry of a series by the positions of its slices, which SliceThickness need not tell."""
    headers = [_information(file) for file in files]
    first = headers[0]
    if first.HasMetaDataKey(_FRAMES) and int(first.GetMetaData(_FRAMES)) > 1:
        raise UserError(f"{folder} holds a multi-frame DICOM file, which is not read. Convert it to NIfTI.")
    columns = np.reshape(first.GetDirection(), (first.GetDimension(),) * 2)[:3, :3] * first.GetSpacing()[:3]
    places = np.array([_position(header) for header in headers])
    if len(files) > 1:
        columns[:, 2] = (places[-1] - places[0]) / (len(files) - 1)
        _check_even(np.diff(places, axis=0), folder)
    spacing = np.linalg.norm(columns, axis=0)
    affine = np.eye(4)
    affine[:3] = np.column_stack([columns, places[0]]) * _FLIP[:, None]
    width, height = first.GetSize()[:2]
    return Source(
        shape=(width, height, len(files)),
        affine=affine,
        path=folder,
        format="itk",
        channels=first.GetNumberOfComponents(),
        rgb=first.GetNumberOfComponents() == 3,
        header=_pack(places[0].tolist(), spacing.tolist(), (columns / spacing).ravel().tolist()),
    )


def _position(header: Any) -> list[float]:
    if header.HasMetaDataKey(_POSITION):
        return [float(number) for number in header.GetMetaData(_POSITION).split("\\")]
    return list(header.GetOrigin()[:3])


def _check_even(steps: NDArray[np.float64], folder: Path) -> None:
    mean = steps.mean(axis=0)
    length = np.linalg.norm(mean)
    if length == 0 or np.linalg.norm(steps - mean, axis=1).max() > _UNEVEN * length:
        raise UserError(
            f"The slices in {folder} are not evenly spaced: some are missing, or several lie at one position "
            "(time points, copies). Put the slices of one complete stack into a folder of their own."
        )
