from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from napari_medcl.data.formats import looks_like_labels, read_labels, read_volume
from napari_medcl.data.names import mask_of
from napari_medcl.data.recognise import looks_like_labels as array_looks_like_labels


def organs(count=3, shape=(6, 40, 50)):
    """Patches on a background of 0."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.random(shape), (1, 4, 4))
    ranks = np.argsort(np.argsort(noise.ravel())).reshape(shape) / noise.size
    return np.maximum(np.floor(ranks * 2 * count) - count + 1, 0).astype(np.uint8)


def grey(shape=(6, 40, 50)):
    """A smooth 8-bit scan with a black background."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), (1, 2, 2))
    return (255 * np.clip((smooth - 0.45) * 10, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_masks(dtype):
    assert looks_like_labels(organs(3).astype(dtype))
    assert looks_like_labels((organs(1) > 0).astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_scans(dtype):
    assert np.unique(grey()).size > 100
    assert not looks_like_labels(grey().astype(dtype))


@pytest.mark.parametrize("array", [organs() - 1.0, organs() + 0.5, np.zeros((2, 9, 9), np.uint8)])
def test_what_no_mask_holds(array):
    assert not looks_like_labels(array)


def test_one_odd_voxel_in_a_large_array():
    array = np.zeros((90, 300, 300), np.float32)
    array[:, :100] = 1
    assert looks_like_labels(array)
    array[1, 5, 5] = 0.5
    assert not looks_like_labels(array)


def test_names_help():
    empty = np.zeros((2, 9, 9), np.uint8)
    assert array_looks_like_labels(empty, Path("labelsTr/a.nii"))
    assert array_looks_like_labels(empty, Path("a_seg.nii"))
    assert not array_looks_like_labels(empty, Path("imagesTr/a.nii"))
    assert not array_looks_like_labels(grey(), Path("labelsTr/a.nii"))


@pytest.mark.parametrize(
    ("name", "scan"),
    [
        ("t2_seg-manual", "t2"),
        ("t2s_gmseg", "t2s"),
        ("ISIC_0000000_segmentation", "ISIC_0000000"),
        ("a-Mask", "a"),
        ("a b label", "a b"),
        ("a.labels", "a"),
        ("mask", None),
        ("a_segment", None),
        ("unmasked", None),
    ],
)
def test_mask_of(name, scan):
    assert mask_of(name) == scan


def test_pictures(tmp_path):
    Image.fromarray(grey()[0]).save(tmp_path / "scan.jpg")
    Image.fromarray(organs()[0]).save(tmp_path / "mask.png")
    palette = Image.fromarray(organs()[0]).convert("P")
    palette.save(tmp_path / "coloured.png")
    Image.fromarray(np.stack([grey()[0]] * 2 + [grey()[1]], -1)).save(tmp_path / "colour.png")
    found = {}
    for path in tmp_path.iterdir():
        found[path.name] = looks_like_labels(path)
        assert looks_like_labels(read_volume(path)) == found[path.name]
    assert found == {"scan.jpg": False, "mask.png": True, "coloured.png": True, "colour.png": False}


def test_what_is_taken_for_a_mask_can_be_read_as_one(shared):
    for folder in ("imagesTr", "labelsTr"):
        for data in ("hippocampus", "chaos_t2", "openkbp_ct", "acdc"):
            path = sorted((shared / "data" / data / folder).glob("*.nii.gz"))[0]
            volume = read_volume(path)
            assert looks_like_labels(volume) == looks_like_labels(path) == (folder == "labelsTr")
            if folder == "labelsTr":
                assert looks_like_labels(read_labels(path).array)


def test_scans_that_look_odd(shared):
    for name in ("spinal_cord/t2s", "totalsegmentator_example/ct/example_ct_sm"):
        assert not looks_like_labels(shared / "data" / f"{name}.nii.gz")
    for name in ("spinal_cord/t2s_gmseg-manual", "totalsegmentator_example/ct/example_ct_sm_seg"):
        assert looks_like_labels(nib.load(shared / "data" / f"{name}.nii.gz").get_fdata().T)
