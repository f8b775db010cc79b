from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medcl.data.conform import Conformed, restored
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.data.volume import Volume

SPACINGS = st.sampled_from([0.6, 1.0, 1.7, 3.0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Plan, Volume, int]:
    """A plan, a scan and how many slices to take at a time."""
    dims = draw(st.sampled_from([2, 3]))
    axis = draw(st.integers(0, 2)) if dims == 2 else 0
    wanted = [None if dims == 2 and a == axis else draw(SPACINGS) for a in range(3)]
    channels = draw(st.integers(1, 2))
    plan = Plan(
        channels=channels,
        spatial_dims=dims,
        spacing=(wanted[0], wanted[1], wanted[2]),
        slice_axis=axis,
        patch=(4,) * dims,
        intensities=(Intensity(scheme="scan"), Intensity(scheme="dataset", low=-5, high=90, mean=3, std=9))[:channels],
    )
    shape = draw(st.tuples(*[st.integers(1, 23)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = rng.normal(20, 30, (channels, *shape)).astype(draw(st.sampled_from([np.int16, np.float32])))
    return plan, Volume(array, draw(st.tuples(SPACINGS, SPACINGS, SPACINGS))), draw(st.integers(1, 20))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_slices_are_those_of_the_whole(case: tuple[Plan, Volume, int]) -> None:
    plan, volume, step = case
    whole, some = plan.conform(volume), Conformed(plan, volume)
    assert some.shape == whole.shape
    parts = [some[:, begin : begin + step] for begin in range(0, whole.shape[1], step)]
    assert np.array_equal(np.concatenate(parts, 1), whole)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_bands_come_back_as_the_whole_does(case: tuple[Plan, Volume, int]) -> None:
    plan, volume, step = case
    maps = np.random.default_rng(0).random((3, *Conformed(plan, volume).shape[1:])).astype(np.float32)
    bands = (maps[:, begin : begin + step] for begin in range(0, maps.shape[1], step))
    found = [*restored(plan, volume, bands)]
    assert [begin for begin, _ in found] == np.cumsum([0, *(part.shape[1] for _, part in found[:-1])]).tolist()
    expected = np.moveaxis(plan.restore(maps, volume), plan.slice_axis + 1, 1)
    np.testing.assert_allclose(np.concatenate([part for _, part in found], 1), expected, atol=1e-5)


def test_a_slice_reads_only_the_slices_about_it() -> None:
    array = np.arange(60, dtype=np.float32).reshape(1, 60, 1, 1) * np.ones((1, 1, 4, 4), np.float32)
    intensity = Intensity(scheme="dataset", low=-1e9, high=1e9)
    plan = Plan(channels=1, spatial_dims=3, spacing=(2.0, 1, 1), patch=(4, 4, 4), intensities=(intensity,))
    conformed = Conformed(plan, Volume(array))
    array[:, 24:] = np.nan
    assert conformed[:, 5:12][0, :, 0, 0] == pytest.approx(np.arange(5, 12) * 2 + 0.5)
