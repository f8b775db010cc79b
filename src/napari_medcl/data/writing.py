"""Writers, chosen by the suffix of the file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data import itk, ngff, nifti, pictures
from napari_medcl.data.names import ZARR, suffix
from napari_medcl.data.volume import Labels, Source, Volume, voxels
from napari_medcl.errors import UserError
from napari_medcl.files import whole, whole_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def map_suffix(source: Source | None) -> str:
    """Of what is made of a scan, unless somebody asks for another: OME-Zarr of OME-Zarr, NIfTI of all else."""
    return ".ome.zarr" if source is not None and source.format == "zarr" else ".nii.gz"


def mask_suffix(source: Source | None) -> str:
    """Of the mask of a scan: PNG of a picture, else as all that is made of it."""
    return ".png" if source is not None and source.format == "picture" else map_suffix(source)


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
        step: What 1 stands for in maps of whole numbers. NIfTI files hold them as they are and say so; OME-Zarr holds
            them and cannot say it.

    Raises:
        UserError: The suffix is not one for maps, or the file cannot be written.
    """
    path = Path(path)
    source = volume.source or Source.of_grid(volume.shape, volume.spacing, volume.origin)
    array = volume.array[0] if volume.channels == 1 else volume.array
    with _writing(path) as part:
        if step is not None and suffix(path) in (".nii", ".nii.gz"):
            nifti.write(source.stored(array), source, part, step)
        elif step is not None and suffix(path) in ZARR:
            ngff.write(source.stored(array), source, part)
        else:
            array = array.astype(np.float32, copy=False)
            _write(source.stored(array if step is None else array * step), source, path, part)
    return path


def _write(array: NDArray[Any], source: Source, path: Path, part: Path) -> None:
    match suffix(path):
        case ".nii" | ".nii.gz":
            nifti.write(voxels(array), source, part)
        case ".nrrd" | ".mha":
            itk.write(voxels(array), source, part)
        case end if end in ZARR:
            ngff.write(array, source, part)
        case _:
            raise UserError(
                f"{path} cannot be written in the format that its name asks for. End the name with .nii.gz, "
                ".nii, .nrrd, .mha or .ome.zarr, or for the mask of a picture with .png."
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
def _writing(path: Path) -> Iterator[Path]:
    folder = suffix(path) in ZARR
    if folder and path.is_dir() and any(path.iterdir()) and not ngff.is_zarr(path):
        raise UserError(f"{path} is a folder with other files, which OME-Zarr would replace. Choose another name.")
    try:
        with (whole_folder if folder else whole)(path) as part:
            yield part
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}. Choose a folder that is "
            "there, has space and may be written to."
        ) from error
