"""The examples run, and the README shows them as they are."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_readme_shows_it(path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"```python\n{path.read_text('utf-8')}```" in readme


def test_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six bright balls on noise, five of them with masks."""
    data, out = tmp_path / "data", tmp_path / "out"
    affine = np.diag([1.5, 1.0, 2.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    for number in range(6):
        scan, mask = _ball(np.random.default_rng(number))
        _write(data / "images" / f"ball{number}.nii.gz", scan, affine)
        if number < 5:
            _write(data / "labels" / f"ball{number}.nii.gz", mask, affine)
    runpy.run_path(str(ROOT / "examples" / "main_job.py"))["main"](data, out, minutes=0.05)
    assert "kind='finished'" in capsys.readouterr().out
    made = nib.load(out / "ball5.nii.gz")
    np.testing.assert_array_equal(made.affine, affine)
    assert made.shape == (16, 18, 20)
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["case"] for row in rows}) == 1, "a quarter of five patients"


def _ball(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    middle = np.array([8, 9, 10]) + random.uniform(-2, 2, 3)
    place = np.moveaxis(np.indices((16, 18, 20)), 0, -1)
    inside = np.linalg.norm(place - middle, axis=-1) < 5
    return (100 * inside + random.normal(0, 10, inside.shape)).astype(np.float32), inside.astype(np.uint8)


def _write(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
