"""From folders to items: patients, classes, slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_medcl.data.volume import Labels
from napari_medcl.errors import UserError
from napari_medcl.training import dataset
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def mask(*values: int) -> Labels:
    return Labels(np.array(values, np.uint8).reshape(1, 1, -1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def test_classes_are_those_that_occur_and_the_others_are_named() -> None:
    classes, warnings = dataset.find_classes({1: "liver", 3: "spleen", 4: "kidney"}, [mask(0, 1, 255), mask(0, 4, 7)])
    assert classes == {0: "background", 1: "liver", 4: "kidney", 7: "class 7"}
    assert len(warnings) == 1
    assert "spleen (3)" in warnings[0]


def test_masks_without_foreground_are_refused() -> None:
    with pytest.raises(UserError, match="anything but background"):
        dataset.find_classes({1: "liver"}, [mask(0, 255)])


def test_no_patient_is_on_two_sides(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=9, masks=8)
    config = FinetuneConfig(folder=folder, groups=r"case_(\d)", val=0.25, test=0.25)
    sides = dataset.divide(config, dataset.read_cases(Run(tmp_path / "run"), config))
    names = [{case.group for case in side} for side in (sides.train, sides.val, sides.test)]
    assert [len(side) for side in names] == [4, 2, 2]
    assert not (names[0] & names[1] | names[1] & names[2] | names[0] & names[2])
    assert [case.id for case in sides.unlabelled] == ["case_8"]


def test_unlabelled_scans_of_judging_patients_are_left_out(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = blobs(scans=6, masks=4)
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"case_{n},{n % 3}\n" for n in range(6)))
    config = PretrainConfig(folder=folder, groups=str(table), val=0.34, test=0.34)
    sides = dataset.divide(config, dataset.read_cases(Run(tmp_path / "run"), config))
    judged = {case.group for case in (*sides.val, *sides.test)}
    assert len(judged) == 2
    assert {case.group for case in sides.unlabelled} <= {case.group for case in sides.train}


def test_one_patient_alone_trains(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = FinetuneConfig(folder=blobs(scans=1, masks=1), test=0.4)
    sides = dataset.divide(config, dataset.read_cases(Run(tmp_path / "run"), config))
    assert (len(sides.train), len(sides.val), len(sides.test)) == (1, 0, 0)


def test_the_labelled_cases_depend_on_seed_and_names_alone(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = FinetuneConfig(folder=blobs())
    train = dataset.divide(config, dataset.read_cases(Run(tmp_path / "run"), config)).train
    first = dataset.first_labelled(train, 2, seed=3)
    assert first == dataset.first_labelled(tuple(reversed(train)), 2, seed=3)
    assert len(first) == 2


def test_the_labelled_cases_are_of_as_many_patients_as_possible(blobs: Callable[..., Path], tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"case_{n},{n // 3}\n" for n in range(6)))
    cases = dataset.read_cases(Run(tmp_path / "run"), FinetuneConfig(folder=blobs(scans=6, masks=6), groups=str(table)))
    assert len({case.group for case in dataset.first_labelled(cases.labelled, 2, seed=0)}) == 2
