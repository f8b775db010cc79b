from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from napari_medcl.inference import correct
from napari_medcl.inference.edits import EDITS, Edit, FillHoles, Grow, Interpolate, KeepLargest, Merge, On, Swap
from napari_medcl.inference.interpolate import interpolate

SPACING, ML = (3.0, 0.5, 1.25), 0.05
CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("interpolate", {}, lambda mask, label: interpolate(mask, 1, SPACING, label)),
    ("fill-holes", {}, correct.fill_holes),
    ("keep-largest", {}, correct.keep_largest),
    ("remove-islands", {"below": 0.2}, lambda mask, label: correct.remove_islands(mask, 0.2, ML, label)),
    ("smooth", {"radius": 1.5}, lambda mask, label: correct.smooth(mask, 1.5, SPACING, label)),
    ("grow", {"distance": 1.5}, lambda mask, label: correct.grow(mask, 1.5, SPACING, label)),
    ("grow", {"distance": -0.6}, lambda mask, label: correct.grow(mask, -0.6, SPACING, label)),
    ("swap", {"one": 2, "other": 3}, lambda mask, label: correct.swap(mask, 2, 3)),
    ("merge", {"others": (2, 3), "into": 1}, lambda mask, label: correct.merge(mask, (2, 3), 1)),
]


@pytest.fixture
def mask() -> np.ndarray:
    """Three labels, here and there, with a slice between that nobody drew, and holes."""
    labels = np.random.default_rng(0).choice(4, (5, 12, 8), p=(0.5, 0.3, 0.1, 0.1)).astype(np.uint8)
    labels[:, :4, :4], labels[:, :4, 4:], labels[:, 2] = 1, 2, 0
    labels[1:4, 7:10, 3:6], labels[1:4, 4:7, :3] = 1, 2
    labels[2, 8, 4] = labels[2, 5, 1] = 0
    return labels


def test_all_are_there_by_name() -> None:
    assert list(EDITS) == list(dict.fromkeys(name for name, _, _ in CASES))
    for name, kind in EDITS.items():
        assert issubclass(kind, Edit)
        assert kind.name() == name
        assert (kind.__doc__ or "").splitlines()[0].endswith(".")
        assert all(field.description for field in kind.model_fields.values())
    assert [name for name, kind in EDITS.items() if kind.whole] == ["interpolate"]


@pytest.mark.parametrize(("name", "how", "expected"), CASES)
def test_each_is_its_function(mask: np.ndarray, name: str, how: dict[str, Any], expected: Any) -> None:
    before = mask.copy()
    edit = EDITS[name].model_validate(how)
    outcomes = [edit(mask, On(SPACING, ML, label, axis=1)) for label in (1, None)]
    for label, found in zip((1, None), outcomes, strict=True):
        np.testing.assert_array_equal(found, expected(mask, label))
        assert not np.array_equal(found, before)
    assert np.array_equal(*outcomes) == (name in ("swap", "merge")), "whether the chosen label matters"
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("remove-islands", {"below": 0}),
        ("smooth", {"radius": 0}),
        ("grow", {"distance": 101}),
        ("swap", {"one": 0}),
        ("merge", {"others": ()}),
        ("merge", {"into": 0}),
        ("fill-holes", {"radius": 1}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: str, how: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EDITS[kind].model_validate(how)


def test_slices_and_their_spacing(mask: np.ndarray) -> None:
    on = On(SPACING[1:], ML, 1)
    np.testing.assert_array_equal(Grow(distance=0.6)(mask[2], on), correct.grow(mask[2], 0.6, SPACING[1:], 1))
    assert not np.array_equal(Grow(distance=0.6)(mask[2], on), Grow(distance=0.6)(mask[2], On((0.5, 0.5), ML, 1)))
    for edit in (FillHoles(), KeepLargest(), Swap(), Merge()):
        assert edit(mask[2], on).shape == mask[2].shape
    with pytest.raises(ValueError, match="in a volume"):
        Interpolate()(mask[2], on)
