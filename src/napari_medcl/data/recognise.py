"""Telling masks from images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.names import named_like_a_mask
from napari_medcl.data.volume import voxels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SAMPLE = 4_000_000
_FEW = 8
_RUNS = 0.5
_RUNS_IN_A_MASK = 0.2


def looks_like_labels(array: NDArray[Any], path: Path | None = None) -> bool:
    """Whether an array (Z, Y, X) is rather a mask than an image.

    A mask holds whole numbers from 0 up, and either at most 8 different ones or, in what is not
    background, mostly equal neighbours (scans have 0.05 to 0.2 of them, masks 0.5 to 0.99). A file named
    like a mask, or in a folder of masks, needs fewer of them.

    Args:
        array: The values.
        path: Where they come from.
    """
    step = max(1, array.size // _SAMPLE)
    sample = voxels(array[::step] if array.shape[0] > 1 else array[:, ::step])
    return _is_whole(sample) and _is_patchy(sample, path) and (step == 1 or _is_whole(voxels(array)))


def _is_whole(array: NDArray[Any]) -> bool:
    """Whether all values are 0, 1, 2, ..."""
    return bool(array.min() >= 0) and (array.dtype.kind != "f" or bool((array == np.rint(array)).all()))


def _is_patchy(array: NDArray[Any], path: Path | None) -> bool:
    named = path is not None and named_like_a_mask(path)
    distinct = np.unique(array).size
    if distinct <= _FEW:
        return named or distinct > 1
    return _runs(array) >= (_RUNS_IN_A_MASK if named else _RUNS)


def _runs(array: NDArray[Any]) -> float:
    """The part of neighbours in a plane, not both background, that are equal."""
    equal = pairs = 0
    for left, right in ((array[:, 1:], array[:, :-1]), (array[:, :, 1:], array[:, :, :-1])):
        body = (left != 0) | (right != 0)
        pairs += int(body.sum())
        equal += int((body & (left == right)).sum())
    return equal / max(pairs, 1)
