"""Runs that are done again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.errors import UserError
from napari_medcl.training.events import Started
from napari_medcl.training.resume import repeat, resume
from napari_medcl.training.run import Run
from tests.training.runs import CONFIGS, begin, end_at, numbers, same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("what", CONFIGS)
def test_the_same_machine_gives_the_same_weights(what: str, blobs: Callable[..., Path], tmp_path: Path) -> None:
    first = list(begin(CONFIGS[what](blobs()), tmp_path / "run"))
    again = list(repeat(tmp_path / "run", tmp_path / "again"))
    assert same(tmp_path / "run", tmp_path / "again")
    assert numbers(again) == numbers(first)
    for name in ("split.json", "data.json", "config.json"):
        assert json.loads((tmp_path / "again" / name).read_text()) == json.loads((tmp_path / "run" / name).read_text())
    assert Run(tmp_path / "run").state == Run(tmp_path / "again").state == "finished"


def test_a_run_that_was_interrupted_is_repeated_whole(blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = CONFIGS["plain"](blobs())
    list(begin(config, tmp_path / "whole"))
    run = Run(tmp_path / "run")
    end_at(begin(config, run.folder), run, 4, "pause")
    list(repeat(run.folder, tmp_path / "again"))
    assert same(tmp_path / "again", tmp_path / "whole")
    assert run.state == "paused"


def test_it_needs_the_run_that_it_started_from_no_more(blobs: Callable[..., Path], tmp_path: Path) -> None:
    data = blobs()
    list(begin(CONFIGS["supercl"](data), tmp_path / "pre"))
    config = CONFIGS["plain"](data).model_copy(update={"start": tmp_path / "pre"})
    list(begin(config, tmp_path / "run"))
    shutil.rmtree(tmp_path / "pre")
    events = list(repeat(tmp_path / "run", tmp_path / "again"))
    assert "starting from" in next(event.message for event in events if isinstance(event, Started))
    assert same(tmp_path / "run", tmp_path / "again")


def with_inputs(folder: Path, data: Path) -> Run:
    """A run that learns from scans that were open in the viewer; they lie in its folder."""
    shutil.copytree(data, folder / "inputs")
    list(begin(CONFIGS["plain"](folder / "inputs"), folder))
    return Run(folder)


def test_scans_in_the_run_folder_come_along(blobs: Callable[..., Path], tmp_path: Path) -> None:
    with_inputs(tmp_path / "run", blobs())
    shutil.copytree(tmp_path / "run", tmp_path / "expected")
    (tmp_path / "run").rename(tmp_path / "moved")
    again, copy = tmp_path / "again", tmp_path / "copy"
    list(repeat(tmp_path / "moved", again))
    assert Run(again).config["folder"] == str(again / "inputs")
    assert same(again, tmp_path / "expected")
    shutil.rmtree(tmp_path / "moved")
    list(repeat(again, copy))
    assert same(copy, tmp_path / "expected")


def test_a_run_that_was_moved_goes_on(blobs: Callable[..., Path], tmp_path: Path) -> None:
    data = blobs()
    with_inputs(tmp_path / "whole", data)
    shutil.copytree(data, tmp_path / "run" / "inputs")
    run = Run(tmp_path / "run")
    end_at(begin(CONFIGS["plain"](run.folder / "inputs"), run.folder), run, 4, "pause")
    run.folder.rename(tmp_path / "moved")
    list(resume(tmp_path / "moved"))
    assert same(tmp_path / "moved", tmp_path / "whole")


def test_a_scan_that_changed_since_is_named(blobs: Callable[..., Path], tmp_path: Path) -> None:
    data = blobs()
    list(begin(CONFIGS["plain"](data), tmp_path / "run"))
    for name in ("case_1", "case_2"):
        path = data / "imagesTr" / f"{name}.nii.gz"
        file = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(file.dataobj) + 1, file.affine), path)
    events = list(repeat(tmp_path / "run", tmp_path / "again"))
    (started,) = [event for event in events if isinstance(event, Started)]
    assert "The files of case_1, case_2 have changed since the run began" in started.message


def test_scans_that_came_later_are_not_learned_from(blobs: Callable[..., Path], tmp_path: Path) -> None:
    data = blobs()
    list(begin(CONFIGS["supercl"](data), tmp_path / "run"))
    shutil.copyfile(data / "imagesTr" / "case_1.nii.gz", data / "imagesTr" / "case_0b.nii.gz")
    list(repeat(tmp_path / "run", tmp_path / "again"))
    assert same(tmp_path / "run", tmp_path / "again")


def test_a_folder_that_is_taken_is_refused(blobs: Callable[..., Path], tmp_path: Path) -> None:
    list(begin(CONFIGS["plain"](blobs()), tmp_path / "run"))
    with pytest.raises(UserError, match="already holds a run"):
        repeat(tmp_path / "run", tmp_path / "run")
    assert Run(tmp_path / "run").state == "finished"


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        repeat(tmp_path, tmp_path / "again")
    assert not (tmp_path / "again").exists()
