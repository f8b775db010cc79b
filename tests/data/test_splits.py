from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medcl.data.cases import Case, Cases, Split, find_cases, read_split, split_by_group
from napari_medcl.errors import UserError


def cases_of(groups, unlabelled=(), folder="data"):
    """Cases a0, a1, ... of the group "a", given {"a": 2}; `unlabelled` groups get one more case each."""
    cases = [Case(f"{g}{i}", (Path(f"{g}{i}.nii"),), Path("m.nii"), g) for g, n in groups.items() for i in range(n)]
    cases += [Case(f"{g}-u", (Path(f"{g}-u.nii"),), None, g) for g in unlabelled]
    return Cases(Path(folder), tuple(cases))


sizes = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 5), min_size=3, max_size=30)


class TestSplitByGroup:
    @settings(max_examples=100, deadline=None)
    @given(
        sizes=sizes,
        val=st.sampled_from([0, 0.1, 0.2, 0.4]),
        test=st.sampled_from([0, 0.2, 0.5]),
        seed=st.integers(0, 5),
    )
    def test_groups_are_whole_and_parts_about_right(self, sizes, val, test, seed):
        cases = cases_of(sizes)
        split = split_by_group(cases, val, test, seed)
        sides = {"train": split.train, "val": split.val, "test": split.test}
        assert sorted(sum(sides.values(), ())) == sorted(case.id for case in cases)
        for group in sizes:
            assert sum(any(case.id in ids for case in cases if case.group == group) for ids in sides.values()) == 1
        assert split.train
        assert bool(split.val) == (val > 0)
        assert bool(split.test) == (test > 0)
        assert len(split.test) <= test * len(cases) + max(sizes.values())
        assert split == split_by_group(cases, val, test, seed)

    def test_a_known_split(self):
        split = split_by_group(cases_of(dict.fromkeys("abcdefghij", 1)))
        assert (len(split.train), len(split.val), len(split.test)) == (6, 2, 2)
        # `printf '0|a' | sha256sum` and so on give the order i g c a f j b e d h
        assert split == Split(tuple(f"{g}0" for g in "fjbedh"), ("c0", "a0"), ("i0", "g0"))

    def test_seeds_differ(self):
        cases = cases_of(dict.fromkeys("abcdefghij", 1))
        assert len({split_by_group(cases, seed=seed) for seed in range(5)}) == 5

    def test_order_of_cases_does_not_matter(self):
        cases = cases_of(dict.fromkeys("abcdefghij", 2))
        turned = Cases(cases.folder, cases.cases[::-1])
        assert set(split_by_group(turned).test) == set(split_by_group(cases).test)

    def test_unlabelled_train_unless_their_group_is_held_out(self):
        groups = dict.fromkeys("abcdefghij", 1)
        split = split_by_group(cases_of(groups, unlabelled=[*groups, "z"]))
        held_out = {case[0] for case in (*split.val, *split.test)}
        assert {case[0] for case in split.train if case.endswith("-u")} == {*groups, "z"} - held_out
        assert not any(case.endswith("-u") for case in (*split.val, *split.test))

    def test_no_labels_at_all(self):
        assert split_by_group(cases_of({}, unlabelled="abc")) == Split(train=("a-u", "b-u", "c-u"))

    def test_too_few_groups(self):
        with pytest.raises(UserError, match=r"2 group\(s\).*need 3"):
            split_by_group(cases_of({"a": 5, "b": 5}))
        assert split_by_group(cases_of({"a": 5, "b": 5}), test=0).test == ()

    @pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.5, 0.5), (0, 1)])
    def test_no_parts(self, val, test):
        with pytest.raises(UserError, match="below 1"):
            split_by_group(cases_of({"a": 1}), val, test)


class TestReadSplit:
    cases = cases_of({"a": 2, "b": 2, "c": 2}, unlabelled="ad")
    sides = {"train": ["a0", "a1"], "val": ["b0", "b1"], "test": ["c0"]}  # noqa: RUF012
    expected = Split(("a0", "a1", "a-u", "d-u"), ("b0", "b1"), ("c0",))

    def read(self, tmp_path, content, cases=None):
        path = tmp_path / "split.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_split(path, cases or self.cases)

    @pytest.mark.parametrize("name", ["data", "other"])
    def test_plain_and_collected(self, tmp_path, name):
        assert self.read(tmp_path, self.sides) == self.expected
        other = {"train": ["x"], "val": [], "test": []}
        collection = {"datasets": {"first": other, name: {**self.sides, "groups": {}}}}
        assert self.read(tmp_path, collection) == self.expected

    def test_by_the_name_in_dataset_json(self, tmp_path):
        (tmp_path / "dataset.json").write_text('{"name": "mine"}')
        cases = Cases(tmp_path, self.cases.cases)
        collection = {"datasets": {"mine": self.sides, "twin": {**self.sides, "test": []}}}
        assert self.read(tmp_path, collection, cases) == self.expected

    def test_folds_of_nnunet(self, tmp_path):
        folds = [{"train": ["a0", "a1"], "val": ["b0"]}, {"train": ["b0"], "val": ["a0"]}]
        assert self.read(tmp_path, folds) == Split(("a0", "a1", "a-u", "d-u"), ("b0",))

    def test_its_own(self, tmp_path):
        assert self.read(tmp_path, self.expected.to_json()) == self.expected
        assert Split.from_json(self.expected.to_json()) == self.expected

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON"),
            ("[]", "is no split"),
            ({"val": []}, "is no split"),
            ({"train": ["x1", "x2", "x3", "x4"]}, "x1, x2, x3 and 1 more"),
            ({"train": ["a0"], "val": ["a0"]}, "a0 stands twice"),
            ({"train": ["a0"], "val": ["a1"]}, "puts the group a into"),
            ({"datasets": {"x": {"train": ["x"]}, "y": {"train": ["y"]}}}, "None of the data sets"),
        ],
    )
    def test_files_that_do_not_fit(self, tmp_path, content, message):
        with pytest.raises(UserError, match=message):
            self.read(tmp_path, content)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_split(tmp_path / "nowhere.json", self.cases)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("hippocampus", (76, 26, 30)),
        ("acdc", (30, 10, 10)),
        ("chaos_t2", (6, 2, 2)),
        ("openkbp_ct", (8, 3, 3)),
        ("isic2017", (360 + 237, 120, 120)),
        ("kvasir_seg", (180, 60, 60)),
    ],
)
def test_shared_splits(shared, name, sides):
    cases = find_cases(shared / "data" / name)
    split = read_split(shared / "data/splits.json", cases)
    assert (len(split.train), len(split.val), len(split.test)) == sides
    assert len(cases.select(split.train).labelled) == sides[0] - len(cases.unlabelled)


def test_shared_groups(shared):
    cases = find_cases(shared / "data/acdc", r"(patient\d+)_")
    assert len({case.group for case in cases}) == 25
    split = read_split(shared / "data/splits.json", cases)
    assert len(split.train) == 30
