"""The sample is a real brain in the right place, and needs no network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.data import sample
from napari_medcl.data.cases import find_cases
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nilearn")
    folder = tmp_path_factory.mktemp("sample")
    sample.write_sample(folder)
    return folder


def test_a_data_folder(folder: Path) -> None:
    cases = find_cases(folder)
    assert [case.id for case in cases] == ["icbm152"]
    assert cases.names == {1: "grey matter", 2: "white matter"}
    volume, truth = cases[0].volume(), cases[0].truth()
    assert volume.array.shape == (1, 95, 117, 99)
    assert volume.spacing == (2.0, 2.0, 2.0)
    assert truth.array.shape == volume.shape


def test_tissue_volumes_and_intensities(folder: Path) -> None:
    case = find_cases(folder)[0]
    t1, labels = case.volume().array[0].astype(float), case.truth().array
    litres = [np.count_nonzero(labels == value) * 8e-6 for value in (1, 2)]
    assert 0.9 < litres[0] < 1.2, "grey matter of the template"
    assert 0.5 < litres[1] < 0.8, "white matter of the template"
    assert t1[labels == 0].mean() < t1[labels == 1].mean() < t1[labels == 2].mean(), "T1: white matter is bright"
    assert t1.max() > 245, "uses the range of the stored type"


def test_world_coordinates(folder: Path) -> None:
    """The origin lies in the brain: 7 cm from its front, 10 cm from its back, in the middle."""
    image = nib.load(folder / "labelsTr" / "icbm152.nii.gz")
    inside = nib.affines.apply_affine(image.affine, np.argwhere(np.asanyarray(image.dataobj) > 0))
    low, high = inside.min(axis=0), inside.max(axis=0)
    np.testing.assert_allclose([low[0], high[0]], [-72, 72], atol=6)
    np.testing.assert_allclose([low[1], high[1]], [-105, 72], atol=6)
    assert image.header["sform_code"] == image.header["qform_code"] == 4


def test_load_keeps_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nilearn")
    monkeypatch.setattr(sample, "user_cache_dir", lambda _: str(tmp_path))
    volume, labels = sample.load_sample()
    assert volume.source is not None
    assert volume.source.path == tmp_path / "sample" / "imagesTr" / "icbm152.nii.gz"
    assert set(np.unique(labels.array)) == {0, 1, 2}
    monkeypatch.setattr(sample, "write_sample", lambda _: pytest.fail("written twice"))
    again, _ = sample.load_sample()
    np.testing.assert_array_equal(again.array, volume.array)


def test_without_nilearn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(UserError, match=r"pip install .medcl\[sample\]"):
        sample.write_sample(tmp_path)
    assert not any(tmp_path.iterdir())


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        sample.write_sample(tmp_path / "file")
