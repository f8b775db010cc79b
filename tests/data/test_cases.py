from __future__ import annotations

import json
import os

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_medcl.data.cases import Case, Cases, find_cases
from napari_medcl.errors import UserError


def scan(path, shape=(4, 5, 6), value=None, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(np.full(shape[:2], value or 0, np.uint8)).save(path)
        return path
    array = np.full(shape, value or 0, np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def declare(folder, labels, name="mine"):
    (folder / "dataset.json").write_text(json.dumps({"name": name, "labels": labels}))


class TestLayouts:
    def test_decathlon(self, tmp_path):
        for name in ("a_001", "a_002", "a_003"):
            scan(tmp_path / "imagesTr" / f"{name}.nii.gz")
        (tmp_path / "imagesTr" / "._a_001.nii.gz").write_text("left by a Mac")
        (tmp_path / "imagesTr" / "notes.txt").write_text("")
        for name in ("a_001", "a_003"):
            scan(tmp_path / "labelsTr" / f"{name}.nii.gz")
        scan(tmp_path / "imagesTs" / "a_009.nii.gz")
        declare(tmp_path, {"0": "background", "1": "front", "2": "back"})
        cases = find_cases(str(tmp_path))
        assert [case.id for case in cases] == ["a_001", "a_002", "a_003", "a_009"]
        assert [case.id for case in cases.labelled] == ["a_001", "a_003"]
        assert [case.id for case in cases.unlabelled] == ["a_002", "a_009"]
        assert cases[0].labels == tmp_path / "labelsTr" / "a_001.nii.gz"
        assert cases.names == {1: "front", 2: "back"}
        assert cases[0].group == "a_001"

    def test_nnunet_channels(self, tmp_path):
        for name in ("a", "b"):
            for channel in (0, 1):
                scan(tmp_path / "imagesTr" / f"{name}_{channel:04d}.nii.gz", value=channel + 1)
            scan(tmp_path / "labelsTr" / f"{name}.nii.gz")
        for channel in (0, 1):
            scan(tmp_path / "imagesTs" / f"c_{channel:04d}.nii.gz")
        declare(tmp_path, {"background": 0, "front": 1})
        cases = find_cases(tmp_path)
        assert [(case.id, len(case.images)) for case in cases] == [("a", 2), ("b", 2), ("c", 2)]
        assert cases.names == {1: "front"}
        volume = cases[0].volume()
        assert volume.array[:, 0, 0, 0].tolist() == [1, 2]
        assert cases[0].volume(1).array[:, 0, 0, 0].tolist() == [2]
        assert cases.channels() == 2
        assert cases.channels(1) == 1
        with pytest.raises(UserError, match="no channel 2"):
            cases[0].volume(2)
        with pytest.raises(UserError, match="no channel 2"):
            cases.channels(2)

    def test_a_missing_channel(self, tmp_path):
        for name in ("a_0000", "a_0001", "b_0000"):
            scan(tmp_path / "imagesTr" / f"{name}.nii.gz")
        with pytest.raises(UserError, match="b_0001 is not there"):
            find_cases(tmp_path)

    @pytest.mark.parametrize("home", ["imagesTr", "images"])
    def test_numbers_that_are_no_channels(self, tmp_path, home):
        masks = {"imagesTr": "labelsTr", "images": "masks"}[home]
        for name in ("a_0000", "a_0001"):
            scan(tmp_path / home / f"{name}.nii.gz")
            scan(tmp_path / masks / f"{name}.nii.gz")
        assert [case.id for case in find_cases(tmp_path).labelled] == ["a_0000", "a_0001"]

    @pytest.mark.parametrize("masks", ["labels", "masks"])
    @pytest.mark.parametrize("name", ["a", "a_mask", "a_segmentation", "a-label", "a_seg-manual"])
    def test_pictures(self, tmp_path, masks, name):
        scan(tmp_path / "images" / "a.jpg", value=3)
        scan(tmp_path / masks / f"{name}.png", value=255)
        scan(tmp_path / "unlabelled" / "b.jpg")
        declare(tmp_path, {"0": "background", "255": "lesion"})
        cases = find_cases(tmp_path)
        assert [(case.id, bool(case.labels)) for case in cases] == [("a", True), ("b", False)]
        assert cases.names == {1: "lesion"}
        assert np.unique(cases[0].truth().array).tolist() == [1]

    def test_flat_folder_with_masks_beside(self, tmp_path):
        for name in ("t1", "t1_seg-manual", "t2", "t2s", "t2s_gmseg"):
            scan(tmp_path / f"{name}.nii.gz")
        scan(tmp_path / "lone_mask.nii.gz")
        found = {case.id: case.labels and case.labels.name for case in find_cases(tmp_path)}
        assert found == {
            "t1": "t1_seg-manual.nii.gz",
            "t2": None,
            "t2s": "t2s_gmseg.nii.gz",
            "lone_mask": None,
        }

    def test_dicom_folders(self, shared):
        cases = find_cases(shared / "data/dicom/ct_ge_3slices")
        assert [case.id for case in cases] == ["ct_ge_3slices"]
        assert cases[0].volume().shape == (3, 512, 512)
        assert "ct_siemens_20slices_j2k" in [case.id for case in find_cases(shared / "data/dicom")]

    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="There is no folder"):
            find_cases(tmp_path / "nowhere")

    def test_no_scans(self, tmp_path):
        with pytest.raises(UserError, match=r"no scans.*imagesTr, images"):
            find_cases(tmp_path)

    @pytest.mark.parametrize("files", [("images/a.png", "images/a.jpg"), ("images/a.png", "unlabelled/a.png")])
    def test_one_name_twice(self, tmp_path, files):
        for name in files:
            scan(tmp_path / name)
        with pytest.raises(UserError, match="one name"):
            find_cases(tmp_path)


class TestNames:
    def test_found_in_the_masks(self, tmp_path):
        for name, value in (("a", 3), ("b", 1), ("c", 255)):
            scan(tmp_path / "images" / f"{name}.nii.gz")
            scan(tmp_path / "labels" / f"{name}.nii.gz", value=value)
        assert find_cases(tmp_path).names == {1: "class 1", 3: "class 3"}

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"background": 0, "255": "lesion"}, "not annotated"),
            ({"background": 0, "a": 1, "ignore": 2}, "ignore"),
            ({"background": 0, "all": [1, 2]}, "several labels"),
        ],
    )
    def test_meanings_that_cannot_be(self, tmp_path, labels, message):
        scan(tmp_path / "images" / "a.nii.gz")
        scan(tmp_path / "labels" / "a.nii.gz")
        declare(tmp_path, labels)
        with pytest.raises(UserError, match=message):
            find_cases(tmp_path)

    def test_not_annotated_is_no_class(self, tmp_path):
        scan(tmp_path / "images" / "a.nii.gz")
        declare(tmp_path, {"0": "background", "2": "b", "1": "a", "255": "void"})
        assert find_cases(tmp_path).names == {1: "a", 2: "b"}

    def test_damaged_dataset_json(self, tmp_path):
        scan(tmp_path / "images" / "a.nii.gz")
        (tmp_path / "dataset.json").write_text("{")
        with pytest.raises(UserError, match=r"dataset\.json is not JSON"):
            find_cases(tmp_path)


class TestGroups:
    def folder(self, tmp_path):
        for name in ("patient1_a", "patient1_b", "patient2_a"):
            scan(tmp_path / "images" / f"{name}.nii.gz")
        return tmp_path

    def groups(self, tmp_path, rule):
        return {case.id: case.group for case in find_cases(self.folder(tmp_path), str(rule))}

    expected = {"patient1_a": "1", "patient1_b": "1", "patient2_a": "2"}  # noqa: RUF012

    def test_rule(self, tmp_path):
        assert self.groups(tmp_path, r"patient(\d+)") == self.expected

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("g.csv", "case,group\npatient1_a,1\npatient1_b,1\n\npatient2_a, 2\n"),
            ("g.json", '{"patient1_a": "1", "patient1_b": 1, "patient2_a": "2"}'),
            ("g.json", '{"1": ["patient1_a", "patient1_b"], "2": ["patient2_a"]}'),
        ],
    )
    def test_files(self, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        assert self.groups(tmp_path, tmp_path / name) == self.expected

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ("patient(", "no regular expression"),
            (r"patient\d", "one pair of brackets"),
            (r"(patient1)", "do not cover patient2_a"),
            ("nowhere.csv", "cannot be read"),
            ("nowhere.json", "cannot be read"),
        ],
    )
    def test_rules_that_do_not_work(self, tmp_path, rule, message):
        with pytest.raises(UserError, match=message):
            self.groups(tmp_path, rule)

    @pytest.mark.parametrize(("name", "content"), [("g.csv", "patient1_a\n"), ("g.csv", "\xff\xfe"), ("g.json", "[]")])
    def test_damaged_files(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(UserError, match=name):
            self.groups(tmp_path, tmp_path / name)


class TestTruth:
    def case(self, folder, **mask):
        return Case("a", (scan(folder / "a.nii.gz"),), scan(folder / "a_mask.nii.gz", value=1, **mask))

    def test_smoke(self, tmp_path):
        assert self.case(tmp_path).truth().array.sum() == 120

    def test_another_orientation_is_the_same_place(self, tmp_path):
        affine = np.diag([-1.0, 1, 1, 1])
        affine[0, 3] = 3
        assert self.case(tmp_path, affine=affine).truth().shape == (6, 5, 4)

    def test_rounded_headers_are_the_same_place(self, tmp_path):
        assert self.case(tmp_path, affine=np.diag([1.0004, 1, 1, 1])).truth()

    def test_another_shape(self, tmp_path):
        with pytest.raises(UserError, match=r"a_mask\.nii\.gz has the shape \(7, 5, 4\).*a\.nii\.gz has \(6, 5, 4\)"):
            self.case(tmp_path, shape=(4, 5, 7)).truth()

    @pytest.mark.parametrize("affine", [np.diag([1.0, 1, 2, 1]), np.diag([-1.0, 1, 1, 1])])
    def test_another_place(self, tmp_path, affine):
        with pytest.raises(UserError, match=r"a_mask\.nii\.gz and .*a\.nii\.gz have one shape but lie up to"):
            self.case(tmp_path, affine=affine).truth()

    def test_none(self, tmp_path):
        with pytest.raises(UserError, match="a has no mask"):
            Case("a", (tmp_path / "a.nii.gz",)).truth()

    def test_pictures_need_the_same_size_only(self, tmp_path):
        case = Case("a", (scan(tmp_path / "a.png"),), scan(tmp_path / "m.png", value=1, shape=(4, 6)))
        with pytest.raises(UserError, match=r"\(1, 4, 6\).*\(1, 4, 5\)"):
            case.truth()


class TestVolume:
    def test_channels_of_different_shape(self, tmp_path):
        images = (scan(tmp_path / "a.nii"), scan(tmp_path / "b.nii", shape=(4, 5, 7)))
        with pytest.raises(UserError, match=r"b\.nii has the shape .* a\.nii|b\.nii has the shape"):
            Case("a", images).volume()

    def test_channels_of_different_place(self, tmp_path):
        images = (scan(tmp_path / "a.nii"), scan(tmp_path / "b.nii", affine=np.diag([2.0, 1, 1, 1])))
        with pytest.raises(UserError, match="mm apart"):
            Case("a", images).volume()


class TestCases:
    def folder(self, tmp_path, **second):
        scan(tmp_path / "images" / "a.nii.gz")
        scan(tmp_path / "images" / "b.nii.gz", **second)
        return find_cases(tmp_path)

    def test_different_channels(self, tmp_path):
        cases = self.folder(tmp_path, shape=(4, 5, 6, 2))
        with pytest.raises(UserError, match=r"a\.nii\.gz has 1 channel.*b\.nii\.gz has 2"):
            cases.channels()

    def test_no_masks(self, tmp_path):
        with pytest.raises(UserError, match=r"None of the 2 scans in .* labelsTr, labels, masks"):
            self.folder(tmp_path).require_labelled()

    def test_select(self, tmp_path):
        cases = self.folder(tmp_path)
        chosen = cases.select(["b"])
        assert isinstance(chosen, Cases)
        assert [case.id for case in chosen] == ["b"]
        with pytest.raises(UserError, match="no cases x"):
            cases.select(["a", "x"])

    def test_a_digest_goes_by_what_the_files_hold(self, tmp_path):
        before = {case.id: case.digest() for case in self.folder(tmp_path, value=3)}
        assert len(set(before.values())) == len(before)
        path = tmp_path / "images" / "a.nii.gz"
        os.utime(path, (1, 1))  # touched, or copied without its times
        path.with_name("moved.nii.gz").write_bytes(path.read_bytes())
        scan(tmp_path / "images" / "b.nii.gz", value=7)
        after = {case.id: case.digest() for case in find_cases(tmp_path)}
        assert after["a"] == after["moved"] == before["a"]
        assert after["b"] != before["b"]

    def test_a_digest_takes_the_mask_in_and_names_a_file_that_is_gone(self, tmp_path):
        scan(tmp_path / "images" / "a.nii.gz")
        without = find_cases(tmp_path).cases[0]
        scan(tmp_path / "labels" / "a.nii.gz")
        with_mask = find_cases(tmp_path).cases[0]
        assert with_mask.digest() != without.digest()
        (tmp_path / "images" / "a.nii.gz").unlink()
        with pytest.raises(UserError, match=r"a\.nii\.gz cannot be read"):
            with_mask.digest()


COUNTS = {
    "hippocampus": (132, 132, ["anterior hippocampus", "posterior hippocampus"]),
    "acdc": (50, 50, ["right ventricular cavity", "myocardium", "left ventricular cavity"]),
    "chaos_t2": (10, 10, ["liver", "right kidney", "left kidney", "spleen"]),
    "openkbp_ct": (14, 14, None),
    "isic2017": (837, 600, ["lesion"]),
    "kvasir_seg": (300, 300, ["polyp"]),
    "msd_spleen_crop": (1, 1, ["spleen"]),
}


@pytest.mark.parametrize("name", COUNTS)
def test_shared_folders(shared, name):
    count, labelled, names = COUNTS[name]
    cases = find_cases(shared / "data" / name)
    assert (len(cases), len(cases.require_labelled())) == (count, labelled)
    assert list(cases.names.values()) == (names or list(cases.names.values()))
    truth = cases.labelled[0].truth()
    assert truth.shape == cases.labelled[0].volume().shape
    assert set(np.unique(truth.array)) - {0} <= set(cases.names)
    assert cases.select([case.id for case in cases[:20]]).channels() in (1, 3)
