from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import read_labels, read_volume
from napari_medcl.data.volume import Labels, Volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.gui.inputs import Pair, case_ids, write_inputs

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)


def write(pairs: list[Pair], folder: Path) -> Path:
    return write_inputs(pairs, folder, lambda _: None, lambda: False)


def test_layers_become_a_data_folder(scan: Path, mask: Path, tmp_path: Path) -> None:
    volume, labels = read_volume(scan), read_labels(mask)
    named = Labels(labels.array, labels.spacing, labels.origin, labels.source, {1: "ball"})
    drawn = Labels(labels.array)
    unlabelled = Volume(RANDOM.random((2, 6, 5, 4), np.float32), spacing=(3, 1, 1), origin=(5, 6, 7))
    pairs = [Pair("a scan", volume, named), Pair("a scan", unlabelled)]
    cases = find_cases(write(pairs, tmp_path / "inputs"))
    assert [case.id for case in cases] == ["a-scan", "a-scan-2"]
    assert cases.names[1] == "ball"
    first, second = cases
    assert np.array_equal(first.truth().array, drawn.array)
    assert np.array_equal(first.volume().array, volume.array)
    assert np.array_equal(first.volume().source.affine, volume.source.affine)  # type: ignore[union-attr]
    assert second.labels is None
    assert second.volume().channels == 2
    assert second.volume().spacing == (3, 1, 1)


def test_picture_stays_a_picture(tmp_path: Path) -> None:
    photo = Volume(RANDOM.integers(0, 255, (3, 1, 20, 30), np.uint8), rgb=True)
    lesion = Labels((RANDOM.random((1, 20, 30)) > 0.5).astype(np.uint8))
    (case,) = find_cases(write([Pair("photo", photo, lesion)], tmp_path / "inputs"))
    assert case.volume().rgb
    assert np.array_equal(case.volume().array, photo.array)
    assert np.array_equal(case.truth().array, lesion.array)


def test_mask_of_another_shape_is_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"“scan” has 4 × 5 × 6 voxels, the scan has 3 × 5 × 6"):
        Pair("scan", Volume(np.zeros((1, 3, 5, 6))), Labels(np.zeros((4, 5, 6), int)))


def test_mask_of_another_place_is_refused_in_words() -> None:
    with pytest.raises(UserError, match="lies elsewhere"):
        Pair("scan", Volume(np.zeros((1, 3, 5, 6))), Labels(np.zeros((3, 5, 6), int), origin=(0, 9, 0)))


def test_names_of_layers_become_names_of_files() -> None:
    assert case_ids(["a/b c", "a b c", "x.nii.gz", "…"]) == ["a-b-c", "a-b-c-2", "x", "scan"]


def test_stop_writes_no_further(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        write_inputs([Pair("scan", Volume(np.zeros((1, 3, 5, 6))))], tmp_path / "inputs", lambda _: None, lambda: True)


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write([Pair("scan", Volume(np.zeros((1, 3, 5, 6))))], tmp_path / "file" / "inputs")
