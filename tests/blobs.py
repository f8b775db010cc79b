"""Scans that are quickly made, and can be learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def write_blobs(
    folder: Path,
    scans: int = 4,
    masks: int = 4,
    shape: tuple[int, int, int] = (24, 24, 16),
    spacing: float = 1.0,
    seed: int = 0,
) -> Path:
    """A data folder of scans, each with a bright ball (1) and a dark one (2) at random places."""
    random = np.random.default_rng(seed)
    affine = np.diag([1.0, 1.0, spacing, 1.0])
    for side in ("imagesTr", "labelsTr"):
        (folder / side).mkdir(parents=True)
    for number in range(scans):
        image = random.normal(0, 0.1, shape).astype(np.float32)
        mask = np.zeros(shape, np.uint8)
        for value, brightness in ((1, 1.0), (2, -1.0)):
            centre = [random.uniform(0.3, 0.7) * side for side in shape]
            far = sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, shape))], centre, strict=True))
            inside = far < (min(shape) * 0.22) ** 2
            mask[inside], image[inside] = value, image[inside] + brightness
        nib.save(nib.Nifti1Image(image, affine), folder / "imagesTr" / f"case_{number}.nii.gz")
        if number < masks:
            nib.save(nib.Nifti1Image(mask, affine), folder / "labelsTr" / f"case_{number}.nii.gz")
    return folder
