"""The picture of the bottleneck: where it lies, what it shows, and that its colours stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_medcl.data.volume import Volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference import features as module
from napari_medcl.inference.features import features
from napari_medcl.models import NetworkSpec, build
from tests.inference.models import checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


class Blocks(torch.nn.Module):
    """A network whose innermost map is the mean of blocks of 4 pixels, in three channels of different strength."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec

    def encode(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
        pooled = pool(image, 4)
        return {"bottleneck": torch.cat([3 * pooled, pooled.square(), pooled.square().square()], 1)}

    def middle(self, name: str) -> float:
        return 1.5


def blocks_of(image: NDArray[np.float32], size: tuple[int, int, int]) -> NDArray[np.float32]:
    """Means of blocks of (Z, Y, X), the far edges padded."""
    past = [(0, -length % side) for length, side in zip(image.shape, size, strict=True)]
    wide = np.pad(image, past, mode="edge")
    split = [number for length, side in zip(wide.shape, size, strict=True) for number in (length // side, side)]
    return wide.reshape(split).mean((1, 3, 5))


CASES = [
    ((32, 32), (None, None, None), 0, (1, 4, 4)),
    ((20, 16), (1.0, None, 1.4), 1, (4, 1, 4)),  # slices along y, the others resampled; windows of 5 pixels
    ((16, 16, 16), (None, None, None), 0, (4, 4, 4)),
    ((20, 12, 28), (2.0, 1.0, 1.4), 0, (4, 4, 4)),
]


@pytest.mark.parametrize(("patch", "spacing", "axis", "size"), CASES)
def test_every_pixel_is_that_of_its_block(
    patch: Any, spacing: Any, axis: int, size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE", 16)
    model = checkpoint(patch, spacing=spacing, slice_axis=axis)
    monkeypatch.setattr(type(model), "build", lambda _: Blocks(model.network))
    scan = Volume(noise((1, 22, 43, 61)), (2.0, 1.0, 0.7), (-10.0, 20.0, 5.0))
    found = features(model, scan, "cpu", "float32")
    on_grid = np.moveaxis(model.plan.conform(scan)[0], 0, axis)
    means = blocks_of(on_grid, size)
    first = found.components[0] / 3
    np.testing.assert_allclose(np.moveaxis(first, 0, axis), means - means.mean(), atol=1e-2)
    assert found.picture.shape == means.shape
    assert np.corrcoef(found.picture.array[0].ravel(), means.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("patch", "spacing", "axis", "size"), CASES)
def test_every_pixel_lies_over_its_block(patch: Any, spacing: Any, axis: int, size: Any) -> None:
    scan = Volume(noise((1, 22, 43, 61)), (2.0, 1.0, 0.7), (-10.0, 20.0, 5.0))
    model = checkpoint(patch, spacing=spacing, slice_axis=axis)
    picture = features(model, scan, "cpu").picture
    for along in range(3):
        shape = [1, 1, 1]
        shape[along] = scan.shape[along]
        millimetres = scan.origin[along] + np.arange(scan.shape[along]) * scan.spacing[along]
        places = np.broadcast_to(millimetres.reshape(shape), scan.shape)
        on_grid = model.plan.conform(Volume(places[None].astype(np.float32), scan.spacing, scan.origin))[0]
        means = np.moveaxis(blocks_of(np.moveaxis(on_grid, 0, axis), size), along, 0)[:, 0, 0]
        said = picture.origin[along] + np.arange(picture.shape[along]) * picture.spacing[along]
        inside = slice(1, -2) if size[along] > 1 else slice(None)  # at the edges places are interpolated, or padded
        np.testing.assert_allclose(said[inside], means[inside], atol=1e-4)
        reach = said[-1] + picture.spacing[along] / 2 - (millimetres[-1] + scan.spacing[along] / 2)
        assert -1e-6 <= reach < picture.spacing[along]


@pytest.mark.parametrize("architecture", ["unet", "attention"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_middle_of_a_maps_first_pixel_is_that_of_what_it_sees(architecture: Any, dims: Any) -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=4, depth=2, architecture=architecture)
    net = build(spec).eval().double()
    for parameter in net.parameters():
        parameter.data = parameter.data.abs() + 0.01  # everything a pixel sees counts for it, by its way there
    image = torch.rand(1, 1, *[48] * dims, dtype=torch.double, requires_grad=True)
    for name in ("enc2", "bottleneck"):
        stride = spec.stride(name)
        pixel = 24 // stride
        (seen,) = torch.autograd.grad(net.encode(image)[name][(0, slice(None), *[pixel] * dims)].sum(), image)
        inside = seen[0, 0].nonzero().double()
        middle = (inside.amin(0) + inside.amax(0)) / 2
        assert middle.tolist() == pytest.approx([net.middle(name) + pixel * stride] * dims, abs=0.5 * stride / 2)


def test_colours_stay_when_the_network_changes_their_order_and_sign() -> None:
    model = checkpoint((16, 16))
    scan = Volume(noise((1, 3, 32, 40)) * 100)
    before = features(model, scan, "cpu", "float32")
    weights = dict(model.weights)
    order = torch.randperm(weights["bottleneck.2.weight"].shape[0])
    for name in ("bottleneck.2.weight", "bottleneck.2.bias"):
        weights[name] = weights[name][order]  # the same maps, as other channels
    flipped = type(model)(model.network, weights, model.plan, model.classes, model.kind)
    alone, after = features(flipped, scan, "cpu", "float32"), features(flipped, scan, "cpu", "float32", like=before)
    np.testing.assert_allclose(after.components, before.components, atol=1e-3)
    np.testing.assert_allclose(np.abs(alone.components), np.abs(before.components), atol=1e-3)
    np.testing.assert_allclose(after.picture.array, before.picture.array.astype(int), atol=1)


def test_components_explain_as_much_as_they_can() -> None:
    model = checkpoint((16, 16))
    scan = Volume(noise((1, 3, 32, 40)) * 100)
    found = features(model, scan, "cpu", "float32").components.reshape(3, -1)
    images = torch.from_numpy(scan.array).movedim(1, 0)
    pixels = model.build().encode(images)["bottleneck"].detach().movedim(1, 0).flatten(1).numpy()
    strengths = np.linalg.svd(pixels - pixels.mean(1, keepdims=True), compute_uv=False)
    spread = np.linalg.norm(found, axis=1)
    assert np.all(np.diff(spread) <= 0)
    np.testing.assert_allclose(spread, strengths[:3], rtol=1e-3)


def test_it_can_be_stopped_and_refuses_other_channels() -> None:
    with pytest.raises(Stopped):
        features(checkpoint((16, 16)), Volume(noise((1, 3, 32, 40))), "cpu", stop=lambda: True)
    with pytest.raises(UserError, match="channel"):
        features(checkpoint((16, 16)), Volume(noise((2, 3, 32, 40))), "cpu")


def test_a_scan_without_anything_in_it_is_black(monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint((16, 16))
    monkeypatch.setattr(type(model), "build", lambda _: Blocks(model.network))
    picture = features(model, Volume(np.ones((1, 2, 32, 32), np.float32)), "cpu").picture
    assert not picture.array.any()
