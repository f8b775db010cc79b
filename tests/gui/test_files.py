"""Opening and saving through the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from PIL import Image as Picture
from qtpy.QtWidgets import QApplication

from napari_medcl.data.formats import read_volume
from napari_medcl.errors import UserError
from napari_medcl.gui import samples
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
