from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.data import cache, scans
from napari_medcl.data.cache import home
from napari_medcl.data.case import Case
from napari_medcl.data.conform import Conformed
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.data.scans import kept_image, kept_volume
from napari_medcl.data.writing import write_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

PLAN = Plan(channels=1, spatial_dims=3, spacing=(1, 1, 1), patch=(4, 4, 4), intensities=(Intensity(scheme="scan"),))


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A scan that is turned, scaled and worth keeping."""
    monkeypatch.setattr(scans, "_WORTH", 1)
    affine = np.array([[0, -0.7, 0, 3], [0.8, 0, 0, -5], [0, 0, 2.5, 1], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(np.random.default_rng(0).integers(-9, 99, (9, 8, 7), np.int16), affine)
    nib.save(image, tmp_path / "scan.nii.gz")
    return Case("scan", (tmp_path / "scan.nii.gz",))


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Case, channel: int | None = None, *, lazily: bool = False) -> None:
        pytest.fail("it is read again")

    monkeypatch.setattr(Case, "volume", fail)


def test_a_scan_is_read_once_and_stays_what_it_is(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = case.volume()
    kept_volume(case, None)
    unreadable(monkeypatch)
    found = kept_volume(case, None)
    assert isinstance(found.array, np.memmap)
    assert np.array_equal(found.array, expected.array)
    assert found.array.dtype == expected.array.dtype
    assert (found.spacing, found.origin, found.rgb) == (expected.spacing, expected.origin, expected.rgb)
    assert found.source is not None
    assert expected.source is not None
    assert found.source.to_dict() == expected.source.to_dict()


def test_a_copy_of_the_file_is_known_and_named_by_its_own_path(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_volume(case, None)
    copy = shutil.copy(case.images[0], case.images[0].with_name("copy.nii.gz"))
    unreadable(monkeypatch)
    found = kept_volume(Case("copy", (copy,), labels=case.images[0]), None)
    assert found.source is not None
    assert found.source.path == copy


def test_a_file_that_changes_is_read_again(case: Case) -> None:
    kept_volume(case, None)
    image = nib.load(case.images[0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), case.images[0])
    assert np.array_equal(kept_volume(case, None).array, case.volume().array)


@pytest.mark.parametrize("text", [None, "", "{}", '{"spacing": 3}', "[]"])
def test_without_its_description_a_scan_is_read_again(case: Case, text: str | None) -> None:
    kept_volume(case, None)
    (about,) = (home() / "volumes").glob("*.json")
    if text is None:
        about.unlink()
    else:
        about.write_text(text)
    assert kept_volume(case, None).spacing == case.volume().spacing
    assert json.loads(about.read_text())["rgb"] is False


def test_small_scans_are_not_kept(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "_WORTH", 10**6)
    kept_volume(case, None)
    kept_image(case, PLAN, None)
    assert not home().exists()


def test_an_image_on_the_grid_is_made_once_for_each_plan(
    case: Case, monkeypatch: pytest.MonkeyPatch, blobs: Callable[..., Path]
) -> None:
    other = PLAN.model_copy(update={"spacing": (2.0, 1.0, 1.0)})
    expected = {plan.spacing: plan.conform(case.volume()) for plan in (PLAN, other)}
    names = {kept_image(case, plan, None)[1] for plan in (PLAN, other)}
    assert len(names) == 2
    unreadable(monkeypatch)
    for plan in (PLAN, other, PLAN.model_copy(update={"patch": (8, 8, 8)})):
        found, name = kept_image(case, plan, None)
        assert isinstance(found, np.memmap)
        assert np.array_equal(found, expected[plan.spacing])
        assert name in names


def test_channels_are_kept_apart(case: Case, tmp_path: Path) -> None:
    image = nib.load(case.images[0])
    both = np.stack([np.asarray(image.dataobj), np.asarray(image.dataobj) + 5], -1)
    nib.save(nib.Nifti1Image(both, image.affine), tmp_path / "both.nii.gz")
    case = replace(case, images=(tmp_path / "both.nii.gz",))
    for channel in (0, 1, None, 0, 1, None):
        assert np.array_equal(kept_volume(case, channel).array, case.volume(channel).array)


def test_a_scan_that_stays_on_the_disk_becomes_an_image_there(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.ome.zarr"
    write_volume(case.volume(), path)
    case = Case("scan", (path,))
    monkeypatch.setattr(scans, "_AT_A_TIME", 2)
    asked = []
    slices = Conformed.__getitem__

    def watched(self: Conformed, key: tuple[slice, slice]) -> NDArray[np.float32]:
        found = slices(self, key)
        asked.append(found.shape[1])
        return found

    monkeypatch.setattr(Conformed, "__getitem__", watched)
    plan = PLAN.model_copy(update={"spacing": (1.7, 0.9, 1.0)})
    found, _ = kept_image(case, plan, None)
    assert max(asked) == 2
    assert sum(asked) == found.shape[1]
    assert np.array_equal(found, plan.conform(case.volume()))
    assert isinstance(found, np.memmap)
    assert not (home() / "volumes").exists()


def test_without_room_on_the_disk_it_becomes_one_in_memory(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan.ome.zarr"
    write_volume(case.volume(), path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "blank", full)
    found, _ = kept_image(Case("scan", (path,)), PLAN, None)
    assert np.array_equal(found, PLAN.conform(case.volume()))
