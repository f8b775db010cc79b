"""Opening and saving through the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array
import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from nibabel.arrayproxy import ArrayProxy
from PIL import Image as Picture
from qtpy.QtWidgets import QApplication

from napari_medcl.data.formats import read_labels, read_source, read_volume
from napari_medcl.data.writing import write_volume
from napari_medcl.errors import UserError
from napari_medcl.gui import samples
from napari_medcl.gui.reader import get_reader
from tests.gui.conftest import OBLIQUE, same_geometry, save

if TYPE_CHECKING:
    from pathlib import Path


def said() -> str:
    return notification_manager.records[-1].message if notification_manager.records else ""


def test_scan_and_mask_open_as_what_they_are(make_napari_viewer: Any, scan: Path, mask: Path) -> None:
    viewer = make_napari_viewer()
    viewer.open([scan, mask], plugin="medcl")
    image, labels = viewer.layers
    assert isinstance(image, Image)
    assert isinstance(labels, Labels)
    assert (image.name, labels.name) == ("scan", "mask")
    assert np.array_equal(image.scale, labels.scale)
    assert np.array_equal(image.translate, labels.translate)
    assert image.data.shape == (12, 30, 32)
    assert {str(unit) for layer in viewer.layers for unit in layer.units} == {"millimeter"}
    assert np.allclose(image.scale, np.linalg.norm(OBLIQUE[:3, :3], axis=0)[::-1])


def test_opened_mask_is_saved_where_it_was(make_napari_viewer: Any, mask: Path, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(mask, plugin="medcl")
    layer.data_setitem((np.array([2]), np.array([3]), np.array([4])), 3)
    (written,) = layer.save(str(tmp_path / "saved.nii.gz"), plugin="medcl")
    assert same_geometry(mask, written)
    before, after = (np.asarray(nib.load(path).dataobj) for path in (mask, written))
    assert after.dtype == np.uint8
    assert np.count_nonzero(before != after) == 1
    assert not (tmp_path / ".medcl-backups").exists()
    layer.data_setitem((np.array([2]), np.array([3]), np.array([5])), 3)
    layer.save(written, plugin="medcl")
    (backup,) = (tmp_path / ".medcl-backups").iterdir()
    assert np.array_equal(np.asarray(nib.load(backup).dataobj), after)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_new_labels_layer_is_saved_where_the_scan_lies(
    make_napari_viewer: Any, scan: Path, tmp_path: Path, suffix: str
) -> None:
    viewer = make_napari_viewer()
    viewer.open(scan, plugin="medcl")
    viewer._new_labels()
    drawn = viewer.layers[-1]
    assert drawn.metadata == {}
    drawn.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    (written,) = drawn.save(str(tmp_path / f"drawn{suffix}"), plugin="medcl")
    assert same_geometry(scan, written)
    assert np.count_nonzero(nib.load(written).dataobj) == 1


def test_map_is_saved_where_the_scan_lies(make_napari_viewer: Any, scan: Path, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(scan, plugin="medcl")
    (written,) = layer.save(str(tmp_path / "map.nii.gz"), plugin="medcl")
    assert same_geometry(scan, written)
    assert np.array_equal(nib.load(written).get_fdata(), nib.load(scan).get_fdata())


def test_channels_of_a_file_are_layers(make_napari_viewer: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "two.nii.gz", np.random.default_rng(0).random((8, 9, 5, 2), np.float32))
    viewer = make_napari_viewer()
    viewer.open(path, plugin="medcl")
    assert [layer.name for layer in viewer.layers] == ["two [0]", "two [1]"]


def test_time_series_has_a_slider(make_napari_viewer: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "cine.nii.gz", np.random.default_rng(0).random((8, 9, 5, 20), np.float32))
    viewer = make_napari_viewer()
    (layer,) = viewer.open(path, plugin="medcl")
    assert layer.data.shape == (20, 5, 9, 8)
    assert viewer.dims.axis_labels == ("t", "z", "y", "x")


def test_pictures_are_2d(make_napari_viewer: Any, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    Picture.fromarray(colours).save(tmp_path / "photo.png")
    Picture.fromarray(colours[..., 0]).save(tmp_path / "grey.png")
    Picture.fromarray(((colours[..., 0] > 99) * 255).astype(np.uint8)).save(tmp_path / "lesion.png")
    viewer = make_napari_viewer()
    viewer.open([tmp_path / f"{name}.png" for name in ("photo", "grey", "lesion")], plugin="medcl")
    photo, grey, lesion = viewer.layers
    assert viewer.dims.ndim == 2
    assert photo.rgb
    assert np.array_equal(photo.data, colours)
    assert np.array_equal(grey.data, colours[..., 0])
    assert isinstance(lesion, Labels)
    assert set(np.unique(lesion.data)) == {0, 1}
    (written,) = lesion.save(str(tmp_path / "again.png"), plugin="medcl")
    assert np.array_equal(np.asarray(Picture.open(written)), lesion.data)


def test_broken_file_is_said_and_harms_nothing(make_napari_viewer: Any, scan: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(scan.read_bytes()[:500])
    viewer = make_napari_viewer()
    viewer.open(scan, plugin="medcl")
    assert viewer.open(broken, plugin="medcl") == []
    QApplication.processEvents()
    assert len(viewer.layers) == 1
    assert str(broken) in said()
    assert "Traceback" not in said()


def test_failing_save_is_said_and_leaves_the_old_file(make_napari_viewer: Any, mask: Path, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(mask, plugin="medcl")
    with pytest.raises(OSError, match="no-such-folder"):
        layer.save(str(tmp_path / "no-such-folder" / "mask.nii.gz"), plugin="medcl")
    before = mask.read_bytes()
    layer.data = layer.data.astype(np.int16) - 5
    with pytest.raises(OSError, match="label -5"):
        layer.save(str(mask), plugin="medcl")
    assert mask.read_bytes() == before


def test_volume_does_not_fit_in_a_picture(make_napari_viewer: Any, mask: Path, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    (layer,) = viewer.open(mask, plugin="medcl")
    with pytest.raises(OSError, match="12 slices"):
        layer.save(str(tmp_path / "mask.png"), plugin="medcl")


def test_sample_opens(make_napari_viewer: Any) -> None:
    pytest.importorskip("nilearn")
    viewer = make_napari_viewer()
    image, tissues = viewer.open_sample("medcl", "t1_template")
    assert image.data.shape == tissues.data.shape
    assert np.array_equal(image.translate, tissues.translate)
    assert set(np.unique(tissues.data)) == {0, 1, 2}


def test_sample_says_what_is_missing(make_napari_viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UserError('The sample needs nilearn. Install it with: pip install "medcl[sample]"')

    monkeypatch.setattr(samples, "load_sample", missing)
    viewer = make_napari_viewer()
    with pytest.raises(UserError, match="pip install"):
        viewer.open_sample("medcl", "t1_template")
    assert len(viewer.layers) == 0


def test_saved_mask_lies_over_the_scan_on_disk(make_napari_viewer: Any, scan: Path, tmp_path: Path) -> None:
    """A voxel painted where the scan is brightest is where the file is brightest."""
    viewer = make_napari_viewer()
    (image,) = viewer.open(scan, plugin="medcl")
    viewer._new_labels()
    brightest = np.unravel_index(np.argmax(image.data), image.data.shape)
    viewer.layers[-1].data_setitem(tuple(np.array([i]) for i in brightest), 1)
    (written,) = viewer.layers[-1].save(str(tmp_path / "spot.nii.gz"), plugin="medcl")
    stored = nib.load(scan).get_fdata()
    assert np.argwhere(nib.load(written).get_fdata()).tolist() == np.argwhere(stored == stored.max()).tolist()
    assert read_volume(written).array.sum() == 1


@pytest.fixture
def image_folder(scan: Path, tmp_path: Path) -> Path:
    """The scan as OME-Zarr."""
    return write_volume(read_volume(scan), tmp_path / "scan.ome.zarr")


def test_ome_zarr_opens_where_its_scan_lies_and_stays_on_the_disk(
    make_napari_viewer: Any, scan: Path, image_folder: Path
) -> None:
    viewer = make_napari_viewer()
    viewer.open([scan, image_folder], plugin="medcl")
    first, second = viewer.layers
    assert isinstance(second.data, dask.array.Array)
    assert np.array_equal(np.asarray(second.data), first.data)
    np.testing.assert_allclose(second.scale, first.scale)
    np.testing.assert_allclose(second.translate, first.translate)
    assert [str(unit) for unit in second.units] == ["millimeter"] * 3


def test_masks_are_saved_as_ome_zarr_and_opened_again(
    make_napari_viewer: Any, image_folder: Path, tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    viewer.open(image_folder, plugin="medcl")
    viewer._new_labels()
    drawn = viewer.layers[-1]
    drawn.data_setitem((np.array([2, 3]), np.array([3, 3]), np.array([4, 5])), np.array([1, 2]))
    (written,) = drawn.save(str(tmp_path / "drawn_mask.ome.zarr"), plugin="medcl")
    assert np.array_equal(read_labels(written).array, drawn.data)
    assert np.array_equal(read_source(written).affine, read_source(image_folder).affine)
    drawn.save(written, plugin="medcl")
    assert len([*(tmp_path / ".medcl-backups").iterdir()]) == 1
    (again,) = viewer.open(written, plugin="medcl")
    assert isinstance(again, Labels)
    assert np.array_equal(again.data, drawn.data)


def test_other_folders_are_left_to_other_readers(tmp_path: Path) -> None:
    assert get_reader(str(tmp_path)) is None
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").touch()
    assert get_reader([str(tmp_path / "series")]) is not None


def test_a_large_scan_stays_on_the_disk_in_every_dock(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Path, brick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dock asks for slice by slice is never read whole on the window's thread."""
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    monkeypatch.setattr("napari_medcl.data.nifti._CHUNK", 1)
    monkeypatch.setattr("napari_medcl.data.recognise._SAMPLE", 10_000)
    get, read = ArrayProxy.__getitem__, 0

    def noting(proxy: ArrayProxy, where: Any) -> Any:
        nonlocal read
        found = get(proxy, where)
        read += found.size // (30 * 32)
        return found

    monkeypatch.setattr(ArrayProxy, "__getitem__", noting)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(save(tmp_path / "large.nii", np.tile(brick[0], (1, 1, 20))), plugin="medcl")
    for name in ("Superpixels", "Apply", "Correct", "Train"):
        viewer.window.add_plugin_dock_widget("medcl", name)
    qtbot.waitUntil(lambda: "superpixels (preview)" in [one.name for one in viewer.layers], timeout=20_000)
    assert isinstance(layer.data, dask.array.Array)
    assert 0 < read < 60  # of 240: for the brightness, whether it is a mask, and what was shown


def test_superpixels_and_masks_of_a_scan_on_the_disk(
    make_napari_viewer: Any, qtbot: Any, image_folder: Path, scan: Path
) -> None:
    viewer = make_napari_viewer()
    viewer.open(image_folder, plugin="medcl")
    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Superpixels")
    dock.compute.click()
    qtbot.waitUntil(lambda: not dock._scan_task.running, timeout=60_000)
    (found,) = (one for one in viewer.layers if isinstance(one, Labels) and one.data.shape[0] == 12)
    assert found.data.max() > 50
