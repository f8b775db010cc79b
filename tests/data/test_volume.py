from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_medcl.data.volume import resample, resample_labels

shapes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=60, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 99))
def test_resample_is_scipys_grid_mode_zoom(old, new, seed):
    array = np.random.default_rng(seed).normal(size=(2, *old)).astype(np.float32)
    ours = resample(array, new)
    zoom = [1, *(b / a for a, b in zip(old, new, strict=True))]
    reference = ndimage.zoom(array.astype(float), zoom, order=1, mode="nearest", grid_mode=True)
    assert ours.dtype == np.float32
    assert ours.shape == reference.shape == (2, *new)
    np.testing.assert_allclose(ours, reference, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(old=shapes, new=shapes)
def test_labels_are_those_of_the_nearest_voxel(old, new):
    array = np.arange(np.prod(old)).reshape(old)
    ours = resample_labels(array, new)
    for index in np.ndindex(*new):
        place = [(i + 0.5) * a / b - 0.5 for i, a, b in zip(index, old, new, strict=True)]
        found = np.unravel_index(ours[index], old)
        assert max(abs(p - f) for p, f in zip(place, found, strict=True)) <= 0.5 + 1e-9


def test_the_same_shape_changes_nothing():
    array = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(resample(array, (3, 4, 5)), array)


def test_a_ramp_keeps_its_slope():
    ramp = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10)
    fine = resample(ramp, (1, 1, 20))[0, 0, 0]
    np.testing.assert_allclose(np.diff(fine[1:-1]), 0.5, atol=1e-6)
    assert fine.mean() == pytest.approx(ramp.mean())


def test_input_is_not_written_to():
    array = np.ones((1, 4, 4, 4), np.float32)
    array.flags.writeable = False
    resample(array, (5, 5, 5))
