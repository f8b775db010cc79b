from __future__ import annotations

import numpy as np

from napari_medcl.inference.groups import Groups

SLICES = np.array([2, 4, 6, 8])
GROUPS = Groups(
    axis=1,
    slices=SLICES,
    views=np.array([[0, 0, 1, 2], [0, 1, 3, 2]]),
    likeness=np.array([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.8, 0.3], [0.1, 0.8, 1, 0.4], [0.2, 0.3, 0.4, 1]], np.float32),
    pooled=np.zeros((4, 3, 1, 3), np.float32),
    first=np.stack([np.zeros(4), SLICES, np.zeros(4)], axis=1).astype(float),
    cell=np.array([4.0, 1.0, 4.0]),
)


def test_slices_of_a_group() -> None:
    assert [GROUPS.members(group) for group in range(4)] == [[2, 4], [4, 6], [8], [6]]
    assert GROUPS.shared == [0, 1]
    assert GROUPS.alone == [8]


def test_what_is_alike_to_a_slice() -> None:
    assert [GROUPS.alike(number) for number in range(4)] == [[4], [2, 6], [4], []]
    assert [GROUPS.nearest(number) for number in range(4)] == [1, 0, 1, 2]


def test_which_is_at_a_slice() -> None:
    assert [GROUPS.at(index) for index in (2, 3, 8, 9)] == [0, None, 3, None]
