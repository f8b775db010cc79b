"""What UAFS blocks are unsure of, on the grid of a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_medcl.data.volume import Volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.predict import Predictor
from napari_medcl.models.network import padded
from napari_medcl.models.uafs import uncertainties

from .models import checkpoint

if TYPE_CHECKING:
    from napari_medcl.models import Network

MAPS = ("bottleneck", "dec2", "dec1")
PATCHES = pytest.mark.parametrize("patch", [(12, 16), (8, 12, 16)])


def scan(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> Volume:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(channels, *shape)), (0, 1, 1, 1))
    return Volume((1 + 4 * smooth).astype(np.float32), (2.0, 0.5, 0.75), (-3.0, 4.0, 5.5))


def predictor(patch: tuple[int, ...], **settings: object) -> Predictor:
    return Predictor(checkpoint(patch, uafs=MAPS, **settings), device="cpu", precision="float32")


@PATCHES
@pytest.mark.parametrize("architecture", ["unet", "attention"])
def test_one_window_is_what_the_blocks_say(patch: tuple[int, ...], architecture: str) -> None:
    model, volume = predictor(patch, architecture=architecture), scan((9, 15, 18))
    found = model.block_uncertainty(volume)
    image = torch.from_numpy(volume.array)
    image = image.movedim(1, 0) if len(patch) == 2 else image[None]
    with torch.inference_mode():
        raw = uncertainties(model.checkpoint.build(), image)
    assert tuple(found) == MAPS
    for name in MAPS:
        assert found[name].array.shape == (1, *volume.shape)
        assert found[name].array.dtype == np.float32
        assert (found[name].spacing, found[name].origin) == (volume.spacing, volume.origin)
        assert 0 <= found[name].array.min() < found[name].array.max() <= 1
    fine = raw["dec1"][(slice(None), 0, *(slice(0, size) for size in image.shape[2:]))]
    np.testing.assert_allclose(found["dec1"].array[0], fine.squeeze(0) if len(patch) == 3 else fine, atol=1e-5)
    coarse = raw["dec2"].repeat_interleave(2, -1)[..., : volume.shape[-1]].mean().item()
    assert found["dec2"].array.mean() == pytest.approx(coarse, abs=0.05)


@PATCHES
def test_tiles_are_bands_where_they_lie(patch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def brightness(net: Network, image: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = torch.nn.functional.avg_pool2d if image.ndim == 4 else torch.nn.functional.avg_pool3d
        return {name: pool(padded(image, 4), net.spec.stride(name)) for name in MAPS}

    monkeypatch.setattr("napari_medcl.inference.predict.uncertainties", brightness)
    z, y, x = np.ogrid[:10, :56, :72]
    volume = Volume(((z / 10 + y / 56 + x / 72) / 3)[None].astype(np.float32))
    inside = (0, *[slice(2, -2)] * 3)
    for name, found in predictor(patch).block_uncertainty(volume).items():
        # Half a coarse pixel at a window's edge cannot be interpolated; its weight in the mean is small.
        np.testing.assert_allclose(found.array[inside], volume.array[inside], atol=0.02, err_msg=name)


@pytest.mark.parametrize(
    ("patch", "spacing", "slice_axis"),
    [
        ((64, 64), (None, None, None), 0),
        ((64, 64), (None, 0.8, 0.6), 0),
        ((64, 64), (1.5, None, 0.8), 1),
        ((64, 64), (1.5, 0.8, None), 2),
        ((64, 64, 64), (1.0, 0.8, 0.8), 0),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_that_of_the_whole_scan(
    patch: tuple[int, ...], spacing: tuple[float | None, float | None, float | None], slice_axis: int, axis: int
) -> None:
    model, volume = predictor(patch, spacing=spacing, slice_axis=slice_axis), scan((9, 15, 18))
    whole = model.block_uncertainty(volume)
    for index in (0, 4, volume.shape[axis] - 1):
        part = model.block_uncertainty(volume, (axis, index))
        for name in MAPS:
            expected = whole[name].array.take([index], axis + 1)
            np.testing.assert_allclose(part[name].array, expected, atol=1e-5, err_msg=f"{name} {index}")
            assert part[name].spacing == volume.spacing
            shift = np.subtract(part[name].origin, volume.origin)
            assert shift.tolist() == [index * volume.spacing[axis] if a == axis else 0 for a in range(3)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_a_large_scan_takes_one_patch_about_it(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, volume = predictor((8, 12, 16)), scan((30, 44, 50))
    seen: list[tuple[int, ...]] = []
    bands = model._bands
    monkeypatch.setattr(model, "_bands", lambda image, *rest: (seen.append(image.shape), bands(image, *rest))[1])
    for index in (0, 21, volume.shape[axis] - 1):
        found = model.block_uncertainty(volume, (axis, index))
        assert found["dec1"].array.shape == (1, *(1 if a == axis else n for a, n in enumerate(volume.shape)))
        assert seen[-1][axis + 1] == (8, 12, 16)[axis]


def test_a_slice_of_a_flat_model_takes_that_slice_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, volume = predictor((12, 16), slice_axis=1), scan((30, 44, 50))
    seen: list[tuple[int, ...]] = []
    bands = model._bands
    monkeypatch.setattr(model, "_bands", lambda image, *rest: (seen.append(image.shape), bands(image, *rest))[1])
    model.block_uncertainty(volume, (1, 20))
    assert seen == [(1, 1, 30, 50)]


def test_progress_and_stop() -> None:
    model, volume = predictor((8, 8)), scan((20, 40, 30))
    said: list[float] = []
    model.block_uncertainty(volume, progress=said.append)
    assert (said[0], said[-1]) == (0, 1)
    assert said == sorted(said)
    assert len(said) > 20
    with pytest.raises(Stopped):
        model.block_uncertainty(volume, stop=lambda: True)


def test_a_model_without_blocks_says_so() -> None:
    with pytest.raises(UserError, match="no UAFS blocks"):
        Predictor(checkpoint((8, 8)), device="cpu").block_uncertainty(scan((2, 9, 9)))


@PATCHES
def test_half_precision_stays_a_share(patch: tuple[int, ...]) -> None:
    model = Predictor(checkpoint(patch, uafs=MAPS), device="cpu", precision="bfloat16")
    for found in model.block_uncertainty(scan((5, 20, 30))).values():
        assert np.isfinite(found.array).all()
        assert 0 <= found.array.min() <= found.array.max() <= 1
