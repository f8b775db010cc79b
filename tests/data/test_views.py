"""Views: what moves together stays together, and nothing moves where nothing is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medcl.data import views

if TYPE_CHECKING:
    from torch import Tensor

STILL = views.Geometry(p=1, flip=False, rotation=0, scale=(1, 1), elastic=0)
EASY = settings(max_examples=20, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("patch", [(12, 9), (8, 6, 5)])
def test_without_motion_a_view_is_the_middle_of_its_crop(patch: tuple[int, ...]) -> None:
    crop = tuple(size + 4 for size in patch)
    image = torch.randn(2, 1, *crop)
    grid = views.sampling_grid(2, patch, crop, (1.0,) * len(patch), STILL, generator())
    torch.testing.assert_close(views.move_image(image, grid), views.centre(image, patch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("patch", [(12, 10), (8, 6, 6)])
def test_flips_only_mirror(patch: tuple[int, ...]) -> None:
    image = torch.randn(16, 1, *patch)
    flips = views.Geometry(p=1, flip=True, rotation=0, scale=(1, 1), elastic=0)
    moved = views.move_image(image, views.sampling_grid(16, patch, patch, (1.0,) * len(patch), flips, generator()))
    axes = [range(1, len(patch) + 1)]
    mirrored = [image.flip([a + 1 for a in axes[0] if choice & (1 << (a - 1))]) for choice in range(2 ** len(patch))]
    errors = torch.stack([(moved - one).abs().flatten(1).amax(1) for one in mirrored])
    assert errors.amin(0).max() < 1e-4
    assert len(errors.argmin(0).unique()) > 1


def test_rotation_keeps_distances_in_millimetres() -> None:
    """A quarter turn of anisotropic voxels moves a point 8 mm off along y to 8 mm off along x."""
    turn = views.Geometry(p=1, flip=False, rotation=30, scale=(1, 1), elastic=0)
    patch, voxel = (20, 40), (2.0, 1.0)
    grid = views.sampling_grid(5, patch, patch, voxel, turn, generator())
    places = grid.flip(-1) * torch.tensor([20 * 2.0 / 2, 40 * 1.0 / 2])
    still = views.sampling_grid(5, patch, patch, voxel, STILL, generator()).flip(-1) * torch.tensor([20.0, 20.0])
    torch.testing.assert_close(places.norm(dim=-1), still.norm(dim=-1), atol=1e-3, rtol=1e-4)
    assert not torch.allclose(places, still, atol=0.5)


def angles(geometry: views.Geometry, count: int) -> Tensor:
    """Degrees from the voxel's place without motion to that with it."""
    grid = views.sampling_grid(count, (9, 9), (9, 9), (1.0, 1.0), geometry, generator())[:, 4, 8]
    return torch.rad2deg(torch.atan2(grid[:, 1], grid[:, 0]))


def test_rotation_holds_for_all_but_those_of_any_angle() -> None:
    bound = replace(STILL, rotation=30)
    assert angles(bound, 1000).abs().max() <= 30 + 1e-3
    mixed = angles(replace(bound, any_angle=0.5), 1000)
    beyond = (mixed.abs() > 30).float().mean()
    assert beyond == pytest.approx(0.5 * 150 / 180, abs=0.05)
    assert mixed.min() < -170
    assert mixed.max() > 170
    assert (angles(replace(bound, any_angle=1), 1000).abs() > 90).float().mean() == pytest.approx(0.5, abs=0.05)


@EASY
@given(seed=st.integers(0, 10_000), dims=st.sampled_from([2, 3]))
def test_image_and_labels_move_together(seed: int, dims: int) -> None:
    """An image that is its own label map stays so, up to interpolation at the borders of the regions."""
    patch = (24, 20) if dims == 2 else (14, 12, 10)
    labels = torch.zeros(2, *patch, dtype=torch.long)
    labels[(slice(None), *(slice(3, size - 4) for size in patch))] = 1
    grid = views.sampling_grid(2, patch, patch, (1.0,) * dims, views.FREE, generator(seed))
    image = views.move_image(labels.unsqueeze(1).float(), grid)[:, 0]
    moved = views.move_labels(labels, grid, outside=0)
    sure = (image < 0.02) | (image > 0.98)
    assert torch.equal(moved[sure], image[sure].round().long())


@EASY
@given(seed=st.integers(0, 10_000))
def test_labels_never_get_values_that_were_not_there(seed: int) -> None:
    labels = torch.tensor([0, 3, 7])[torch.randint(0, 3, (2, 16, 16), generator=generator(seed))]
    grid = views.sampling_grid(2, (16, 16), (16, 16), (1.0, 1.0), views.FREE, generator(seed))
    assert set(views.move_labels(labels, grid, outside=255).unique().tolist()) <= {0, 3, 7, 255}


@pytest.mark.parametrize("size", [(12, 10), (8, 7, 6)])
def test_appearance_is_reproducible_differs_between_images_and_stays_finite(size: tuple[int, ...]) -> None:
    image = torch.randn(1, 2, *size).expand(6, -1, *size[:0], *[-1] * len(size)).clone()
    changed = views.change_appearance(image, views.CHANGED, generator(3))
    torch.testing.assert_close(changed, views.change_appearance(image, views.CHANGED, generator(3)))
    assert changed.isfinite().all()
    assert changed.shape == image.shape
    assert not torch.allclose(changed[0], changed[1])


def test_channels_change_apart_only_where_they_are_asked_to() -> None:
    image = torch.randn(8, 1, 12, 10, generator=generator()).expand(-1, 3, -1, -1).clone()
    together = views.Appearance(p=1, brightness=1, contrast=0.5, gamma=0.3, noise=0, blur=1)
    changed = views.change_appearance(image, together, generator(1))
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))
    changed = views.change_appearance(image, replace(together, apart=True), generator(1))
    assert ((changed[:, 0] - changed[:, 1]).abs().flatten(1).amax(1) > 0.05).all()


def test_a_multiple_of_a_change_goes_so_many_times_as_far_and_leaves_contrast() -> None:
    once, image = replace(views.CHANGED, p=1, blur=0, contrast=0, gamma=0, noise=0), torch.zeros(200, 1, 4, 4)
    far = [views.change_appearance(image, once.times(k), generator()).abs().max() for k in (1, 3)]
    assert far[1] == pytest.approx(3 * far[0])
    assert far[0] == pytest.approx(0.3, abs=0.02)
    assert views.CHANGED.times(5).contrast == 0.9
    assert views.CHANGED.times(0) == replace(views.CHANGED, brightness=0, contrast=0, gamma=0, noise=0)


def test_parts_of_a_batch_change_as_the_whole_does_channels_apart() -> None:
    image = torch.randn(6, 2, 9, 9, generator=generator())
    whole = views.change_appearance(image, views.CHANGED, generator(2))
    for index in range(3):
        part = views.Part(index, 3)
        torch.testing.assert_close(
            views.change_appearance(part.of(image), views.CHANGED, generator(2), part), part.of(whole)
        )


def test_what_is_not_moved_keeps_every_voxel() -> None:
    sometimes = views.Geometry(p=0.5, flip=False, rotation=30, scale=(0.7, 1.3), elastic=0.05)
    image = torch.randn(40, 1, 12, 10)
    moved = views.move_image(image, views.sampling_grid(40, (12, 10), (12, 10), (1.0, 1.0), sometimes, generator()))
    same = torch.isclose(moved, image, atol=1e-4).flatten(1).all(1)
    assert 10 < same.sum() < 30


def test_no_chance_changes_nothing() -> None:
    image = torch.randn(3, 1, 8, 8)
    never = views.Appearance(p=0, brightness=1, contrast=1, gamma=1, noise=1, blur=1)
    assert torch.equal(views.change_appearance(image, never, generator()), image)


def test_constant_images_stay_finite() -> None:
    always = views.Appearance(p=1, brightness=0.3, contrast=0.3, gamma=0.3, noise=0, blur=1)
    assert views.change_appearance(torch.zeros(2, 1, 8, 8, 8), always, generator()).isfinite().all()


def test_blur_keeps_the_mean_and_flattens() -> None:
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7, 7] = 1
    only_blur = views.Appearance(p=1, brightness=0, contrast=0, gamma=0, noise=0, blur=1)
    blurred = views.change_appearance(image, only_blur, generator())
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    assert blurred.max() < 0.9
