from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from napari_medcl.data.plan import make_plan
from napari_medcl.data.superpixels import SuperpixelSettings, superpixel_slice, superpixels
from napari_medcl.data.views import CHANGED, change_appearance
from napari_medcl.data.volume import Volume
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.pairs import groups_of, new_network, slice_groups, trained_network
from napari_medcl.methods.losses.supercl import ccl
from tests.inference.models import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.inference.groups import Groups

HOW = SuperpixelSettings(segments=12)
SHAPE = (12, 40, 36)


def scan(shape: tuple[int, ...] = SHAPE, channels: int = 1, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Volume:
    """A blob that wanders from slice to slice, in noise."""
    random = np.random.default_rng(0)
    z, y, x = np.ogrid[tuple(slice(0, 1, complex(0, n)) for n in shape)]
    blob = np.exp(-(((y - 0.3 - 0.4 * z) ** 2 + (x - 0.6 + 0.3 * z) ** 2) / 0.02))
    return Volume(
        (100 * blob + random.normal(0, 5, (channels, *shape))).astype(np.float32),
        spacing,  # type: ignore[arg-type]
    )


def found(volume: Volume, dims: Any = 2, axis: int = 0, count: int = 6, index: int = 0, **more: Any) -> Groups:
    return slice_groups(volume, *new_network(volume, dims, axis), HOW, count, index, **more)


def literal(volume: Volume, axis: int, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled maps (2B, h·w) and linked pairs, slice by slice and superpixel by superpixel."""
    net, plan = new_network(volume, 2, axis)
    image = plan.conform(volume)[:, slices]
    stride = 2**net.spec.depth
    random = torch.Generator().manual_seed(0)
    net.train()
    pooled = []
    for _ in range(2):
        view = change_appearance(torch.tensor(np.moveaxis(image, 1, 0)), CHANGED, random)
        for number, feature in enumerate(net.encode(view)["bottleneck"].detach().numpy()):
            ids = superpixel_slice(image[:, number], HOW)[::stride, ::stride]
            mean, result = feature.mean(0), np.zeros(feature.shape[1:])
            for one in np.unique(ids):
                result[ids == one] = mean[ids == one].sum() / ids.size
            pooled.append(result.ravel())
    rows = np.array(pooled)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.array(pooled), rows @ rows.T


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_grouped_as_by_the_formulas(axis: int) -> None:
    volume = scan()
    groups = found(volume, axis=axis)
    pooled, likeness = literal(volume, axis, groups.slices)
    np.testing.assert_allclose(groups.pooled.reshape(6, -1), pooled[:6], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(groups.likeness, likeness.reshape(2, 6, 2, 6).max((0, 2)), atol=1e-5)
    nearest = (likeness - 9 * np.eye(12)).argmax(1)
    links = np.zeros((12, 12))
    links[np.arange(12), nearest] = 1
    _, component = connected_components(links, directed=False)
    same = component[:, None] == component
    assert np.array_equal(groups.views.ravel()[:, None] == groups.views.ravel(), same)
    assert groups.axis == axis
    assert groups.pooled.shape[axis + 1] == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maps_lie_over_their_slices(axis: int) -> None:
    groups = found(scan(), axis=axis, index=5)
    assert 5 in groups.slices
    assert groups.slices[0] == 0
    assert groups.slices[-1] == SHAPE[axis] - 1
    assert np.array_equal(groups.first[:, axis], groups.slices)
    assert groups.cell[axis] == 1
    covered = groups.cell * groups.pooled.shape[1:]
    for other in {0, 1, 2} - {axis}:
        assert np.array_equal(groups.first[:, other], np.zeros(6))
        assert SHAPE[other] <= covered[other] < SHAPE[other] + groups.cell[other]
    assert [groups.at(number) for number in groups.slices] == [*range(6)]
    assert groups.at(1 if 1 not in groups.slices else 2) is None


def test_fewer_slices_than_asked_for_are_all_taken() -> None:
    assert found(scan(), count=64).slices.tolist() == [*range(12)]


def test_crops_of_a_volume() -> None:
    volume = scan((40, 30, 24))
    net, plan = new_network(volume, 3)
    plan = plan.model_copy(update={"patch": (16, 16, 16)})
    groups = slice_groups(volume, net, plan, HOW, 3, 0)
    assert groups.slices.tolist() == [8, 20, 32]
    assert groups.first.tolist() == [[0, 7, 4], [12, 7, 4], [24, 7, 4]]
    cells = 16 // 2**net.spec.depth
    assert groups.pooled.shape == (3, cells, cells, cells)
    assert groups.cell.tolist() == [2**net.spec.depth] * 3
    whole = superpixels(plan.conform(volume), HOW.model_copy(update={"per": "volume"}), (1, 1, 1))
    for number, (z, y, x) in enumerate(groups.first.astype(int)):
        ids = whole[z : z + 16, y : y + 16, x : x + 16][tuple([slice(None, None, 2**net.spec.depth)] * 3)]
        for one in np.unique(ids):  # a superpixel has one value
            assert np.ptp(groups.pooled[number][ids == one]) == 0
    assert [groups.at(index) for index in (0, 13, 15, 39)] == [0, 0, 1, 2]


def test_model_with_voxels_of_another_size(tmp_path: Path) -> None:
    path = checkpoint((16, 16), {}, spacing=(None, 2.0, 0.5)).save(tmp_path / "model.safetensors")
    groups = slice_groups(scan(), *trained_network(path, 2), HOW, 4, 0)
    assert groups.pooled.shape == (4, 1, 5, 18)
    assert groups.cell.tolist() == [1, 8, 2]


def test_the_same_question_has_the_same_answer() -> None:
    state = torch.get_rng_state()
    one, two = found(scan()), found(scan())
    assert np.array_equal(one.pooled, two.pooled)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_groups_are_components(count: int) -> None:
    likeness = torch.rand(2 * count, 2 * count, generator=torch.Generator().manual_seed(count))
    linked = ccl(likeness)
    groups = groups_of(linked)
    assert groups.shape == (2, count)
    assert np.array_equal(groups.ravel()[:, None] == groups.ravel(), linked.numpy())
    assert groups[0, 0] == 0
    assert np.array_equal(np.unique(groups), np.arange(groups.max() + 1))


def test_progress_and_stop() -> None:
    told: list[float] = []
    found(scan(), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    with pytest.raises(Stopped):
        found(scan(), stop=lambda: len(told) > 0)


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(UserError, match="one slice"):
        found(scan((1, 20, 20)))
    small = scan((16, 16, 16))
    with pytest.raises(UserError, match="16 × 16 × 16 voxels holds all slices"):
        found(small, dims=3)


def test_what_takes_too_much_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_medcl.inference.pairs._MOST_PIXELS", 3 * 40 * 36)
    assert len(found(scan(), count=3).slices) == 3
    with pytest.raises(UserError, match=r"6 times 1 × 40 × 36 voxels .* Compare 3 or fewer"):
        found(scan())


def test_model_that_does_not_fit_is_said(tmp_path: Path) -> None:
    flat = checkpoint((16, 16), {}, slice_axis=1).save(tmp_path / "flat.safetensors")
    solid = checkpoint((16, 16, 16), {}, channels=2).save(tmp_path / "solid.safetensors")
    with pytest.raises(UserError, match=r"is 2D.* from slices; you look at volumes"):
        trained_network(flat, 3)
    with pytest.raises(UserError, match=r"is 3D.* Look at volumes, or choose a 2D model"):
        trained_network(solid, 2)
    with pytest.raises(UserError, match="along y; you look at slices along z"):
        trained_network(flat, 2)
    with pytest.raises(UserError, match="1 channel"):
        slice_groups(scan(), *trained_network(solid, 3), HOW, 4, 0)


def test_new_network_is_that_of_training() -> None:
    volume = scan((12, 70, 80), spacing=(5.0, 1.0, 1.0))
    net, plan = new_network(volume, 2)
    wanted, depth = make_plan([volume])
    assert (net.spec.depth, net.spec.width) == (depth, 32)
    assert plan.intensities == wanted.intensities
    assert plan.grid(volume) == wanted.grid(volume)
