"""The scan that comes along: a T1 template of the brain with its grey and white matter.

nilearn carries the ICBM152 2009 template (Fonov et al., NeuroImage 2011), the mean of 152 brains, with
probability maps of grey and white matter. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from platformdirs import user_cache_dir

from napari_medcl.data.formats import read_labels, read_volume
from napari_medcl.errors import UserError
from napari_medcl.files import whole, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medcl.data.volume import Labels, Volume

_NAME = "icbm152.nii.gz"
_SPACING_MM = 2
_NAMES = {0: "background", 1: "grey matter", 2: "white matter"}


def load_sample() -> tuple[Volume, Labels]:
    """The T1 template (1, 95, 117, 99) at 2 mm and its mask: 1 grey matter, 2 white matter.

    The files are kept in the user's cache folder, so that the scan can be trained on like any other.

    Raises:
        UserError: nilearn is not installed.
    """
    folder = Path(user_cache_dir("medcl")) / "sample"
    scan, mask = _paths(folder)
    if not (scan.is_file() and mask.is_file()):
        write_sample(folder)
    return read_volume(scan), replace(read_labels(mask), names=_NAMES)


def write_sample(folder: Path) -> tuple[Path, Path]:
    """Writes the sample as a data folder: `imagesTr`, `labelsTr`, `dataset.json`.

    Returns:
        The files of the scan and of its mask.

    Raises:
        UserError: nilearn is not installed, or the folder cannot be written.
    """
    t1, labels, affine = _brain()
    scan, mask = _paths(folder)
    try:
        for path, array in ((scan, t1), (mask, labels)):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, array, affine)
        classes = {name: value for value, name in _NAMES.items()}
        write_json(folder / "dataset.json", {"name": "ICBM152", "labels": classes, "file_ending": ".nii.gz"})
    except OSError as error:
        raise UserError(f"The sample cannot be written to {folder}: {error}. Choose another folder.") from error
    return scan, mask


def _paths(folder: Path) -> tuple[Path, Path]:
    return folder / "imagesTr" / _NAME, folder / "labelsTr" / _NAME


def _brain() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """T1 and labels (X, Y, Z), and the affine in RAS mm; a voxel belongs to the likeliest tissue."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise UserError('The sample needs nilearn. Install it with: pip install "medcl[sample]"') from error
    t1 = datasets.load_mni152_template(resolution=_SPACING_MM)
    grey, white = (
        load(resolution=_SPACING_MM).get_fdata()
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    labels = np.argmax([1 - grey - white, grey, white], axis=0).astype(np.uint8)
    scaled = np.rint(np.clip(t1.get_fdata(), 0, 1) * 255).astype(np.uint8)
    return scaled, labels, t1.affine


def _write(path: Path, array: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="mni")
    image.set_sform(affine, code="mni")
    with whole(path) as part:
        nib.save(image, part)
