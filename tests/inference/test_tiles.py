from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch.nn import functional

from napari_medcl.errors import UserError
from napari_medcl.inference.tiles import blended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CPU = torch.device("cpu")


def joined(
    image: torch.Tensor,
    compute: Callable[[torch.Tensor], torch.Tensor],
    patch: Sequence[int],
    batch: int = 3,
    part: float = 0.5,
) -> torch.Tensor:
    bands = blended(
        image.numpy(), compute, patch=patch, overlap=[part] * len(patch), batch=batch, device=CPU, watch=None
    )
    return torch.cat([*bands], 1)


def by_place(tiles: torch.Tensor) -> torch.Tensor:
    """Depends on what a window holds and on where in the window: what is left out or put elsewhere shows."""
    ramp = torch.arange(tiles[0, 0].numel(), dtype=torch.float32).view(tiles.shape[2:]).cos()
    return torch.cat([tiles.sum(1, keepdim=True) * ramp, tiles[:, :1] + ramp], 1)


def monai(image: torch.Tensor, patch: Sequence[int], part: float) -> torch.Tensor:
    """The same by MONAI, with the same bell."""
    flat, longest = len(patch) == 2, 4.0 if len(patch) == 2 else 1.5
    images = image.movedim(1, 0) if flat else image[None]
    window = [n if n <= longest * side else side for n, side in zip(images.shape[2:], patch, strict=True)]
    bell = torch.ones(())
    for size in window:
        bell = bell[..., None] * torch.exp(-0.5 * ((torch.arange(size) - (size - 1) / 2) / (size / 8)) ** 2)
    found: torch.Tensor = sliding_window_inference(images, window, 1, by_place, overlap=part, roi_weight_map=bell)
    return found.movedim(1, 0) if flat else found[0]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 21)] * 3),
    patch=st.lists(st.integers(2, 7), min_size=2, max_size=3),
    part=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    batch=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_it_is_what_monai_computes(
    shape: tuple[int, ...], patch: list[int], part: float, batch: int, seed: int
) -> None:
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
    found = joined(image, by_place, patch, batch, part)
    torch.testing.assert_close(found, monai(image, patch, part), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patch", [(5, 6), (3, 5, 6)])
def test_windows_that_are_the_same_everywhere_are_computed_once(patch: tuple[int, ...]) -> None:
    image = torch.full((2, 18, 40, 37), -1.0)
    image[:, 9, 20:24, 18:22] = torch.arange(16.0).view(4, 4)
    seen: list[torch.Tensor] = []

    def watched(tiles: torch.Tensor) -> torch.Tensor:
        seen.extend(tiles)
        return by_place(tiles)

    found = joined(image, watched, patch, batch=4)
    torch.testing.assert_close(found, monai(image, patch, 0.5), rtol=1e-4, atol=1e-4)
    same = [tile for tile in seen if (tile == tile.flatten(1)[:, :1].view(-1, *[1] * len(patch))).all()]
    # Those of the first batch are computed together; one value is remembered.
    assert len(same) <= 4
    assert len(seen) > len(same)


def test_channels_that_are_uniform_with_other_values_are_not_taken_for_each_other() -> None:
    image = torch.zeros(2, 4, 12, 12)
    image[0, 1:], image[1, 2:], image[0, 3] = 1, 1, 0
    torch.testing.assert_close(joined(image, by_place, (3, 3), 1), monai(image, (3, 3), 0.5), rtol=1e-4, atol=1e-4)


def test_no_more_slices_are_held_than_a_window_is_deep() -> None:
    class Watched:
        shape = (1, 40, 6, 6)
        newest = 0

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            begin, end, _ = key[1].indices(40)
            assert end - begin == 8
            Watched.newest = end
            return np.zeros((1, end - begin, 6, 6), np.float32)

    given_, bands = (
        0,
        blended(Watched(), lambda t: t + 1, patch=(8, 6, 6), overlap=[0.5] * 3, batch=1, device=CPU, watch=None),
    )
    for band in bands:
        given_ += band.shape[1]
        assert Watched.newest - given_ <= 8
    assert given_ == 40


@pytest.mark.parametrize("patch", [(8, 8), (8, 8, 8)])
def test_coarser_maps_are_blended_on_their_grid(patch: tuple[int, ...]) -> None:
    image = torch.randn(1, 24, 40, 48, generator=torch.Generator().manual_seed(0))
    pool = functional.avg_pool2d if len(patch) == 2 else functional.avg_pool3d
    found = joined(image, lambda tiles: pool(tiles, 4), patch)
    kernel = (1, 4, 4) if len(patch) == 2 else (4, 4, 4)
    torch.testing.assert_close(found, functional.avg_pool3d(image, kernel))


def test_the_reader_of_the_slices_is_not_left_in_inference_mode() -> None:
    bands = blended(
        np.zeros((1, 4, 3, 3), np.float32), by_place, patch=(3, 3), overlap=[0, 0], batch=1, device=CPU, watch=None
    )
    next(bands)
    assert not torch.is_inference_mode_enabled()


def test_a_full_device_says_what_to_do() -> None:
    def full(tiles: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(UserError, match="3 windows of 5 x 6 voxels do not fit into the memory of cpu"):
        joined(torch.zeros(1, 3, 40, 40), full, (5, 6))
