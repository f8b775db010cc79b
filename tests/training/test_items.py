"""Items: masks as classes, slices that nobody annotated, slices that validate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.data.loader import Item
from napari_medcl.data.plan import make_plan
from napari_medcl.data.volume import IGNORE
from napari_medcl.training.config import FinetuneConfig
from napari_medcl.training.dataset import read_cases
from napari_medcl.training.items import hold_out_slices, labelled_item, to_indices
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_values_become_indices_and_what_is_no_class_is_ignored() -> None:
    found = to_indices(np.array([0, 4, 255, 9, 1, 300]), {0: "background", 1: "a", 4: "b"})
    assert found.tolist() == [0, 2, IGNORE, IGNORE, 1, IGNORE]


def test_slices_without_labels_are_ignored_where_asked_for(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=1, masks=1)
    path = folder / "labelsTr" / "case_0.nii.gz"
    file = nib.load(path)
    array = np.asarray(file.dataobj).copy()
    array[:, :, :6] = 0
    nib.save(nib.Nifti1Image(array, file.affine), path)
    config = FinetuneConfig(folder=folder, annotated="nonempty", dims="2d")
    (case,) = read_cases(Run(tmp_path / "run"), config)
    plan, _ = make_plan([case.volume()], "2d")
    classes = {0: "background", 1: "a", 2: "b"}
    partly = labelled_item(case, plan, classes, config)
    filled = array.any((0, 1))
    assert partly.annotated.tolist() == np.flatnonzero(filled).tolist()
    whole = labelled_item(case, plan, classes, config.model_copy(update={"annotated": "all"}))
    assert len(whole.annotated) == 16


def test_held_out_slices_train_nothing() -> None:
    labels = np.full((20, 4, 4), IGNORE, np.uint8)
    labels[::2] = 0
    train, val = hold_out_slices(Item("a", np.zeros((1, 20, 4, 4), np.float32), labels), 0.2)
    assert not set(train.annotated) & set(val.annotated)
    assert sorted([*train.annotated, *val.annotated]) == list(range(0, 20, 2))
    assert len(val.annotated) == 2


@pytest.mark.parametrize(("slices", "held"), [(1, 0), (2, 1), (3, 1), (6, 1)])
@pytest.mark.parametrize("fraction", [0, 0.2])
def test_of_few_slices_one_is_held_out_unless_it_is_the_only_one(slices: int, held: int, fraction: float) -> None:
    labels = np.full((9, 4, 4), IGNORE, np.uint8)
    labels[:slices] = 1
    train, val = hold_out_slices(Item("a", np.zeros((1, 9, 4, 4), np.float32), labels), fraction)
    assert (len(train.annotated), len(val.annotated)) == (slices - held, held)
