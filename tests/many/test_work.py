"""What is done with a scan, in the formats that scans come in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest

from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import read_labels, read_source, read_volume
from napari_medcl.data.superpixels import SuperpixelSettings
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.data.writing import write_labels, write_volume
from napari_medcl.inference.evaluate import evaluate
from napari_medcl.many.spread import spread
from napari_medcl.many.work import Divide, Segment
from tests.inference.models import checkpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One scan three times."""
    (tmp_path / "data").mkdir()
    source = Source(shape=(24, 20, 9), affine=np.diag([-1.0, -1.5, 2.0, 1.0]))
    array = np.random.default_rng(0).normal(size=(1, *source.grid)).astype(np.float32)
    volume = Volume(array, source.spacing, source.origin, source)
    for name in ("a.nii.gz", "b.ome.zarr", "c.nii"):
        write_volume(volume, tmp_path / "data" / name)
    return tmp_path / "data"


def elsewhere(*_: object, **__: object) -> None:
    """A cluster that waits for the very process that asks it."""
    raise AssertionError("The reading was left to the cluster.")


def test_every_format_gets_the_same_mask_in_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    monkeypatch.setitem(dask.config.config, "scheduler", elsewhere)
    out = tmp_path / "out"
    out.mkdir()
    work = Segment(
        checkpoint((8, 8, 8)).save(tmp_path / "m.safetensors"),
        out, probabilities=True, eight_bits=True, uncertainty=True,
    )  # fmt: skip
    cases = find_cases(data)
    results = {result.name: result for result in spread(work, cases)}
    assert [path.name for path in results["b"].files] == [
        "b.ome.zarr", "b-probabilities.ome.zarr", "b-uncertainty.ome.zarr",
    ]  # fmt: skip
    masks = {name: read_labels(result.files[0]) for name, result in results.items()}
    assert [result.files[0].name for result in results.values()] == ["a.nii.gz", "b.ome.zarr", "c.nii.gz"]
    for name in "bc":
        assert np.array_equal(masks[name].array, masks["a"].array)
        np.testing.assert_allclose(masks[name].origin, masks["a"].origin)
    maps = [read_volume(results[name].files[1]).array for name in "ab"]
    np.testing.assert_allclose(maps[0], maps[1] / 255, atol=1e-6)
    assert [result.state for result in spread(work, cases)] == ["done before"] * 3

    corrected = np.ones_like(masks["b"].array)
    write_labels(replace(masks["b"], array=corrected), out / "b.ome.zarr")
    assert {result.name: result.state for result in spread(work, cases)}["b"] == "changed since"
    assert {result.state for result in spread(work, cases, again=True)} == {"made"}
    kept = [path.name for path in (out / ".medcl-backups").iterdir()]
    assert sum(name.endswith(".ome.zarr") for name in kept) == 1
    assert not np.array_equal(read_labels(out / "b.ome.zarr").array, corrected)


def test_masks_in_ome_zarr_are_measured(data: Path, tmp_path: Path) -> None:
    for folder, suffix in (("masks", ".nii.gz"), ("found", ".ome.zarr")):
        (data / folder).mkdir()
        for case in "abc":
            scan = read_volume(next(data.glob(f"{case}.*")))
            labels = (scan.array[0] > 0).astype(np.uint8)
            write_labels(Labels(labels, scan.spacing, scan.origin, scan.source), data / folder / f"{case}{suffix}")
    table = evaluate(data / "found", find_cases(data))
    assert {row.scores.dice for row in table.rows} == {1.0}


def test_superpixels_of_ome_zarr_are_ome_zarr(data: Path, tmp_path: Path) -> None:
    results = {one.name: one for one in spread(Divide(SuperpixelSettings(segments=20), tmp_path), find_cases(data))}
    assert results["b"].files[0].name == "b-superpixels.ome.zarr"
    assert read_source(results["b"].files[0]).format == "zarr"
    ids = {name: read_labels(result.files[0]).array for name, result in results.items()}
    assert np.array_equal(ids["a"], ids["b"])
