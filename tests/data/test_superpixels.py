from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from skimage.segmentation import slic

from napari_medcl.data.superpixels import (
    SuperpixelSettings,
    at_grid,
    cached_superpixels,
    positives,
    superpixel_slice,
    superpixels,
)
from napari_medcl.data.volume import voxels
from napari_medcl.errors import Stopped

FINE = SuperpixelSettings(segments=20, compactness=0.2)


def blocks(channels=1, slices=3, seed=0):
    """(C, Z, 32, 40) of four patches with a little noise."""
    rng = np.random.default_rng(seed)
    patches = np.kron(np.array([[0, 200], [400, 600]]), np.ones((16, 20)))
    return (patches + rng.normal(0, 5, (channels, slices, 32, 40))).astype(np.float32)


def assert_ids(ids):
    assert ids.dtype == np.int32
    assert np.array_equal(np.unique(ids), np.arange(1, ids.max() + 1))


class TestSlice:
    @pytest.mark.parametrize("shape", [(32, 40), (1, 32, 40), (2, 32, 40), (3, 32, 40)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
    def test_smoke(self, shape, dtype):
        noise = np.random.default_rng(0).random(shape)
        image = (
            (1000 * ndimage.gaussian_filter(noise, (*[0] * (len(shape) - 2), 3, 3)) - 400).clip(0, 255).astype(dtype)
        )
        ids = superpixel_slice(image, FINE)
        assert ids.shape == (32, 40)
        assert_ids(ids)
        assert 5 < ids.max() < 40

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("shape", [(32, 40), (1, 1), (2, 3), (1, 40), (3, 200)])
    @pytest.mark.parametrize("value", [0, 7, np.float32(-1e6)])
    def test_without_contrast(self, shape, value):
        ids = superpixel_slice(np.full(shape, value), FINE)
        assert ids.shape == shape
        assert_ids(ids)

    def test_they_are_connected(self):
        ids = superpixel_slice(blocks()[0, 0], FINE)
        assert all(ndimage.label(ids == number)[1] == 1 for number in range(1, ids.max() + 1))

    def test_they_follow_edges_if_they_may(self):
        patches = np.kron(np.array([[1, 2], [3, 4]]), np.ones((13, 20), int))

        def crossing(compactness):
            ids = superpixel_slice(patches.astype(float), SuperpixelSettings(segments=12, compactness=compactness))
            return sum(np.unique(patches[ids == number]).size > 1 for number in range(1, ids.max() + 1))

        assert crossing(0.05) == 0
        assert crossing(100) > 0

    def test_brightness_does_not_matter(self):
        image = blocks()[0, 0]
        assert np.array_equal(superpixel_slice(image, FINE), superpixel_slice(image * 4 - 1000, FINE))

    def test_every_channel_counts(self):
        flat, edge = np.zeros((26, 40)), np.repeat([0.0, 1.0], [17, 23]) * np.ones((26, 1))
        for image in (np.stack([flat, edge * 1000]), np.stack([edge * 1000, flat])):
            ids = superpixel_slice(image, SuperpixelSettings(segments=12, compactness=0.05))
            assert not set(ids[:, :17].ravel()) & set(ids[:, 17:].ravel())

    def test_three_channels_are_not_taken_for_colours(self):
        image = np.random.default_rng(0).random((3, 32, 40)).astype(np.float32)
        image[:, 0, 0], image[:, 0, 1] = 0, 1
        low, high = np.percentile(image, [0.5, 99.5], axis=(1, 2), keepdims=True)
        scaled = np.clip((image - low) / (high - low), 0, 1)
        chosen = SuperpixelSettings(segments=20, compactness=1)
        expected = slic(scaled, n_segments=20, compactness=1, channel_axis=0, convert2lab=False)
        assert (superpixel_slice(image, chosen) == expected).mean() > 0.99

    def test_it_is_slic_of_the_scaled_image(self):
        image = np.random.default_rng(0).random((32, 40)).astype(np.float32)
        low, high = np.percentile(image, [0.5, 99.5])
        expected = slic(
            np.clip((image - low) / (high - low), 0, 1), n_segments=20, compactness=0.2, channel_axis=None, sigma=1
        )
        chosen = SuperpixelSettings(segments=20, compactness=0.2, smoothing=1)
        assert (superpixel_slice(image, chosen) == expected).mean() > 0.99


class TestVolume:
    def test_slices_are_divided_alone(self):
        array = blocks(channels=2)
        ids = superpixels(array, FINE)
        assert ids.shape == (3, 32, 40)
        for index in range(3):
            assert np.array_equal(ids[index], superpixel_slice(array[:, index], FINE))

    def test_in_3d(self):
        ids = superpixels(blocks(slices=8), FINE.model_copy(update={"per": "volume"}), spacing=(5.0, 1.0, 1.0))
        assert_ids(ids)
        assert any(np.ptp(np.nonzero(ids == number)[0]) for number in range(1, ids.max() + 1))

    def test_in_3d_spacing_counts_by_ratio(self):
        per_volume = FINE.model_copy(update={"per": "volume"})
        array = np.random.default_rng(0).random((1, 8, 32, 40))
        one, double, other = (superpixels(array, per_volume, spacing) for spacing in ((2, 1, 1), (4, 2, 2), (8, 1, 1)))
        assert np.array_equal(one, double)
        assert not np.array_equal(one, other)

    def test_progress(self):
        seen = []
        superpixels(blocks(slices=4), FINE, progress=seen.append)
        assert seen == [0.25, 0.5, 0.75, 1.0]
        seen.clear()
        superpixels(blocks(slices=4), FINE.model_copy(update={"per": "volume"}), progress=seen.append)
        assert seen == [1.0]

    @pytest.mark.parametrize("per", ["slice", "volume"])
    def test_stop(self, per):
        with pytest.raises(Stopped):
            superpixels(blocks(slices=4), FINE.model_copy(update={"per": per}), stop=lambda: True)

    def test_stop_in_the_middle(self):
        seen = []
        with pytest.raises(Stopped):
            superpixels(blocks(slices=9), FINE, progress=seen.append, stop=lambda: len(seen) == 2)
        assert len(seen) == 2

    def test_flipped_views_are_as_good(self):
        array = blocks()
        assert np.array_equal(superpixels(array[:, ::-1][:, ::-1], FINE), superpixels(array, FINE))


class TestCache:
    def test_it_is_used(self, tmp_path, monkeypatch):
        first = cached_superpixels(blocks(), FINE, folder=tmp_path / "new")
        assert np.array_equal(first, superpixels(blocks(), FINE))
        monkeypatch.setattr("napari_medcl.data.superpixels.superpixels", None)
        seen = []
        again = cached_superpixels(blocks(), FINE, folder=tmp_path / "new", progress=seen.append)
        assert (again.dtype, seen) == (np.uint8, [1.0])
        assert np.array_equal(again, first)

    @pytest.mark.parametrize(
        "changed",
        [
            {"array": blocks(seed=1)},
            {"array": blocks(slices=2)},
            {"array": blocks().astype(np.float64)},
            {"settings": FINE.model_copy(update={"segments": 21})},
            {"settings": FINE.model_copy(update={"compactness": 0.3})},
            {"settings": FINE.model_copy(update={"smoothing": 1.0})},
            {"settings": FINE.model_copy(update={"per": "volume"}), "spacing": (2.0, 1.0, 1.0)},
        ],
    )
    def test_other_content_has_another_file(self, tmp_path, changed):
        cached_superpixels(blocks(), FINE, folder=tmp_path)
        cached_superpixels(**{"array": blocks(), "settings": FINE, "folder": tmp_path, **changed})
        assert len(list(tmp_path.iterdir())) == 2

    def test_spacing_matters_in_3d_only(self, tmp_path):
        for per, count in (("slice", 1), ("volume", 3)):
            for spacing in ((1, 1, 1), (2, 1, 1)):
                chosen = FINE.model_copy(update={"per": per})
                cached_superpixels(blocks(), chosen, spacing=spacing, folder=tmp_path)
            assert len(list(tmp_path.iterdir())) == count

    @pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"text", None])
    def test_a_damaged_file_is_made_again(self, tmp_path, damage):
        expected = np.array(cached_superpixels(blocks(), FINE, folder=tmp_path))
        (file,) = tmp_path.iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[:-100] if damage is None else damage)
        assert np.array_equal(cached_superpixels(blocks(), FINE, folder=tmp_path), expected)
        assert file.read_bytes() == whole

    def test_no_place_to_keep_them(self, tmp_path):
        (tmp_path / "file").write_text("")
        ids = cached_superpixels(blocks(), FINE, folder=tmp_path / "file")
        assert np.array_equal(ids, superpixels(blocks(), FINE))

    @pytest.mark.parametrize("per", ["slice", "volume"])
    def test_a_volume_on_the_disk_has_the_same(self, tmp_path, monkeypatch, per):
        how = FINE.model_copy(update={"per": per})
        there = da.from_array(blocks(slices=4), chunks=(1, 1, -1, -1))
        ids = superpixels(there, how)
        assert isinstance(ids, np.memmap) == (per == "slice")
        assert np.array_equal(ids, superpixels(blocks(slices=4), how))
        expected = cached_superpixels(blocks(slices=4), how, folder=tmp_path)
        monkeypatch.setattr("napari_medcl.data.superpixels.superpixels", None)
        assert np.array_equal(cached_superpixels(there, how, folder=tmp_path), expected)

    def test_a_volume_on_the_disk_is_read_by_slices(self, tmp_path, monkeypatch):
        read = []

        def watched(array):
            read.append(array.shape)
            return voxels(array)

        monkeypatch.setattr("napari_medcl.data.superpixels.voxels", watched)
        cached_superpixels(da.from_array(blocks(slices=4), chunks=(1, 1, -1, -1)), FINE, folder=tmp_path)
        assert set(read) == {(32, 40), (1, 32, 40)}

    def test_nothing_is_kept_of_a_stopped_one(self, tmp_path):
        with pytest.raises(Stopped):
            cached_superpixels(blocks(), FINE, folder=tmp_path, stop=lambda: True)
        assert list(tmp_path.iterdir()) == []


class TestGrid:
    @settings(max_examples=200, deadline=None)
    @given(size=st.lists(st.integers(1, 97), min_size=2, max_size=3), cell=st.sampled_from([1, 2, 4, 8, 16, 32]))
    def test_it_is_torchs_nearest_of_the_padded_map(self, size, cell):
        size = [min(n, 30) for n in size] if len(size) == 3 else size
        ids = np.arange(np.prod(size)).reshape(size)
        larger = np.pad(ids, [(0, -n % cell) for n in size], mode="edge")
        new = [n // cell for n in larger.shape]
        expected = torch.nn.functional.interpolate(torch.tensor(larger[None, None]).float(), size=new, mode="nearest")
        assert np.array_equal(at_grid(ids, [cell] * len(size)), expected[0, 0].long().numpy())

    def test_positives(self):
        grid = np.array([[1, 1], [2, 1]])
        assert positives(grid, (0, 1)).tolist() == [[True, True], [False, True]]
        assert positives(grid, (1, 0)).sum() == 1


@pytest.mark.parametrize(
    "wrong", [{"segments": 1}, {"compactness": 0}, {"smoothing": -1}, {"per": "case"}, {"sections": 3}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        SuperpixelSettings(**wrong)
