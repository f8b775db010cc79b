from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image
from napari.layers import Labels as LabelsLayer

from napari_medcl.data.geometry import Source
from napari_medcl.data.volume import Labels, Volume
from napari_medcl.errors import UserError
from napari_medcl.gui.layers import image_layers, labels_layer, same_scan, to_labels, to_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANDOM = np.random.default_rng(0)


def volume_of(affine: NDArray[np.float64], shape: tuple[int, ...] = (6, 5, 4), channels: int = 1) -> Volume:
    source = Source(shape=shape, affine=affine, format="grid", channels=channels)
    return Volume(RANDOM.random((channels, *source.grid)), source.spacing, source.origin, source)


def meta_of(layer: LabelsLayer) -> dict:  # type: ignore[type-arg]
    return layer.as_layer_data_tuple()[1]


def permuted(order: tuple[int, ...], signs: tuple[int, ...], turn: float) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)] * np.array(signs) * (0.7, 1.3, 2.9)
    cos, sin = np.cos(turn), np.sin(turn)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = 11, -7, 3
    return affine


@settings(deadline=None, max_examples=60)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.sampled_from((0.0, 0.001, 0.2)),
)
def test_layer_gives_back_the_scan_and_its_source(order: list[int], signs: tuple[int, ...], turn: float) -> None:
    volume = volume_of(permuted(tuple(order), signs, turn))
    ((data, meta, _),) = image_layers(volume, "scan")
    layer = Image(data, **meta)
    assert not {"rotate", "shear", "affine"} & set(meta), "a turned layer is resliced without being shown to be"
    assert np.all(layer.scale > 0)
    back = to_volume([layer])
    assert back.source is not None
    assert np.array_equal(back.source.affine, volume.source.affine)  # type: ignore[union-attr]
    assert np.array_equal(back.array, volume.array)


def test_units_and_axes_are_always_given() -> None:
    for layer in (*image_layers(volume_of(np.eye(4)), "scan"), labels_layer(Labels(np.ones((3, 4, 5), int)), "mask")):
        assert layer[1]["units"] == ["mm"] * 3
        assert layer[1]["axis_labels"] == ("z", "y", "x")


def test_channels_are_layers_of_one_scan() -> None:
    layers = [Image(data, **meta) for data, meta, _ in image_layers(volume_of(np.eye(4), channels=3), "scan")]
    assert [layer.name for layer in layers] == ["scan [0]", "scan [1]", "scan [2]"]
    for layer in layers:
        layer.metadata["medcl"]["source"]["path"] = "/some/scan.nii.gz"
    stranger = Image(np.zeros((4, 5, 6)))
    assert same_scan(layers[1], [stranger, *layers[::-1]]) == layers
    assert same_scan(stranger, layers) == [stranger]
    assert to_volume(layers).channels == 3


def test_time_series_is_one_layer_of_which_a_time_point_is_taken() -> None:
    volume = volume_of(np.diag([1, 1, 3, 1.0]), channels=12)
    ((data, meta, _),) = image_layers(volume, "cine")
    layer = Image(data, **meta)
    assert layer.ndim == 4
    back = to_volume([layer], 7)
    assert np.array_equal(back.array, volume.array[7:8])
    assert back.source is not None


def test_picture_is_2d_and_in_colour() -> None:
    source = Source(shape=(7, 9), affine=np.diag([1.0, 1, 1, 1]), format="picture", channels=3, rgb=True)
    colours = RANDOM.integers(0, 255, (3, *source.grid), dtype=np.uint8)
    picture = Volume(colours, source.spacing, source.origin, source, rgb=True)
    ((data, meta, _),) = image_layers(picture, "photo")
    layer = Image(data, **meta)
    assert layer.rgb
    assert layer.ndim == 2
    back = to_volume([layer])
    assert back.rgb
    assert np.array_equal(back.array, colours)


def test_volume_of_one_slice_keeps_its_place_in_the_patient() -> None:
    ((data, meta, _),) = image_layers(volume_of(np.diag([1, 1, 5, 1.0]), shape=(6, 5, 1)), "slice")
    assert data.ndim == 3
    assert meta["scale"][0] == 5


def test_new_labels_layer_finds_its_scan() -> None:
    volume = volume_of(permuted((2, 0, 1), (1, -1, 1), 0.2))
    ((_, meta, _),) = image_layers(volume, "scan")
    drawn = LabelsLayer(
        np.zeros(volume.shape, int), scale=meta["scale"], translate=meta["translate"], units=meta["units"]
    )
    other = volume_of(np.diag([1, 1, 3, 1.0]))
    found = to_labels(drawn.data, meta_of(drawn), [other.source, volume.source])  # type: ignore[list-item]
    assert found.source is volume.source


def test_layer_that_fits_no_scan_keeps_the_place_that_it_shows() -> None:
    drawn = LabelsLayer(np.zeros((3, 4, 5), int), scale=(2, 1, 1), translate=(5, 6, 7), units="mm")
    labels = to_labels(drawn.data, meta_of(drawn), [volume_of(np.eye(4)).source])  # type: ignore[list-item]
    assert labels.source is None
    assert labels.spacing == (2, 1, 1)
    assert labels.origin == (5, 6, 7)


def test_units_of_length_become_millimetres() -> None:
    drawn = LabelsLayer(np.zeros((3, 4, 5), int), scale=(2000, 1000, 500), translate=(0, 0, 10_000), units="um")
    labels = to_labels(drawn.data, meta_of(drawn))
    assert np.allclose(labels.spacing, (2, 1, 0.5))
    assert np.allclose(labels.origin, (0, 0, 10))


def test_mask_of_a_time_series_is_refused_in_words() -> None:
    drawn = LabelsLayer(np.zeros((2, 3, 4, 5), int), name="drawn")
    with pytest.raises(UserError, match="“drawn” has 4 dimensions"):
        to_labels(drawn.data, meta_of(drawn))


def test_channels_of_different_shape_are_refused_in_words() -> None:
    with pytest.raises(UserError, match="“a”, “b” have different shapes"):
        to_volume([Image(np.zeros((3, 4, 5)), name="a"), Image(np.zeros((3, 4, 6)), name="b")])


def test_names_of_classes_survive() -> None:
    labels = Labels(np.ones((3, 4, 5), np.uint8), names={1: "liver", 4: "spleen"})
    data, meta, _ = labels_layer(labels, "organs")
    layer = LabelsLayer(data, **meta)
    assert "liver" in str(layer.get_status((1, 1, 1)))
    assert to_labels(layer.data, meta_of(layer)).names == labels.names


def test_brightness_leaves_out_the_outermost_values() -> None:
    array = np.zeros((1, 10, 100, 100), np.float32)
    array[0, :, 20:80, 20:80] = 100
    array[0, 0, 0, 0] = 1e6
    ((_, meta, _),) = image_layers(Volume(array), "scan")
    assert meta["contrast_limits"] == (0, 100)
    ((_, meta, _),) = image_layers(Volume(np.full((1, 2, 2, 2), 7)), "flat")
    assert meta["contrast_limits"] == (7, 8)


def test_map_can_be_written_without_a_layer() -> None:
    ((data, meta, _),) = image_layers(volume_of(np.eye(4)), "map")
    back = to_volume([SimpleNamespace(data=data, ndim=3, rgb=False, **{**meta, "scale": np.array(meta["scale"])})])
    assert back.source is not None
