from __future__ import annotations

import errno
import itertools
import math
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch._dynamo.exc import TorchDynamoException

from napari_medcl.data.formats import open_volume, read_labels, read_volume
from napari_medcl.data.volume import Volume
from napari_medcl.data.writing import write_labels, write_volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.predict import Predictor
from napari_medcl.inference.prediction import EIGHT_BITS

from .models import by_intensity, checkpoint, replace_network

if TYPE_CHECKING:
    from pathlib import Path

PATCHES = [(12, 16), (8, 12, 16)]
SHAPES = [(1, 5, 7), (3, 16, 16), (5, 21, 24), (20, 33, 50)]


def scan(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> Volume:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(channels, *shape)), (0, 1, 1, 1))
    return Volume((1 + 4 * smooth).astype(np.float32), (2.0, 0.5, 0.75), (-3.0, 4.0, 5.5))


def nearest(volume: Volume) -> np.ndarray:
    return np.clip(np.rint(volume.array[0]), 0, 2)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_voxel_gets_its_own_answer(
    patch: tuple[int, ...], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_network(monkeypatch, by_intensity)
    volume = scan(shape)
    found = Predictor(checkpoint(patch), precision="float32")(volume)
    assert np.array_equal(found.labels.array, nearest(volume))
    assert found.labels.spacing == volume.spacing
    assert found.labels.origin == volume.origin
    assert (found.probabilities, found.uncertainty) == (None, None)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("batch", [2, 7])
def test_the_batch_has_no_influence(patch: tuple[int, ...], batch: int) -> None:
    model, volume = checkpoint(patch), scan((13, 30, 40))
    one, other = (Predictor(model, batch=size, precision="float32")(volume, probabilities=True) for size in (1, batch))
    np.testing.assert_allclose(one.probabilities.array, other.probabilities.array, atol=1e-5)
    assert (one.labels.array == other.labels.array).mean() > 0.9999


@pytest.mark.parametrize("patch", PATCHES)
def test_one_window_is_the_network_itself(patch: tuple[int, ...]) -> None:
    model, volume = checkpoint(patch), scan((10, 15, 18))
    image = torch.from_numpy(volume.array)
    image = image.movedim(1, 0) if len(patch) == 2 else image[None]
    with torch.inference_mode():
        expected = model.build()(image).softmax(1)
    expected = expected.movedim(0, 1) if len(patch) == 2 else expected[0]
    found = Predictor(model, precision="float32").on_grid(volume.array)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def smoothed(image: torch.Tensor) -> torch.Tensor:
    """A network that looks at its neighbours: wrong at a window's edge only."""
    mean = torch.nn.functional.avg_pool2d if image.ndim == 4 else torch.nn.functional.avg_pool3d
    return by_intensity(mean(image, 3, 1, 1))


@pytest.mark.parametrize("patch", PATCHES)
def test_tiles_are_blended_without_seams(patch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    replace_network(monkeypatch, smoothed)
    volume = scan((24, 50, 72))
    tiles = Predictor(checkpoint(patch), precision="float32")(volume, probabilities=True)
    whole = Predictor(checkpoint([72] * len(patch)), precision="float32")(volume, probabilities=True)
    middle = (slice(None), *[slice(1, -1)] * 3)
    difference = np.abs(tiles.probabilities.array - whole.probabilities.array)[middle]
    # A window's outermost voxels see zeros beyond it; their weight in the mean is small.
    assert difference.max() < 0.03
    assert difference.mean() < 0.001
    assert (tiles.labels.array != whole.labels.array).mean() < 0.01


def test_a_window_is_as_large_as_the_patch_or_takes_a_short_axis_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net = replace_network(monkeypatch, by_intensity)
    Predictor(checkpoint((8, 12, 16)), batch=1)(scan((12, 40, 7)))
    assert {tuple(size[2:]) for size in net.sizes} == {(12, 12, 7)}


@pytest.mark.parametrize(("size", "windows"), [((48, 64), {(48, 64)}), ((49, 64), {(12, 64)}), ((40, 65), {(40, 16)})])
def test_slices_up_to_four_patches_long_are_taken_whole(
    size: tuple[int, int], windows: set[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = replace_network(monkeypatch, by_intensity)
    Predictor(checkpoint((12, 16)))(scan((3, *size)))
    assert {tuple(size[2:]) for size in net.sizes} == windows


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_taken_along_the_axis_of_the_plan(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def brightest(image: torch.Tensor) -> torch.Tensor:
        return by_intensity(image.amax((2, 3), keepdim=True).expand_as(image))

    replace_network(monkeypatch, brightest)
    volume = Volume(np.zeros((1, 4, 5, 6), np.int16))
    for place, value in [((1, 2, 3), 1), ((2, 4, 0), 2)]:
        volume.array[0][place] = value
    found = Predictor(checkpoint((8, 8), slice_axis=axis), precision="float32")(volume).labels.array
    expected = np.broadcast_to(volume.array[0].max(tuple({0, 1, 2} - {axis}), keepdims=True), found.shape)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("patch", "spacing"), [((16, 16), (None, 1.0, 1.0)), ((16, 16, 16), (1.0, 1.0, 1.0))])
def test_another_spacing_comes_back_to_the_scan(
    patch: tuple[int, ...],
    spacing: tuple[float | None, float | None, float | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = replace_network(monkeypatch, by_intensity)
    z, y, x = np.ogrid[:20, :60, :30]
    truth = ((z - 9) * 2) ** 2 + ((y - 33) * 0.5) ** 2 + ((x - 14) * 0.8) ** 2 < 10**2
    volume = Volume(truth[None].astype(np.float32), (2.0, 0.5, 0.8))
    found = Predictor(checkpoint(patch, spacing=spacing), precision="float32")(volume, probabilities=True)
    assert found.labels.shape == volume.shape
    assert found.probabilities.array.shape == (3, *volume.shape)
    found_ball = found.labels.array == 1
    assert 2 * (found_ball & truth).sum() / (found_ball.sum() + truth.sum()) > 0.96
    assert all(size[-1] <= 24 for size in net.sizes)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SRP", "AIL", "PSL"])
@pytest.mark.parametrize("patch", PATCHES)
def test_the_same_patient_in_another_file_order_gets_the_same_mask(
    patch: tuple[int, ...], codes: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    affine = np.diag([0.5, 0.75, 2.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    straight = nib.Nifti1Image(rng.normal(1, 1, (18, 20, 11)).astype(np.float32), affine)
    way = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    turned = straight.as_reoriented(way)
    nib.save(straight, tmp_path / "straight.nii.gz")
    nib.save(turned, tmp_path / "turned.nii.gz")
    predictor = Predictor(checkpoint(patch), precision="float32")
    for name in ("straight", "turned"):
        labels = predictor(read_volume(tmp_path / f"{name}.nii.gz")).labels
        write_labels(labels, tmp_path / f"{name}_mask.nii.gz")
    masks = {name: nib.load(tmp_path / f"{name}_mask.nii.gz") for name in ("straight", "turned")}
    assert masks["turned"].shape == turned.shape
    assert np.array_equal(masks["turned"].affine, turned.affine)
    expected = np.asarray(masks["straight"].dataobj)
    found = np.asarray(nib.as_closest_canonical(masks["turned"]).dataobj)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(found, expected)
    assert read_labels(tmp_path / "turned_mask.nii.gz").array.dtype == np.uint8


def test_a_colour_picture_is_one_slice_with_three_channels() -> None:
    picture = Volume(np.random.default_rng(0).integers(0, 99, (3, 1, 40, 50), np.uint8), rgb=True)
    found = Predictor(checkpoint((16, 16), channels=3))(picture, uncertainty=True)
    assert found.labels.shape == (1, 40, 50)
    assert not found.uncertainty.rgb


def test_outputs_stand_for_label_values_in_ascending_order(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_network(monkeypatch, by_intensity)
    volume = scan((4, 10, 10))
    names = {300: "tumour", 0: "background", 4: "cyst"}
    found = Predictor(checkpoint((16, 16), names), precision="float32")(volume, probabilities=True)
    assert np.array_equal(found.labels.array, np.array([0, 4, 300])[nearest(volume).astype(int)])
    assert found.labels.array.dtype == np.uint16
    assert found.labels.names == names
    assert np.array_equal(found.probabilities.array.argmax(0), nearest(volume))


def test_probabilities_are_a_distribution_and_their_entropy_is_the_uncertainty() -> None:
    volume = scan((9, 30, 30))
    found = Predictor(checkpoint((8, 12, 16), spacing=(1.0, 0.7, 0.7)))(volume, probabilities=True, uncertainty=True)
    p = found.probabilities.array
    assert (p.dtype, found.uncertainty.array.dtype) == (np.float32, np.float32)
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    assert np.array_equal(p.argmax(0), found.labels.array)
    expected = -(p * np.log(np.maximum(p, 1e-30))).sum(0) / math.log(3)
    np.testing.assert_allclose(found.uncertainty.array[0], expected, atol=1e-5)
    assert 0 <= found.uncertainty.array.min() < found.uncertainty.array.max() <= 1
    assert found.uncertainty.spacing == found.probabilities.spacing == volume.spacing
    assert found.uncertainty.origin == found.probabilities.origin == volume.origin


@pytest.mark.parametrize(("scale", "expected"), [(0, 1), (1000, 0)])
def test_uncertainty_is_1_where_all_is_possible_and_0_where_all_is_clear(
    scale: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_network(monkeypatch, lambda image: torch.cat([scale * image, 0 * image, 0 * image], 1))
    found = Predictor(checkpoint((8, 8)))(Volume(np.ones((1, 2, 20, 20), np.float32)), uncertainty=True)
    np.testing.assert_allclose(found.uncertainty.array, expected, atol=1e-6)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("batch", [1, 3])
def test_progress_rises_with_every_batch_of_windows(
    patch: tuple[int, ...], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = replace_network(monkeypatch, by_intensity)
    said: list[float] = []
    Predictor(checkpoint(patch), batch=batch)(scan((20, 40, 30)), progress=said.append)
    assert (said[0], said[-1]) == (0, 1)
    assert said == sorted(said)
    calls = len(net.sizes)
    windows = sum(size[0] for size in net.sizes)
    np.testing.assert_allclose(said[1:-1], batch * np.arange(calls) / windows)
    assert all(size[0] <= batch for size in net.sizes)


def test_a_stop_is_obeyed_before_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net = replace_network(monkeypatch, by_intensity)
    with pytest.raises(Stopped):
        Predictor(checkpoint((8, 8)), batch=2)(scan((20, 40, 30)), stop=lambda: len(net.sizes) == 3)
    assert len(net.sizes) == 3


def test_half_precision_gives_nearly_the_same_in_float32() -> None:
    model, volume = checkpoint((8, 12, 16)), scan((10, 20, 30))
    full, half = (
        Predictor(model, precision=wish)(volume, probabilities=True).probabilities.array
        for wish in ("float32", "bfloat16")
    )
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1
    np.testing.assert_allclose(half.sum(0), 1, atol=1e-5)


def test_a_model_file_can_be_given(tmp_path: Path) -> None:
    model, volume = checkpoint((8, 8)), scan((2, 9, 9))
    path = model.save(tmp_path / "model.safetensors")
    expected = Predictor(model, precision="float32")(volume).labels.array
    assert np.array_equal(Predictor(str(path), precision="float32")(volume).labels.array, expected)


def test_a_pre_trained_model_says_that_it_must_be_fine_tuned(tmp_path: Path) -> None:
    path = checkpoint((8, 8), {}).save(tmp_path / "pre.safetensors")
    with pytest.raises(UserError, match=r"pre\.safetensors.*Fine-tune"):
        Predictor(path)


def test_another_number_of_channels_is_refused_with_the_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 9, 10), np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match=r"scan\.nii\.gz has 1 channel.* 2"):
        Predictor(checkpoint((8, 8), channels=2))(read_volume(tmp_path / "scan.nii.gz"))


def test_a_missing_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"no CUDA device.*device=cpu"):
        Predictor(checkpoint((8, 8)), device="cuda")


@pytest.mark.parametrize("wrong", [{"overlap": 1}, {"overlap": -0.1}, {"batch": 0}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="overlap"):
        Predictor(checkpoint((8, 8)), **wrong)


def test_a_full_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    replace_network(monkeypatch, full)
    with pytest.raises(UserError, match="Use a smaller batch"):
        Predictor(checkpoint((8, 8)))(scan((2, 20, 20)))


@pytest.mark.parametrize("patch", PATCHES)
def test_flips_average_what_is_said_of_mirrored_scans(patch: tuple[int, ...]) -> None:
    model, volume = checkpoint(patch), scan((8, 12, 16))
    plain = Predictor(model, precision="float32")
    axes = (2, 3) if len(patch) == 2 else (1, 2, 3)
    forms = [some for count in range(len(axes) + 1) for some in itertools.combinations(axes, count)]
    expected = np.mean([np.flip(plain.on_grid(np.flip(volume.array, some).copy()), some) for some in forms], 0)
    found = Predictor(model, precision="float32", flips=True)(volume, probabilities=True).probabilities
    np.testing.assert_allclose(found.array, expected, atol=1e-5)
    assert np.abs(expected - plain.on_grid(volume.array)).max() > 1e-3


def test_a_network_that_cannot_be_compiled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: torch.Tensor) -> torch.Tensor:
        raise TorchDynamoException("no C++ compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", lambda net, dynamic: broken)
    model = Predictor(checkpoint((8, 12)), device="cpu", compile=True)
    with pytest.raises(UserError, match=r"cannot be compiled for cpu \(no C\+\+ compiler\). Leave out compile"):
        model(scan((3, 8, 12)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("patch", PATCHES)
def test_a_compiled_network_says_the_same(patch: tuple[int, ...]) -> None:
    model, volume = checkpoint(patch), scan((9, 21, 24))
    one, other = (
        Predictor(model, precision="float32", compile=compiled)(volume, probabilities=True)
        for compiled in (False, True)
    )
    np.testing.assert_allclose(one.probabilities.array, other.probabilities.array, atol=1e-4)


def test_probabilities_of_eight_bits_are_those_in_steps_and_so_in_the_file(tmp_path: Path) -> None:
    model, volume = Predictor(checkpoint((8, 12, 16))), scan((13, 30, 40))
    exact = model(volume, probabilities=True).probabilities
    steps = model(volume, probabilities=True, eight_bits=True).probabilities
    assert steps.array.dtype == np.uint8
    assert np.abs(steps.array * EIGHT_BITS - exact.array).max() <= EIGHT_BITS / 2 + 1e-6
    path = write_volume(steps, tmp_path / "steps.nii.gz", EIGHT_BITS)
    assert nib.load(path).get_data_dtype() == np.uint8
    np.testing.assert_allclose(read_volume(path).array, steps.array * EIGHT_BITS, atol=1e-6)
    other = read_volume(write_volume(steps, tmp_path / "steps.nrrd", EIGHT_BITS))
    np.testing.assert_allclose(other.array, steps.array * EIGHT_BITS, atol=1e-6)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("suffix", [".nii", ".ome.zarr"])
def test_a_scan_on_the_disk_gets_the_same_mask(
    patch: tuple[int, ...], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    path = write_volume(scan((13, 30, 40)), tmp_path / f"scan{suffix}")
    predictor = Predictor(checkpoint(patch), precision="float32")
    there = open_volume(path)
    assert not isinstance(there.array, np.ndarray)
    ours = predictor(there, probabilities=True, uncertainty=True, scratch=tmp_path)
    other = predictor(read_volume(path), probabilities=True, uncertainty=True)
    assert np.array_equal(ours.labels.array, other.labels.array)
    assert np.array_equal(ours.probabilities.array, other.probabilities.array)
    assert np.array_equal(ours.uncertainty.array, other.uncertainty.array)
    assert isinstance(ours.labels.array, np.memmap)
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(read_labels(write_labels(ours.labels, tmp_path / "m.nii.gz")).array, other.labels.array)


def test_a_disk_without_room_for_the_result_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_medcl.inference.prediction.blank", full)
    with pytest.raises(UserError, match=r"cannot hold the result \(No space left on device\)"):
        Predictor(checkpoint((16, 16)), precision="float32")(scan((3, 16, 16)), scratch=tmp_path)
