from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medcl.data.volume import Labels, Source, Volume, matching_source
from napari_medcl.errors import UserError

RAS_TO_LPS_ZYX = np.array([[0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]])
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def signed_permutation(order, signs, spacing=(0.7, 1.1, 5.0), origin=(10.5, -20.25, 33.0)):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, step) in enumerate(zip(order, signs, spacing, strict=True)):
        affine[world, axis] = sign * step
    affine[:3, 3] = origin
    return affine


@st.composite
def oblique_affines(draw):
    turn = draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
    spacing = draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    shear = draw(st.tuples(*[st.floats(-0.3, 0.3)] * 3))
    affine = np.eye(4)
    skew = np.array([[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1]])
    affine[:3, :3] = Rotation.from_quat(turn).as_matrix() @ skew * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation_puts_every_voxel_in_its_place(order, signs):
    shape = (4, 5, 6)
    affine = signed_permutation(order, signs)
    source = Source(shape=shape, affine=affine)
    stored = np.arange(120).reshape(shape)
    canonical = source.canonical(stored)

    assert canonical.shape == source.grid
    assert min(source.spacing) > 0
    for index in np.ndindex(shape):
        world = (RAS_TO_LPS_ZYX @ affine @ [*index, 1])[:3]
        ours = np.rint((world - source.origin) / source.spacing).astype(int)
        np.testing.assert_allclose(ours * source.spacing + source.origin, world, atol=1e-9)
        assert canonical[tuple(ours)] == stored[index]
    assert np.array_equal(source.stored(canonical), stored)


def test_orientations_are_all_there():
    assert len(ORIENTATIONS) == 48


@settings(max_examples=100, deadline=None)
@given(affine=oblique_affines(), shape=st.tuples(*[st.integers(1, 7)] * 3))
def test_oblique_scans_keep_their_centre(affine, shape):
    source = Source(shape=shape, affine=affine)
    middle = np.append((np.array(shape) - 1) / 2, 1)
    ours = np.array(source.origin) + np.array(source.spacing) * (np.array(source.grid) - 1) / 2
    np.testing.assert_allclose(ours, (RAS_TO_LPS_ZYX @ affine @ middle)[:3], atol=1e-6)
    assert min(source.spacing) > 0
    np.testing.assert_allclose(sorted(source.spacing), sorted(np.linalg.norm(affine[:3, :3], axis=0)))


@settings(max_examples=100, deadline=None)
@given(affine=oblique_affines(), shape=st.tuples(*[st.integers(1, 7)] * 3))
def test_canonical_affine_places_voxels_as_the_file_does(affine, shape):
    source = Source(shape=shape, affine=affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(*shape, 3)
    homogeneous = np.concatenate([index, np.ones((*shape, 1))], axis=-1)
    world = homogeneous @ (RAS_TO_LPS_ZYX @ affine).T
    ours = source.canonical(world)  # (4, Z, Y, X) positions, moved like voxels
    for place in np.ndindex(source.grid):
        np.testing.assert_allclose(source.canonical_affine @ [*place, 1], ours[(slice(None), *place)], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(affine=oblique_affines(), shape=st.tuples(*[st.integers(1, 5)] * 3), extra=st.integers(0, 2))
def test_stored_undoes_canonical(affine, shape, extra):
    source = Source(shape=shape, affine=affine)
    stored = np.arange(np.prod(shape) * 2**extra).reshape(*shape, *[2] * extra)
    canonical = source.canonical(stored)
    assert canonical.base is not None
    assert canonical.shape == (*[2] * extra, *source.grid)
    assert np.array_equal(source.stored(canonical), stored)


def test_flat_scans_have_one_slice():
    source = Source(shape=(3, 5), affine=np.diag([-1.0, -1, 1, 1]))
    stored = np.arange(15).reshape(3, 5)
    assert source.grid == (1, 5, 3)
    assert np.array_equal(source.canonical(stored)[0], stored.T)
    assert np.array_equal(source.stored(source.canonical(stored)), stored)


def test_units_become_millimetres():
    source = Source(shape=(2, 2, 2), affine=np.diag([-100.0, -200, 300, 1]), unit=0.001)
    np.testing.assert_allclose(source.spacing, (0.3, 0.2, 0.1))


def test_of_grid_is_the_grid():
    source = Source.of_grid((2, 3, 4), (3.0, 2.0, 1.0), (-5.0, 6.0, 7.0))
    assert (source.grid, source.spacing, source.origin) == ((2, 3, 4), (3.0, 2.0, 1.0), (-5.0, 6.0, 7.0))


@settings(max_examples=50, deadline=None)
@given(affine=oblique_affines())
def test_dictionary_keeps_every_bit(affine):
    source = Source(
        shape=(2, 3, 4),
        affine=affine,
        path=Path("a b.nii"),
        format="nifti",
        channels=2,
        header=b"\x00\xff1",
        unit=1000.0,
    )
    back = Source.from_dict(json.loads(json.dumps(source.to_dict())))
    assert np.array_equal(back.affine, affine)
    assert (back.path, back.shape, back.header, back.format) == (source.path, source.shape, source.header, "nifti")
    assert (back.channels, back.unit, back.rgb) == (2, 1000.0, False)


@pytest.mark.parametrize(
    "affine",
    [np.diag([1.0, np.nan, 1, 1]), np.diag([1.0, np.inf, 1, 1]), np.diag([1.0, 0, 1, 1]), np.ones((4, 4))],
    ids=["nan", "inf", "zero", "singular"],
)
def test_affines_without_a_place_are_refused(affine):
    with pytest.raises(UserError, match=r"scan\.nii .*affine.*Set a valid sform"):
        Source(shape=(2, 2, 2), affine=affine, path=Path("scan.nii"))


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 2), (2, 0, 2)])
def test_shapes_of_no_scan_are_refused(shape):
    with pytest.raises(UserError, match="two or three axes"):
        Source(shape=shape, affine=np.eye(4))


def test_another_shape_cannot_be_stored():
    with pytest.raises(UserError, match=r"\(3, 3, 3\).*\(4, 3, 2\)"):
        Source(shape=(2, 3, 4), affine=np.eye(4)).stored(np.zeros((3, 3, 3)))


def test_distance_is_that_of_the_farthest_corner():
    here = Source(shape=(11, 11, 11), affine=np.eye(4))
    wider = Source(shape=(11, 11, 11), affine=np.diag([1.1, 1, 1, 1]))
    assert here.distance(here) == 0
    assert here.distance(wider) == pytest.approx(1.0)


class TestMatchingSource:
    source = Source.of_grid((4, 5, 6), (3.0, 0.5, 0.5), (-100.0, 20.0, 30.0))
    other = Source.of_grid((4, 5, 6), (3.0, 0.6, 0.5), (-100.0, 20.0, 30.0))

    def match(self, shape=(4, 5, 6), scale=(3.0, 0.5, 0.5), translate=(-100.0, 20.0, 30.0)):
        return matching_source(shape, scale, translate, [self.other, self.source])

    def test_smoke(self):
        assert self.match() is self.source
        assert self.match(scale=(3.00001, 0.50001, 0.5)) is self.source

    @pytest.mark.parametrize(
        "changed", [{"shape": (4, 5, 7)}, {"scale": (3.0, 0.51, 0.5)}, {"translate": (-100.0, 20.1, 30.0)}]
    )
    def test_no_match(self, changed):
        assert self.match(**changed) is None

    def test_flat_layer_matches_a_picture_only(self):
        picture = Source.of_grid((1, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        stack = Source.of_grid((3, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        assert matching_source((5, 6), (1, 1), (0, 0), [stack, picture]) is picture


class TestTypes:
    @pytest.mark.parametrize("array", [np.zeros((2, 2, 2)), np.zeros((1, 2, 2, 2), complex), np.zeros((1, 0, 2, 2))])
    def test_no_volume(self, array):
        with pytest.raises(UserError, match="axes"):
            Volume(array)

    @pytest.mark.parametrize("array", [np.zeros((2, 2), int), np.zeros((2, 2, 2)), np.zeros((2, 2, 0), int)])
    def test_no_labels(self, array):
        with pytest.raises(UserError, match="integers"):
            Labels(array)

    @pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, np.nan, 1)])
    def test_no_spacing(self, spacing):
        with pytest.raises(UserError, match="spacing"):
            Volume(np.zeros((1, 2, 2, 2)), spacing=spacing)

    def test_no_origin(self):
        with pytest.raises(UserError, match="origin"):
            Labels(np.zeros((2, 2, 2), int), origin=(0, np.inf, 0))

    def test_sizes(self):
        volume = Volume(np.zeros((3, 1, 4, 5)))
        assert (volume.channels, volume.shape, volume.planar) == (3, (1, 4, 5), True)
        labels = Labels(np.zeros((2, 4, 5), int))
        assert (labels.shape, labels.planar) == ((2, 4, 5), False)
