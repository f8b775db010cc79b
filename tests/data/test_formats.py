from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_medcl.data.formats import looks_like_labels, open_volume, read_labels, read_source, read_volume, stem
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.data.writing import write_labels, write_volume
from napari_medcl.errors import UserError
from tests.data.test_geometry import ORIENTATIONS, oblique_affines, signed_permutation

GEOMETRY = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units", "dim_info"),
)


def save(path, array, affine, codes=(1, 2), other=None, dtype=None, endian="<", nifti2=False):
    """A NIfTI file; `other` is a second affine for the qform."""
    kind, header_kind = (nib.Nifti2Image, nib.Nifti2Header) if nifti2 else (nib.Nifti1Image, nib.Nifti1Header)
    header = header_kind(endianness=endian)
    header.set_data_shape(array.shape)
    header.set_data_dtype(dtype or array.dtype)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine if other is None else other, code=codes[0])
    header.set_sform(affine, code=codes[1])
    nib.save(kind(array, None, header), path)
    return path


def assert_same_geometry(mask_path, scan_path):
    mask, scan = nib.load(mask_path), nib.load(scan_path)
    assert np.array_equal(mask.affine, scan.affine)
    assert mask.affine.dtype == np.float64
    assert mask.shape == scan.shape[:3]
    for name in GEOMETRY:
        assert np.array_equal(mask.header[name], scan.header[name]), name
    assert np.array_equal(mask.get_qform(), scan.get_qform())
    assert np.array_equal(mask.get_sform(), scan.get_sform())


def mask_of_bright(volume):
    """A mask made on the canonical grid: 2 where channel 0 is above 60, 1 where above 30."""
    array = (volume.array[0] > 30).astype(np.int32) + (volume.array[0] > 60)
    return Labels(array, volume.spacing, volume.origin, volume.source)


def round_trip(folder, scan_path):
    """Reads a scan, writes a mask of it, and checks geometry and every voxel."""
    volume = read_volume(scan_path)
    mask_path = write_labels(mask_of_bright(volume), folder / "mask.nii.gz")
    assert_same_geometry(mask_path, scan_path)
    stored = nib.load(scan_path).get_fdata()
    stored = stored[..., 0] if stored.ndim == 4 else stored
    expected = (stored > 30).astype(int) + (stored > 60)
    mask = nib.load(mask_path)
    assert np.array_equal(np.asanyarray(mask.dataobj), expected)
    assert mask.get_data_dtype() == np.uint8
    again = read_labels(mask_path)
    assert np.array_equal(again.array, mask_of_bright(volume).array)
    assert (again.spacing, again.origin) == (volume.spacing, volume.origin)


def speckle(shape, dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


class TestRoundTrip:
    @pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
    @pytest.mark.parametrize("codes", [(1, 0), (0, 2), (3, 1)])
    def test_all_48_orientations(self, tmp_path, order, signs, codes):
        affine = signed_permutation(order, signs)
        round_trip(tmp_path, save(tmp_path / "scan.nii", speckle((4, 5, 6)), affine, codes))

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        affine=oblique_affines(),
        codes=st.sampled_from([(0, 1), (0, 4), (2, 1)]),
        shape=st.tuples(*[st.integers(1, 6)] * 3),
        channels=st.sampled_from([(), (1,), (3,)]),
        dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]),
        endian=st.sampled_from("<>"),
        seed=st.integers(0, 99),
    )
    def test_oblique(self, tmp_path, affine, codes, shape, channels, dtype, endian, seed):
        array = speckle((*shape, *channels), dtype, seed)
        path = save(tmp_path / "scan.nii.gz", array, affine, codes, endian=endian)
        round_trip(tmp_path, path)
        volume = read_volume(path)
        assert volume.array.dtype == (np.float32 if np.dtype(dtype).kind == "f" else dtype)

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(affine=oblique_affines(), other=oblique_affines(), codes=st.sampled_from([(1, 0), (1, 2)]))
    def test_qform_alone_and_qform_against_sform(self, tmp_path, affine, other, codes):
        other[:3, :3] = np.linalg.qr(other[:3, :3])[0] * [1.5, 2.5, 3.5]
        round_trip(tmp_path, save(tmp_path / "scan.nii", speckle((3, 4, 5)), affine, codes, other=other))

    def test_neither_form(self, tmp_path):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), np.diag([2.0, 3, 4, 1]), (0, 0))
        round_trip(tmp_path, path)
        assert read_volume(path).spacing == (4, 3, 2)

    def test_nifti2(self, tmp_path):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), signed_permutation((2, 0, 1), (1, -1, 1)), nifti2=True)
        round_trip(tmp_path, path)
        assert isinstance(nib.load(tmp_path / "mask.nii.gz"), nib.Nifti2Image)

    @pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 1, 6), (1, 5, 6)])
    def test_flat(self, tmp_path, shape):
        for order, signs in itertools.islice(ORIENTATIONS, 0, None, 5):
            round_trip(tmp_path, save(tmp_path / "scan.nii", speckle(shape), signed_permutation(order, signs)))

    def test_odd_headers(self, tmp_path):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), signed_permutation((0, 1, 2), (-1, 1, 1)))
        data = bytearray(path.read_bytes())
        data[76:80] = np.float32(0.5).tobytes()  # pixdim[0], which should be 1 or -1
        path.write_bytes(data)
        round_trip(tmp_path, path)

    def test_what_concerns_grey_values_is_not_copied(self, tmp_path):
        image = nib.Nifti1Image(speckle((3, 4, 5)), np.eye(4))
        image.header["cal_max"], image.header["intent_code"] = 500, 1005
        nib.save(image, tmp_path / "scan.nii")
        round_trip(tmp_path, tmp_path / "scan.nii")
        header = nib.load(tmp_path / "mask.nii.gz").header
        assert (header["cal_max"], header["intent_code"]) == (0, 0)

    def test_names_in_capitals(self, tmp_path):
        path = save(tmp_path / "SCAN.NII.GZ", speckle((3, 4, 5)), np.eye(4))
        assert_same_geometry(write_labels(mask_of_bright(read_volume(path)), tmp_path / "MASK.NII"), path)

    def test_a_mask_of_scaled_grey_values_is_not_scaled(self, tmp_path):
        image = nib.Nifti1Image(speckle((3, 4, 5)), np.eye(4))
        image.header.set_slope_inter(0.5, -10)
        nib.save(image, tmp_path / "scan.nii")
        round_trip(tmp_path, tmp_path / "scan.nii")
        assert nib.load(tmp_path / "mask.nii.gz").header.get_slope_inter() == (None, None)

    def test_source_survives_as_a_dictionary(self, tmp_path):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), signed_permutation((1, 0, 2), (-1, 1, 1)))
        volume = read_volume(path)
        source = Source.from_dict(volume.source.to_dict())
        labels = Labels(mask_of_bright(volume).array, volume.spacing, volume.origin, source)
        assert_same_geometry(write_labels(labels, tmp_path / "mask.nii"), path)

    def test_maps(self, tmp_path):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), signed_permutation((1, 0, 2), (-1, 1, 1)))
        volume = read_volume(path)
        maps = np.random.default_rng(0).random((2, *volume.shape)).astype(np.float32)
        write_volume(Volume(maps, volume.spacing, volume.origin, volume.source), tmp_path / "maps.nii.gz")
        assert np.array_equal(nib.load(tmp_path / "maps.nii.gz").affine, nib.load(path).affine)
        assert nib.load(tmp_path / "maps.nii.gz").shape == (3, 4, 5, 2)
        assert np.array_equal(read_volume(tmp_path / "maps.nii.gz").array, maps)
        write_volume(Volume(maps[:1], volume.spacing, volume.origin, volume.source), tmp_path / "map.nii.gz")
        assert_same_geometry(tmp_path / "map.nii.gz", path)

    def test_real_scans(self, tmp_path, shared):
        for name in ("spinal_cord/t2", "spinal_cord/t2s", "totalsegmentator_example/mr/example_mr_sm"):
            path = shared / "data" / f"{name}.nii.gz"
            volume = read_volume(path)
            labels = Labels(np.asarray(volume.array[0] > 100, np.uint8), source=volume.source)
            assert_same_geometry(write_labels(labels, tmp_path / "mask.nii"), path)


class TestNifti:
    def test_scaled_values(self, tmp_path):
        stored = speckle((3, 4, 5), np.uint16)
        image = nib.Nifti1Image(stored, np.diag([-1.0, -1, 1, 1]))
        image.header.set_slope_inter(2.5, -1024)
        nib.save(image, tmp_path / "scan.nii.gz")
        volume = read_volume(tmp_path / "scan.nii.gz")
        assert volume.array.dtype == np.float32
        np.testing.assert_allclose(volume.array[0], nib.load(tmp_path / "scan.nii.gz").get_fdata().T)

    @pytest.mark.parametrize("channel", [0, 2])
    def test_one_channel(self, tmp_path, channel):
        path = save(tmp_path / "scan.nii.gz", speckle((3, 4, 5, 3)), signed_permutation((2, 1, 0), (1, 1, -1)))
        volume = read_volume(path)
        assert volume.channels == read_source(path).channels == 3
        assert np.array_equal(read_volume(path, channel).array[0], volume.array[channel])

    @pytest.mark.parametrize("channel", [3, -1])
    def test_no_such_channel(self, tmp_path, channel):
        path = save(tmp_path / "scan.nii.gz", speckle((3, 4, 5, 3)), np.eye(4))
        with pytest.raises(UserError, match=r"scan\.nii\.gz has no channel .*it has 3"):
            read_volume(path, channel)

    def test_what_is_not_finite_becomes_0(self, tmp_path):
        array = np.full((3, 4, 5), 7.0, np.float32)
        array[0, 0, 0], array[1, 0, 0], array[2, 0, 0] = np.nan, np.inf, -np.inf
        volume = read_volume(save(tmp_path / "scan.nii", array, np.diag([-1.0, -1, 1, 1])))
        assert volume.array[0, 0, 0].tolist() == [0, 0, 0]
        assert (volume.array == 7).sum() == 57

    def test_nothing_finite(self, tmp_path):
        path = save(tmp_path / "scan.nii", np.full((3, 4, 5), np.nan, np.float32), np.eye(4))
        with pytest.raises(UserError, match="no finite value"):
            read_volume(path)

    def test_colours(self, tmp_path):
        colours = np.zeros((3, 4, 1), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        colours["G"] = speckle((3, 4, 1))
        nib.save(nib.Nifti1Image(colours, np.diag([-1.0, -1, 1, 1])), tmp_path / "scan.nii")
        volume = read_volume(tmp_path / "scan.nii")
        assert (volume.rgb, volume.array.shape) == (True, (3, 1, 4, 3))
        assert np.array_equal(volume.array[1, 0], colours["G"][..., 0].T)
        assert read_volume(tmp_path / "scan.nii", 1).channels == 1

    @pytest.mark.parametrize("shape", [(3, 4, 5, 1, 3), (3, 4, 5, 2, 3)])
    def test_vectors_are_refused(self, tmp_path, shape):
        path = save(tmp_path / "field.nii", speckle(shape), np.eye(4))
        with pytest.raises(UserError, match="vectors"):
            read_volume(path)

    def test_complex_is_refused(self, tmp_path):
        path = save(tmp_path / "scan.nii", np.ones((3, 4, 5), np.complex64), np.eye(4))
        with pytest.raises(UserError, match="complex64"):
            read_volume(path)

    @pytest.mark.parametrize("change", [{"srow_x": np.nan}, {"srow_x": 0}])
    def test_affines_without_a_place(self, tmp_path, change):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), np.eye(4))
        header = nib.load(path).header
        offset = header.template_dtype.fields["srow_x"][1]
        data = bytearray(path.read_bytes())
        data[offset : offset + 16] = np.full(4, change["srow_x"], np.float32).tobytes()
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"scan\.nii .*affine"):
            read_volume(path)


class TestMasks:
    def test_stored_as_floats(self, tmp_path):
        array = np.zeros((3, 4, 5))
        array[1] = 3
        labels = read_labels(save(tmp_path / "mask.nii", array, np.diag([-1.0, -1, 1, 1])))
        assert labels.array.dtype == np.uint8
        assert np.array_equal(labels.array, array.T)

    def test_scaled_to_whole_numbers(self, tmp_path):
        image = nib.Nifti1Image(np.full((2, 2, 2), 255, np.uint8), np.eye(4))
        image.header.set_slope_inter(1 / 255, 0)
        nib.save(image, tmp_path / "mask.nii")
        assert np.unique(read_labels(tmp_path / "mask.nii").array).tolist() == [1]

    @pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e12])
    def test_other_floats_are_refused(self, tmp_path, value):
        path = save(tmp_path / "mask.nii", np.full((2, 2, 2), value), np.eye(4))
        with pytest.raises(UserError, match="not a mask"):
            read_labels(path)

    def test_negative_is_refused(self, tmp_path):
        path = save(tmp_path / "mask.nii", np.full((2, 2, 2), -1, np.int16), np.eye(4))
        with pytest.raises(UserError, match="-1"):
            read_labels(path)
        with pytest.raises(UserError, match="-1"):
            write_labels(Labels(np.full((2, 2, 2), -1)), tmp_path / "out.nii")

    def test_channels_are_refused(self, tmp_path):
        path = save(tmp_path / "mask.nii", speckle((2, 2, 2, 3)), np.eye(4))
        with pytest.raises(UserError, match="3 channels"):
            read_labels(path)

    @pytest.mark.parametrize(("high", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.uint32)])
    def test_smallest_type(self, tmp_path, high, dtype):
        path = write_labels(Labels(np.full((2, 2, 2), high)), tmp_path / "mask.nii")
        assert nib.load(path).get_data_dtype() == dtype
        assert read_labels(path).array.max() == high

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
    def test_without_a_source(self, tmp_path, suffix):
        labels = Labels(speckle((3, 4, 5), np.uint8), (3.0, 2.0, 1.0), (-10.0, 20.0, 30.0))
        again = read_labels(write_labels(labels, tmp_path / f"mask{suffix}"))
        assert np.array_equal(again.array, labels.array)
        assert (again.spacing, again.origin) == (labels.spacing, labels.origin)

    def test_another_shape_than_the_scan(self, tmp_path):
        scan = read_volume(save(tmp_path / "scan.nii", speckle((3, 4, 5)), np.eye(4)))
        with pytest.raises(UserError, match=r"scan\.nii"):
            write_labels(Labels(np.zeros((3, 4, 5), int), source=scan.source), tmp_path / "mask.nii")
        assert not (tmp_path / "mask.nii").exists()

    @pytest.mark.parametrize("name", ["mask.jpg", "mask.txt", "mask", "mask.mhd"])
    def test_other_formats_are_refused(self, tmp_path, name):
        with pytest.raises(UserError, match=r"\.nii\.gz"):
            write_labels(Labels(np.zeros((1, 4, 5), int)), tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="cannot be written"):
            write_labels(Labels(np.zeros((1, 4, 5), int)), tmp_path / "nowhere" / "mask.nii")

    def test_an_older_file_survives_a_refusal(self, tmp_path):
        path = write_labels(Labels(np.ones((2, 2, 2), int)), tmp_path / "mask.png.nii")
        before = path.read_bytes()
        scan = read_volume(save(tmp_path / "scan.nii", speckle((3, 4, 5)), np.eye(4)))
        with pytest.raises(UserError):
            write_labels(Labels(np.zeros((3, 4, 5), int), source=scan.source), path)
        assert path.read_bytes() == before


class TestPictures:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
    def test_modes(self, tmp_path, mode, suffix):
        if (mode, suffix) == ("LA", ".bmp"):
            pytest.skip("BMP has no such mode")
        picture = Image.fromarray(speckle((6, 7, 3), np.uint8)).convert(mode)
        picture.save(tmp_path / f"a{suffix}")
        volume = read_volume(tmp_path / f"a{suffix}")
        grey = mode in ("L", "1", "LA")
        expected = np.asarray(picture.convert("L" if grey else "RGB"))
        assert volume.array.shape == ((1 if grey else 3), 1, 6, 7)
        assert volume.rgb is not grey
        assert np.array_equal(volume.array[:, 0], expected[None] if grey else np.moveaxis(expected, -1, 0))
        assert (volume.spacing, volume.origin) == ((1, 1, 1), (0, 0, 0))
        assert read_source(tmp_path / f"a{suffix}").channels == volume.channels

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_16_bits(self, tmp_path, suffix):
        array = np.arange(0, 42000, 1000, dtype=np.uint16).reshape(6, 7)
        Image.fromarray(array).save(tmp_path / f"a{suffix}")
        volume = read_volume(tmp_path / f"a{suffix}")
        assert np.array_equal(volume.array[0, 0], array)

    def test_jpeg_without_its_exif_turn(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(speckle((6, 7, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
        assert read_volume(tmp_path / "a.jpg").shape == (1, 6, 7)

    def test_one_colour(self, tmp_path):
        Image.fromarray(speckle((6, 7, 3), np.uint8)).save(tmp_path / "a.png")
        green = read_volume(tmp_path / "a.png", 1)
        assert not green.rgb
        assert np.array_equal(green.array[0], read_volume(tmp_path / "a.png").array[1])

    def test_several_pages(self, tmp_path):
        pages = [Image.fromarray(speckle((6, 7), np.uint8, seed)) for seed in range(2)]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
        with pytest.raises(UserError, match="several pages"):
            read_volume(tmp_path / "a.tif")

    @pytest.mark.parametrize("high", [1, 3, 255, 300])
    def test_masks_come_back(self, tmp_path, high):
        Image.fromarray(speckle((6, 7, 3), np.uint8)).save(tmp_path / "scan.png")
        scan = read_volume(tmp_path / "scan.png")
        array = np.zeros((1, 6, 7), np.int32)
        array[0, 2:4] = high
        path = write_labels(Labels(array, source=scan.source), tmp_path / "mask.png")
        with Image.open(path) as picture:
            assert picture.size == (7, 6)
        assert np.array_equal(read_labels(path).array, array)

    def test_a_mask_of_a_picture_as_nifti(self, tmp_path):
        Image.fromarray(speckle((6, 7, 3), np.uint8)).save(tmp_path / "scan.png")
        scan = read_volume(tmp_path / "scan.png")
        array = np.arange(42).reshape(1, 6, 7)
        again = read_labels(write_labels(Labels(array, source=scan.source), tmp_path / "mask.nii.gz"))
        assert np.array_equal(again.array, array)
        maps = Volume(np.random.default_rng(0).random((2, 1, 6, 7)).astype(np.float32), source=scan.source)
        assert np.array_equal(read_volume(write_volume(maps, tmp_path / "maps.nii")).array, maps.array)

    def test_a_mask_of_one_slice_as_picture(self, tmp_path):
        scan = read_volume(save(tmp_path / "scan.nii", speckle((7, 6, 1)), signed_permutation((1, 0, 2), (1, -1, 1))))
        labels = mask_of_bright(scan)
        assert np.array_equal(read_labels(write_labels(labels, tmp_path / "mask.png")).array, labels.array)

    def test_a_stack_is_no_picture(self, tmp_path):
        with pytest.raises(UserError, match="3 slices"):
            write_labels(Labels(np.zeros((3, 6, 7), int)), tmp_path / "mask.png")

    def test_labels_too_large_for_png(self, tmp_path):
        with pytest.raises(UserError, match="70000"):
            write_labels(Labels(np.full((1, 6, 7), 70000)), tmp_path / "mask.png")

    @pytest.mark.parametrize(("values", "expected"), [((0, 255), (0, 1)), ((255, 255), (1, 1)), ((0, 0), (0, 0))])
    @pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA"])
    def test_black_and_white(self, tmp_path, values, expected, mode):
        array = np.repeat(np.array(values, np.uint8), 8).reshape(2, 8)
        Image.fromarray(array).convert(mode).save(tmp_path / "mask.png")
        assert np.array_equal(read_labels(tmp_path / "mask.png").array[0], np.repeat(expected, 8).reshape(2, 8))

    def test_ids_stay(self, tmp_path):
        array = np.array([[0, 1, 2], [3, 255, 255]], np.uint8)
        Image.fromarray(array).save(tmp_path / "mask.png")
        assert np.array_equal(read_labels(tmp_path / "mask.png").array[0], array)

    def test_palette_numbers_are_the_labels(self, tmp_path):
        array = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
        picture = Image.fromarray(array).convert("P")
        picture.putdata(array.ravel().tolist())
        picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        picture.save(tmp_path / "mask.png")
        assert np.array_equal(read_labels(tmp_path / "mask.png").array[0], array)

    def test_colour_masks_are_refused(self, tmp_path):
        Image.fromarray(speckle((6, 7, 3), np.uint8)).save(tmp_path / "mask.png")
        with pytest.raises(UserError, match="colour picture"):
            read_labels(tmp_path / "mask.png")

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_jpeg_masks(self, tmp_path, mode):
        array = np.zeros((64, 64), np.uint8)
        array[20:44, 20:44] = 255
        Image.fromarray(array).convert(mode).save(tmp_path / "mask.jpg", quality=75)
        assert np.array_equal(read_labels(tmp_path / "mask.jpg").array[0], array // 255)

    def test_grey_jpeg_masks_are_refused(self, tmp_path):
        Image.fromarray(np.repeat(np.arange(0, 64, 4, np.uint8), 64).reshape(16, 64)).save(tmp_path / "mask.jpg")
        with pytest.raises(UserError, match="Export the mask as PNG"):
            read_labels(tmp_path / "mask.jpg")


class TestITK:
    affine = signed_permutation((1, 2, 0), (-1, 1, -1))

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
    def test_the_same_place_as_in_nifti(self, tmp_path, suffix):
        image = sitk.ReadImage(save(tmp_path / "scan.nii", speckle((3, 4, 5)), self.affine))
        sitk.WriteImage(image, tmp_path / f"scan{suffix}")
        ours, theirs = read_volume(tmp_path / "scan.nii"), read_volume(tmp_path / f"scan{suffix}")
        assert np.array_equal(ours.array, theirs.array)
        np.testing.assert_allclose(theirs.spacing, ours.spacing, rtol=1e-6)
        np.testing.assert_allclose(theirs.origin, ours.origin, rtol=1e-6)

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(affine=oblique_affines())
    def test_round_trip(self, tmp_path, suffix, affine):
        image = sitk.GetImageFromArray(speckle((3, 4, 5)))
        turn = np.linalg.qr(affine[:3, :3])[0]
        image.SetDirection(turn.ravel().tolist())
        image.SetSpacing([0.7, 1.1, 5.0])
        image.SetOrigin(affine[:3, 3].tolist())
        sitk.WriteImage(image, tmp_path / f"scan{suffix}")
        scan = sitk.ReadImage(tmp_path / f"scan{suffix}")
        labels = mask_of_bright(read_volume(tmp_path / f"scan{suffix}"))
        mask = sitk.ReadImage(write_labels(labels, tmp_path / f"mask{suffix}"))
        np.testing.assert_allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-12)
        np.testing.assert_allclose(mask.GetSpacing(), scan.GetSpacing(), rtol=1e-12)
        np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), rtol=1e-12)
        stored = sitk.GetArrayFromImage(scan)
        assert np.array_equal(sitk.GetArrayFromImage(mask), (stored > 30).astype(int) + (stored > 60))
        as_nifti = sitk.ReadImage(write_labels(labels, tmp_path / "mask.nii"))
        np.testing.assert_allclose(as_nifti.GetDirection(), scan.GetDirection(), atol=1e-5)
        assert np.array_equal(sitk.GetArrayFromImage(as_nifti), sitk.GetArrayFromImage(mask))

    def test_nifti_scan_with_nrrd_mask(self, tmp_path):
        path = save(tmp_path / "scan.nii", speckle((3, 4, 5)), self.affine)
        mask = sitk.ReadImage(write_labels(mask_of_bright(read_volume(path)), tmp_path / "mask.nrrd"))
        scan = sitk.ReadImage(path)
        np.testing.assert_allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), rtol=1e-6)
        np.testing.assert_allclose(mask.GetSpacing(), scan.GetSpacing(), rtol=1e-6)

    def test_channels(self, tmp_path):
        array = speckle((3, 4, 5, 2))
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), tmp_path / "scan.nrrd")
        volume = read_volume(tmp_path / "scan.nrrd")
        assert np.array_equal(volume.array, np.moveaxis(array, -1, 0))
        assert np.array_equal(read_volume(tmp_path / "scan.nrrd", 1).array[0], array[..., 1])
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), tmp_path / "time.nrrd")
        assert np.array_equal(read_volume(tmp_path / "time.nrrd").array, array)

    def test_flat(self, tmp_path):
        array = speckle((4, 5), np.uint8)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing([0.5, 2.0])
        sitk.WriteImage(image, tmp_path / "scan.mha")
        volume = read_volume(tmp_path / "scan.mha")
        assert np.array_equal(volume.array[0, 0], array)
        assert volume.spacing == (1.0, 2.0, 0.5)
        mask = write_labels(mask_of_bright(volume), tmp_path / "mask.mha")
        assert sitk.ReadImage(mask).GetSpacing() == (0.5, 2.0)


class TestDicom:
    @pytest.mark.parametrize(
        ("name", "spacing", "grid"),
        [
            ("ct_siemens_20slices_j2k", (2.0, 0.9765625, 0.9765625), (20, 512, 512)),
            ("ct_ge_3slices", (1.0, 0.810547, 0.810547), (3, 512, 512)),
        ],
    )
    def test_spacing_is_that_of_the_positions(self, shared, tmp_path, name, spacing, grid):
        folder = shared / "data" / "dicom" / name
        volume = read_volume(folder)
        assert volume.shape == grid
        np.testing.assert_allclose(volume.spacing, spacing, rtol=1e-6)
        labels = Labels(np.asarray(volume.array[0] > 200, np.uint8), volume.spacing, volume.origin, volume.source)
        for suffix in (".nii.gz", ".nrrd"):
            again = read_labels(write_labels(labels, tmp_path / f"mask{suffix}"))
            assert np.array_equal(again.array, labels.array)
            np.testing.assert_allclose(again.origin, volume.origin, rtol=1e-6)

    def test_labels_of_a_series_lie_on_it(self, shared):
        scan = read_source(shared / "data/dicom/ct_siemens_20slices_j2k")
        mask = read_labels(shared / "data/dicom/ct_siemens_20slices_j2k_labels/example_seg_dicom.nii.gz")
        assert mask.shape == scan.grid
        assert scan.distance(mask.source) < 0.01
        bone = read_volume(shared / "data/dicom/ct_siemens_20slices_j2k").array[0] > 300
        assert (mask.array[bone] > 0).mean() > 3 * (mask.array > 0).mean()

    @pytest.mark.parametrize(
        ("name", "message"), [("pydicom_small", "3 DICOM series"), ("ct_ge_3slices_seg", "2 DICOM")]
    )
    def test_several_series(self, shared, name, message):
        with pytest.raises(UserError, match=message):
            read_volume(shared / "data/dicom" / name)

    def test_a_missing_slice(self, shared, tmp_path):
        files = sorted((shared / "data/dicom/ct_siemens_20slices_j2k").iterdir())
        for file in [*files[:5], *files[6:]]:
            (tmp_path / file.name).symlink_to(file)
        with pytest.raises(UserError, match="evenly"):
            read_source(tmp_path)

    def test_multi_frame(self, shared, tmp_path):
        (tmp_path / "a.dcm").symlink_to(shared / "data/dicom/pydicom_small/emri_small.dcm")
        with pytest.raises(UserError, match="multi-frame"):
            read_volume(tmp_path)

    def test_a_folder_of_something_else(self, tmp_path):
        with pytest.raises(UserError, match="no DICOM series"):
            read_volume(tmp_path)


class TestDamage:
    def damaged(self, folder, kind):
        scan = save(folder / "whole.nii", speckle((30, 30, 30)), np.eye(4)).read_bytes()
        picture = folder / "whole.png"
        Image.fromarray(speckle((60, 60), np.uint8)).save(picture)
        content = {
            "cut.nii.gz": gzip.compress(scan)[:20000],
            "cut.nii": scan[:20000],
            "header.nii": scan[:300],
            "text.nii.gz": b"patient,group\n1,2\n" * 100,
            "zipped text.nii.gz": gzip.compress(b"patient,group\n1,2\n" * 100),
            "text.nii": b"patient,group\n1,2\n" * 100,
            "cut.png": picture.read_bytes()[:800],
            "text.png": b"no picture" * 100,
            "text.nrrd": b"no scan" * 100,
            "text.mha": b"no scan" * 100,
            "empty.nii.gz": b"",
            "empty.png": b"",
            "notes.txt": b"notes",
        }[kind]
        path = folder / kind
        path.write_bytes(content)
        return path

    @pytest.mark.parametrize("read", [read_volume, read_labels])
    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("cut.nii.gz", "cut off"),
            ("cut.nii", "cut off"),
            ("header.nii", "cannot be read"),
            ("text.nii.gz", "not compressed"),
            ("zipped text.nii.gz", "no NIfTI file"),
            ("text.nii", "no NIfTI file"),
            ("cut.png", "cut off"),
            ("text.png", "no picture"),
            ("text.nrrd", "no NRRD"),
            ("text.mha", "no NRRD or MetaImage"),
            ("empty.nii.gz", "is empty"),
            ("empty.png", "is empty"),
            ("notes.txt", "unknown kind"),
        ],
    )
    def test_a_message_that_names_the_file(self, tmp_path, kind, message, read):
        path = self.damaged(tmp_path, kind)
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert not looks_like_labels(path)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"scan\.nii\.gz is not there"):
            read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/b.nii.gz", "b"), ("b.c.NII.GZ", "b.c"), ("b.png", "b"), ("b", "b"), ("b.0001.nii", "b.0001")],
)
def test_stem(name, expected):
    assert stem(name) == expected


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (5, 6, 7, 3)])
def test_a_scan_that_stays_on_the_disk_is_the_same(tmp_path, monkeypatch, shape, dtype, endian):
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    affine = signed_permutation((2, 0, 1), (1.0, -1.0, 1.0))
    array = speckle(shape, dtype)
    if dtype == np.float32:
        array.flat[:3] = np.nan, np.inf, -np.inf
    path = save(tmp_path / "scan.nii", array, affine, endian=endian)
    for channel in (None, 0):
        there, read = open_volume(path, channel), read_volume(path, channel)
        assert not isinstance(there.array, np.ndarray)
        assert there.array.dtype == read.array.dtype
        assert np.array_equal(np.asarray(there.array), read.array)
        assert (there.spacing, there.origin, there.channels, there.planar) == (
            read.spacing, read.origin, read.channels, read.planar,
        )  # fmt: skip
    assert looks_like_labels(there) == looks_like_labels(read)


def test_scaled_values_are_scaled_where_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    image = nib.Nifti1Image(speckle((5, 6, 7)), np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    nib.save(image, tmp_path / "scan.nii")
    assert np.array_equal(
        np.asarray(open_volume(tmp_path / "scan.nii").array), read_volume(tmp_path / "scan.nii").array
    )


def test_small_and_compressed_scans_are_read_at_once(tmp_path, monkeypatch):
    small = save(tmp_path / "small.nii", speckle((5, 6, 7)), np.eye(4))
    assert isinstance(open_volume(small).array, np.ndarray)
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    assert isinstance(open_volume(save(tmp_path / "a.nii.gz", speckle((5, 6, 7)), np.eye(4))).array, np.ndarray)
    with pytest.raises(UserError, match="no channel 1"):
        open_volume(small, 1)


def test_a_scan_that_is_cut_off_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_medcl.data.formats.LAZY", 0)
    path = save(tmp_path / "scan.nii", speckle((5, 6, 7)), np.eye(4))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off"):
        open_volume(path)


def test_of_a_large_scan_one_slice_is_read(tmp_path):
    path = save(tmp_path / "large.nii", speckle((64, 64, 4)), np.eye(4))
    header = bytearray(path.read_bytes()[:352])
    header[40:48] = np.array([3, 4096, 4096, 4096], "<i2").tobytes()
    with path.open("wb") as file:  # 128 GiB, of which the disk holds one page
        file.write(header)
        file.truncate(352 + 2 * 4096**3)
        file.seek(352 + 2 * 4096**2 * 1000)
        file.write(np.arange(8, dtype="<i2").tobytes())
    volume = open_volume(path)
    assert volume.shape == (4096, 4096, 4096)
    part = np.asarray(volume.array[0, 1000])
    assert sorted(part[part > 0]) == [*range(1, 8)]
