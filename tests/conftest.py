"""Fixtures that several parts share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference numbers and real scans, beside the checkout; skips where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference numbers and scans are not at {folder}")
    return folder


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, queues and caches go to folders of the test's own."""
    monkeypatch.setenv("MEDCL_RUNS", str(tmp_path_factory.mktemp("runs")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def blobs(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data folder of scans, each with a bright ball (1) and a dark one (2) at random places."""

    def make(
        scans: int = 4, masks: int = 4, shape: tuple[int, int, int] = (24, 24, 16), spacing: float = 1.0, seed: int = 0
    ) -> Path:
        random, folder = np.random.default_rng(seed), tmp_path / "blobs"
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

    return make
