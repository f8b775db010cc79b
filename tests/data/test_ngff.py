from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import dask.array
import nibabel as nib
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import is_scan, open_volume, read_labels, read_source, read_volume
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.data.writing import write_labels, write_volume
from napari_medcl.errors import UserError
from tests.data.test_geometry import oblique_affines

if TYPE_CHECKING:
    from pathlib import Path


def foreign(
    path: Path,
    shape: tuple[int, ...],
    axes: list[dict[str, Any]],
    *,
    version: str = "0.5",
    scale: tuple[float, ...] | None = None,
    translation: tuple[float, ...] | None = None,
    above: list[dict[str, Any]] | None = None,
) -> np.ndarray:
    """An image as another program writes it; gives its voxels."""
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale or (1.0,) * len(shape)}]
    if translation:
        steps.append({"type": "translation", "translation": translation})
    image: dict[str, Any] = {"axes": axes, "datasets": [{"path": "full", "coordinateTransformations": steps}]}
    if above:
        image["coordinateTransformations"] = above
    if version == "0.4":
        group = zarr.create_group(path, zarr_format=2, attributes={"multiscales": [{**image, "version": "0.4"}]})
    else:
        group = zarr.create_group(path, attributes={"ome": {"version": version, "multiscales": [image]}})
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    group.create_array("full", shape=shape, chunks=tuple(min(size, 4) for size in shape), dtype="int16")[...] = array
    return array


def space(names: str = "zyx", **more: str) -> list[dict[str, Any]]:
    return [{"name": name, "type": "space", **more} for name in names]


def world(source: Source, place: tuple[int, ...]) -> np.ndarray:
    """Where a voxel (z, y, x) of the canonical grid lies, in LPS mm."""
    return (source.canonical_affine @ [*place, 1])[:3]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(affine=oblique_affines(), shape=st.tuples(*[st.integers(1, 9)] * 3), channels=st.integers(1, 3))
def test_what_is_written_is_read(
    affine: np.ndarray, shape: tuple[int, int, int], channels: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ngff")
    source = Source(shape=shape, affine=affine)
    array = np.random.default_rng(0).normal(size=(channels, *source.grid)).astype(np.float32)
    volume = Volume(array, source.spacing, source.origin, source)
    write_volume(volume, folder / "a.ome.zarr")
    found = read_volume(folder / "a.ome.zarr")
    assert np.array_equal(found.array, array)
    np.testing.assert_allclose(found.source.canonical_affine, source.canonical_affine, atol=1e-9)
    np.testing.assert_allclose(found.origin, volume.origin, atol=1e-9)

    mask = Labels((array[0] > 0).astype(np.uint8), found.spacing, found.origin, found.source)
    write_labels(mask, folder / "mask.ome.zarr")
    assert np.array_equal(read_labels(folder / "mask.ome.zarr").array, mask.array)
    assert np.array_equal(read_source(folder / "mask.ome.zarr").affine, found.source.affine)
    back = read_labels(write_labels(mask, folder / "mask.nii.gz"))
    assert np.array_equal(back.array, mask.array)
    np.testing.assert_allclose(back.source.canonical_affine, source.canonical_affine, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_units_and_both_transformations_count(tmp_path: Path, version: str) -> None:
    above = [{"type": "scale", "scale": (1, 2, 2, 2)}, {"type": "translation", "translation": (0, 0, 100, 0)}]
    axes = [{"name": "c", "type": "channel"}, *space(unit="micrometer")]
    array = foreign(
        tmp_path / "a.zarr", (2, 5, 6, 7), axes, version=version,
        scale=(1, 500, 250, 100), translation=(0, 10, 20, 30), above=above,
    )  # fmt: skip
    found = read_volume(tmp_path / "a.zarr")
    assert np.array_equal(found.array, array)
    assert found.spacing == pytest.approx((1.0, 0.5, 0.2))
    assert found.origin == pytest.approx((0.02, 0.14, 0.06))
    assert np.array_equal(read_volume(tmp_path / "a.zarr", 1).array, array[1:])
    assert np.array_equal(np.asarray(open_volume(tmp_path / "a.zarr", 1).array), array[1:])


@pytest.mark.parametrize("order", [*itertools.permutations("zyx")])
def test_axes_may_come_in_any_order_and_run_to_any_side(tmp_path: Path, order: tuple[str, ...]) -> None:
    sides = {"x": "left-to-right", "y": "posterior-to-anterior", "z": "superior-to-inferior"}
    axes = [{"name": n, "type": "space", "orientation": {"type": "anatomical", "value": sides[n]}} for n in order]
    array = foreign(tmp_path / "a.zarr", (3, 4, 5), axes, scale=(2, 3, 4), translation=(10, 20, 30))
    found = read_volume(tmp_path / "a.zarr")
    for index in np.ndindex(3, 4, 5):
        coordinate = {n: index[i] * (2, 3, 4)[i] + (10, 20, 30)[i] for i, n in enumerate(order)}
        place = np.array([-coordinate[name] for name in "zyx"])  # all three run against L, P and S
        ours = np.rint((place - found.origin) / found.spacing).astype(int)
        assert found.array[(0, *ours)] == array[index]
        np.testing.assert_allclose(world(found.source, tuple(ours)), place, atol=1e-9)


def test_masks_keep_the_axes_of_a_foreign_scan(tmp_path: Path) -> None:
    foreign(
        tmp_path / "a.zarr", (4, 3, 5), space("yzx", unit="centimeter"), scale=(0.1, 0.5, 0.2), translation=(1, 2, 3)
    )
    scan = read_volume(tmp_path / "a.zarr")
    array = np.zeros(scan.shape, np.uint8)
    array[1, 2, 3] = 1
    write_labels(Labels(array, scan.spacing, scan.origin, scan.source), tmp_path / "m.ome.zarr")
    group = zarr.open_group(tmp_path / "m.ome.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["y", "z", "x"]
    assert [axis["unit"] for axis in image["axes"]] == ["centimeter"] * 3
    assert [step.get("scale") or step["translation"] for step in image["datasets"][0]["coordinateTransformations"]] == [
        [0.1, 0.5, 0.2], [1.0, 2.0, 3.0],
    ]  # fmt: skip
    assert np.argwhere(group["0"][...]).tolist() == [[2, 1, 3]]


def test_pictures_and_series(tmp_path: Path) -> None:
    picture = foreign(tmp_path / "p.zarr", (6, 7), space("yx"), scale=(0.5, 0.25))
    found = read_volume(tmp_path / "p.zarr")
    assert np.array_equal(found.array[0, 0], picture)
    assert found.spacing[1:] == (0.5, 0.25)
    write_labels(
        Labels(np.ones((1, 6, 7), np.uint8), found.spacing, found.origin, found.source), tmp_path / "m.ome.zarr"
    )
    assert read_source(tmp_path / "m.ome.zarr").shape == (7, 6)
    series = foreign(tmp_path / "t.zarr", (4, 1, 3, 6, 7), [{"name": "t"}, {"name": "c"}, *space()])
    assert np.array_equal(read_volume(tmp_path / "t.zarr").array, series[:, 0])
    assert np.array_equal(np.asarray(open_volume(tmp_path / "t.zarr").array), series[:, 0])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    array = foreign(tmp_path / "a.zarr", (12, 4, 4), space())
    volume = open_volume(tmp_path / "a.zarr")
    assert isinstance(volume.array, dask.array.Array)
    for part in (tmp_path / "a.zarr" / "full" / "c").iterdir():
        if part.name != "1":
            (part / "0" / "0").write_bytes(b"no chunk")
    assert np.array_equal(np.asarray(volume.array[0, 4:8]), array[4:8])
    with pytest.raises(UserError, match="damaged"):
        read_volume(tmp_path / "a.zarr")


def test_an_affine_of_another_scale_is_not_believed(tmp_path: Path) -> None:
    source = Source(shape=(3, 4, 5), affine=np.diag([2.0, 3.0, 4.0, 1.0]))
    write_volume(
        Volume(np.zeros((1, *source.grid), np.float32), source.spacing, source.origin, source), tmp_path / "a.ome.zarr"
    )
    file = tmp_path / "a.ome.zarr" / "zarr.json"
    kept = json.loads(file.read_text())
    kept["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [8, 6, 4]
    file.write_text(json.dumps(kept))
    assert read_source(tmp_path / "a.ome.zarr").spacing == (8, 6, 4)


def test_bad_folders_are_explained(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "several.zarr", attributes={"bioformats2raw.layout": 3})
    with pytest.raises(UserError, match="open one of its folders"):
        read_volume(tmp_path / "several.zarr")
    foreign(tmp_path / "both.zarr", (2, 3, 4, 5, 6), [{"name": "t"}, {"name": "c"}, *space()])
    with pytest.raises(UserError, match="both channels and time points"):
        read_volume(tmp_path / "both.zarr")
    foreign(tmp_path / "flat.zarr", (4, 5, 6), space())
    with pytest.raises(UserError, match="no channel 1"):
        open_volume(tmp_path / "flat.zarr", 1)
    (tmp_path / "flat.zarr" / "zarr.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_source(tmp_path / "flat.zarr")
    foreign(tmp_path / "many.zarr", (2, 4, 5, 6), [{"name": "c"}, *space()])
    with pytest.raises(UserError, match="2 channels; a mask has one number"):
        read_labels(tmp_path / "many.zarr")


@pytest.mark.parametrize("path", ["../other.zarr/full", "..", "/etc"])
def test_no_image_leads_out_of_its_folder(tmp_path: Path, path: str) -> None:
    foreign(tmp_path / "other.zarr", (4, 5, 6), space())
    zarr.create_group(
        tmp_path / "a.zarr", attributes={"ome": {"multiscales": [{"axes": space(), "datasets": [{"path": path}]}]}}
    )
    with pytest.raises(UserError):
        read_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_nothing_is_unpickled(tmp_path: Path, where: str) -> None:
    foreign(tmp_path / "a.zarr", (4, 5, 6), space(), version="0.4")
    file = tmp_path / "a.zarr" / "full" / ".zarray"
    kept = json.loads(file.read_text())
    kept[where] = {"id": "pickle"} if where == "compressor" else [{"id": "zlib", "level": 1}, {"id": "pickle"}]
    file.write_text(json.dumps(kept))
    with pytest.raises(UserError):
        read_source(tmp_path / "a.zarr")


def test_a_data_folder_may_hold_them(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("one", "two"):
            foreign(tmp_path / folder / f"{name}.ome.zarr", (4, 5, 6), space())
    cases = find_cases(tmp_path)
    assert [case.id for case in cases] == ["one", "two"]
    assert len(cases.labelled) == 2
    before = cases[0].digest()
    stored = zarr.open_group(tmp_path / "images" / "one.ome.zarr")["full"]
    stored[0, 0, 0] = 77
    assert cases[0].digest() != before
    assert cases[0].digest() != cases[1].digest()
    assert is_scan(cases[0].images[0])
    assert [case.id for case in find_cases(cases[0].images[0])] == ["one"]
    assert not is_scan(tmp_path)


def test_an_older_image_stays_until_the_new_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Labels(np.ones((4, 5, 6), np.uint8))
    path = write_labels(old, tmp_path / "m.ome.zarr")
    with monkeypatch.context() as broken:
        broken.setattr(zarr.Group, "create_array", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(UserError, match="No space left"):
            write_labels(Labels(np.zeros((4, 5, 6), np.uint8)), path)
    assert read_labels(path).array.all()
    write_labels(Labels(np.zeros((4, 5, 6), np.uint8)), path)
    assert not read_labels(path).array.any()
    assert [child.name for child in tmp_path.iterdir()] == ["m.ome.zarr"]


def test_nifti_from_zarr_has_the_usual_axes(tmp_path: Path) -> None:
    foreign(tmp_path / "a.zarr", (3, 4, 5), space())
    scan = read_volume(tmp_path / "a.zarr")
    write_labels(Labels(np.ones(scan.shape, np.uint8), scan.spacing, scan.origin, scan.source), tmp_path / "m.nii.gz")
    assert nib.load(tmp_path / "m.nii.gz").shape == (5, 4, 3)
    assert nib.aff2axcodes(nib.load(tmp_path / "m.nii.gz").affine) == ("L", "P", "S")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".ome.zarr"])
def test_what_stays_on_the_disk_is_written_in_every_format(tmp_path: Path, suffix: str) -> None:
    array = foreign(tmp_path / "a.zarr", (2, 4, 5, 6), [{"name": "c"}, *space()])
    path = write_volume(open_volume(tmp_path / "a.zarr"), tmp_path / f"b{suffix}")
    assert np.array_equal(read_volume(path).array, array)


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "notes.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    with pytest.raises(UserError, match="Choose another name"):
        write_labels(Labels(np.ones((4, 5, 6), np.uint8)), folder)
    assert (folder / "notes.txt").read_text() == "kept"
