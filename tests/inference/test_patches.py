from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import UserError
from napari_medcl.inference.patches import Patches, patches
from napari_medcl.methods import PDCR
from napari_medcl.models import NetworkSpec

RANDOM = np.random.default_rng(0)


def literal(labels: np.ndarray, found: Patches, ignored: int | None) -> np.ndarray:
    """Composition of every window, one after the other."""
    result = np.zeros((*found.grid, len(found.values)))
    for patch in itertools.product(*map(range, found.grid)):
        centre = [axis[i] for axis, i in zip(found.places, patch, strict=True)]
        begin = [c - found.side // 2 for c in centre]
        window = labels[tuple(slice(max(b, 0), b + found.side) for b in begin)]
        known = window[window != ignored]
        if known.size:
            result[patch] = [(known == value).sum() / known.size for value in found.values]
    return result


@pytest.mark.parametrize(
    ("shape", "name", "side"),
    [((40, 31), "enc2", None), ((40, 31), "enc1", 7), ((40, 100), "dec2", None), ((18, 21, 30), "enc2", None)],
)
@pytest.mark.parametrize("ignored", [None, IGNORE])
def test_patches_are_those_of_the_method(shape: tuple[int, ...], name: str, side: int, ignored: int | None) -> None:
    labels = RANDOM.choice([0, 3, 200, IGNORE], shape)
    found = patches(labels, name, 4, side, ignored)
    spec = NetworkSpec(in_channels=1, classes=2, spatial_dims=len(shape))
    method = PDCR(windows=side and (side,))
    grid = method.grid(spec, name, shape)
    assert found.grid == tuple(map(len, grid))
    assert (found.side,) == method.sides(spec, name)
    assert found.values.tolist() == ([0, 3, 200] if ignored else [0, 3, 200, 255])
    expected = literal(labels, found, ignored)
    np.testing.assert_allclose(found.composition, expected, atol=1e-6)
    patch = tuple(n // 2 for n in found.grid)
    alike = 1 - np.abs(expected - expected[patch]).sum(-1) / 2
    np.testing.assert_allclose(found.affinity_to(patch), alike, atol=1e-6)


def test_cells_cover_the_map_and_hold_their_centres() -> None:
    found = patches(RANDOM.integers(0, 3, (50, 37)), "enc3", 4)
    for axis, cell, size in zip(found.places, found.cell, (52, 40), strict=True):
        assert cell * len(axis) == size
        assert all(number * cell <= place < (number + 1) * cell for number, place in enumerate(axis))


def test_patch_at_a_voxel_and_its_window() -> None:
    found = patches(RANDOM.integers(0, 3, (40, 30)), "enc1", 4, side=7)
    patch = found.nearest((0, 29.4))
    assert patch == (0, found.grid[1] - 1)
    (top, bottom), (left, right) = found.window(patch)
    assert (top, right) == (max(found.places[0][0] - 3, 0), min(found.places[1][-1] + 4, 30))
    assert bottom == found.places[0][0] + 4
    assert left == found.places[1][-1] - 3
    for other in itertools.product(*map(range, found.grid)):
        assert found.nearest([axis[i] for axis, i in zip(found.places, other, strict=True)]) == other


def test_what_nobody_annotated_is_compared_with_nothing() -> None:
    labels = np.zeros((32, 32), int)
    labels[16:] = IGNORE
    found = patches(labels, "enc1", 4, side=3, ignored=IGNORE)
    alike = found.affinity_to((0, 0))
    assert np.array_equal(np.isnan(alike), ~found.composition.any(-1))
    assert np.nanmin(alike) == 1
    assert np.isnan(found.affinity_to((found.grid[0] - 1, 0))).all()


def test_what_makes_no_patches_is_said() -> None:
    with pytest.raises(UserError, match="68 voxels wide, the image 40 × 30: every patch"):
        patches(np.zeros((40, 30), int), "enc4", 4)
    with pytest.raises(UserError, match="no map 'enc5'"):
        patches(np.zeros((40, 30), int), "enc5", 4)
    with pytest.raises(UserError, match="Nothing is annotated here"):
        patches(np.full((40, 30), IGNORE), "enc1", 4, ignored=IGNORE)
