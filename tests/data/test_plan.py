"""The plan: what is chosen from the scans, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medcl.data.plan import Plan, make_plan
from napari_medcl.data.volume import Labels, Volume
from napari_medcl.errors import UserError


def volume(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1), low: float = 0) -> Volume:
    random = np.random.default_rng(sum(shape))
    return Volume(random.uniform(low, 100, (1, *shape)).astype(np.float32), spacing, (0.0, 0.0, 0.0))


def test_isotropic_scans_are_learned_in_3d_with_at_least_four_voxels_at_the_bottleneck() -> None:
    plan, depth = make_plan([volume((36, 50, 35))] * 3)
    assert plan.spatial_dims == 3
    assert plan.patch == (40, 56, 40)
    assert depth == 3


def test_thick_slices_are_learned_in_2d_along_the_coarse_axis() -> None:
    plan, _ = make_plan([volume((60, 9, 70), (1.0, 8.0, 1.0))])
    assert (plan.spatial_dims, plan.slice_axis) == (2, 1)
    assert plan.spacing == (1.0, None, 1.0)
    assert plan.conform(volume((60, 9, 70), (1.0, 8.0, 1.0))).shape == (1, 9, 60, 70)


def test_large_scans_get_a_crop_that_fits() -> None:
    plan, depth = make_plan([volume((150, 160, 140))])
    assert np.prod(plan.patch) < 80**3
    assert all(size % 2**depth == 0 for size in plan.patch)


def test_there_and_back_is_the_same_place() -> None:
    scan = volume((12, 30, 20), (4.0, 1.0, 1.5))
    plan, _ = make_plan([volume((24, 30, 30), (2.0, 1.0, 1.0))], dims="3d")
    smooth = Volume(
        np.linspace(0, 1, 12, dtype=np.float32)[None, :, None, None] * np.ones((1, 12, 30, 20), np.float32),
        scan.spacing,
        scan.origin,
    )
    plan = plan.model_copy(update={"intensities": (plan.intensities[0].model_copy(update={"scheme": "dataset"}),)})
    there = plan.conform(smooth)
    assert there.shape == (1, 24, 30, 30)
    np.testing.assert_allclose(plan.restore(there, smooth), smooth.array, atol=0.05)


def test_labels_take_the_same_way_as_the_scan() -> None:
    plan, _ = make_plan([volume((60, 9, 70), (1.0, 8.0, 1.0))])
    array = np.zeros((60, 9, 70), np.uint8)
    array[10, 3, 20] = 2
    labels = plan.conform_labels(Labels(array, (1.0, 8.0, 1.0), (0.0, 0.0, 0.0)))
    assert labels.shape == (9, 60, 70)
    assert labels[3, 10, 20] == 2


def test_ct_keeps_its_units_and_mr_its_own_statistics() -> None:
    ct = volume((8, 30, 30), low=-1000)
    plan, _ = make_plan([ct, ct])
    assert plan.intensities[0].scheme == "dataset"
    brighter = Volume(ct.array + 200, ct.spacing, ct.origin)
    assert not np.allclose(plan.conform(ct), plan.conform(brighter))
    mr = volume((8, 30, 30))
    plan, _ = make_plan([mr])
    np.testing.assert_allclose(
        plan.conform(mr), plan.conform(Volume(mr.array * 7 + 3, mr.spacing, mr.origin)), atol=1e-3
    )


def test_a_zero_background_does_not_count() -> None:
    array = np.zeros((1, 4, 20, 20), np.float32)
    array[:, :, 8:12, 8:12] = np.random.default_rng(0).normal(50, 5, (1, 4, 4, 4))
    scan = Volume(array, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    inside = make_plan([scan])[0].conform(scan)[:, :, 8:12, 8:12]
    assert abs(inside.mean()) < 0.1


def test_scans_of_different_channels_are_refused() -> None:
    two = Volume(np.zeros((2, 4, 20, 20), np.float32), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(UserError, match=r"1 channel.*2"):
        make_plan([volume((4, 20, 20)), two])
    with pytest.raises(UserError, match=r"2 channel.*1"):
        make_plan([volume((4, 20, 20))])[0].conform(two)


def test_a_patch_of_other_dimensions_is_refused() -> None:
    with pytest.raises(UserError, match="needs 3"):
        make_plan([volume((40, 40, 40))], patch=(32, 32))


def test_a_plan_survives_json() -> None:
    plan, _ = make_plan([volume((36, 50, 35))])
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
