"""The demo does the whole job and measures only where training never looked."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from napari_medcl import demo
from napari_medcl.data.formats import read_labels
from napari_medcl.data.volume import IGNORE
from napari_medcl.inference.metrics import dice
from napari_medcl.training.run import list_runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def done(folder: Path, said: io.StringIO) -> demo.Demo:
    pytest.importorskip("nilearn")
    with pytest.MonkeyPatch.context() as small:
        for name, value in {"_WIDTH": 4, "_PRETRAIN_STEPS": 3, "_FINETUNE_STEPS": 60}.items():
            small.setattr(demo, name, value)
        return demo.run_demo(folder, Console(file=said, width=500), device="cpu")


def test_two_runs_the_second_from_the_first(done: demo.Demo, folder: Path) -> None:
    finetuning, pretraining = sorted(list_runs(folder / "runs"), key=lambda run: run.stage)
    assert [finetuning.stage, pretraining.stage] == ["finetune", "pretrain"]
    assert finetuning.state == pretraining.state == "finished"
    assert finetuning.config["start"] == str(pretraining.folder)
    assert set(pretraining.config["method"]) >= {"instance", "dense"}


def test_a_tenth_is_annotated_and_the_rest_is_not_background(done: demo.Demo, folder: Path) -> None:
    given = read_labels(folder / "data" / "labelsTr" / "icbm152.nii.gz").array
    truth = read_labels(done.truth).array
    annotated = (given != IGNORE).any(axis=(1, 2))
    assert annotated.sum() == 9
    assert len(annotated) == 95
    np.testing.assert_array_equal(given[annotated], truth[annotated])
    assert (given[~annotated] == IGNORE).all()
    assert not (truth == IGNORE).any()


def test_dice_is_that_of_the_files_on_the_unused_slices(done: demo.Demo) -> None:
    truth, prediction = read_labels(done.truth).array, read_labels(done.prediction).array
    unused = np.setdiff1d(np.arange(95), np.arange(5, 95, 10))
    for value, name in ((1, "grey matter"), (2, "white matter")):
        assert done.dice[name] == dice(prediction[unused] == value, truth[unused] == value)
    assert done.dice["grey matter"] > 0.5, "sixty steps of a small network; chance is 0.2"


def test_files_lie_where_the_scan_lies(done: demo.Demo) -> None:
    scan = nib.load(done.scan)
    for path in (done.truth, done.prediction, done.uncertainty):
        image = nib.load(path)
        np.testing.assert_array_equal(image.affine, scan.affine)
        assert image.shape[:3] == scan.shape
        assert image.header["sform_code"] == scan.header["sform_code"]
    uncertainty = nib.load(done.uncertainty).get_fdata()
    assert uncertainty.min() >= 0
    assert 0.1 < uncertainty.max() <= 1


def test_picture(done: demo.Demo) -> None:
    with Image.open(done.picture) as file:
        picture = np.asarray(file.convert("RGB"))
    height, width, _ = picture.shape
    assert (height, width) == (3 * 117 * 3, 4 * 99 * 3), "three slices below each other, four columns"
    scan, truth, prediction, _ = (column.astype(int) for column in np.split(picture, 4, axis=1))
    assert (np.ptp(scan, axis=-1) == 0).mean() > 0.99, "the scan is grey"
    for column in (truth, prediction):
        assert (np.ptp(column, axis=-1) > 40).mean() > 0.1, "labels have colours"


def test_it_says_what_it_did(done: demo.Demo, said: io.StringIO) -> None:
    text = said.getvalue()
    assert "9 of the 95 slices" in text
    assert "86 slices that nobody annotated" in text
    mean = sum(done.dice.values()) / 2
    assert f"{mean:.4f}" in text
    for path in (done.scan, done.truth, done.prediction, done.uncertainty, done.picture):
        assert path.is_file()
        assert str(path) in text
