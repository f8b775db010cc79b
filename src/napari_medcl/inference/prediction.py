"""What a model says of a scan, filled as its maps come in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr

from napari_medcl.data.cache import blank
from napari_medcl.data.conform import restored
from napari_medcl.data.volume import Labels, Volume
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from napari_medcl.data.plan import Plan

EIGHT_BITS = 1 / 255
"""What 1 stands for in probabilities of 8 bits."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of a scan, on the scan's grid.

    Attributes:
        labels: (Z, Y, X), the most probable class of every voxel, with the values and names of the masks
            that the model was trained on.
        probabilities: (K, Z, Y, X) float32, one channel a class in ascending order of label values; they
            sum to 1. In 8 bits where that was asked for: uint8, in steps of `EIGHT_BITS`.
        uncertainty: (1, Z, Y, X) float32, from 0 (sure) to 1 (every class equally probable):
            H = −Σ p log p / log K.
    """

    labels: Labels
    probabilities: Volume | None = None
    uncertainty: Volume | None = None


def on_scan(
    plan: Plan,
    classes: Mapping[int, str],
    volume: Volume,
    bands: Iterable[NDArray[np.float32]],
    *,
    probabilities: bool,
    eight_bits: bool,
    uncertainty: bool,
    scratch: Path | None,
) -> Prediction:
    """Fills what is asked for, on the scan's grid; nothing else is held at its size.

    Args:
        plan: How the scan was brought to the network's grid.
        classes: Names by the values of the masks.
        volume: The scan.
        bands: Class probabilities (K, z', Y', X') on the network's grid that follow each other, slices first.
        probabilities: Whether to keep them.
        eight_bits: Whether to keep them in 8 bits.
        uncertainty: Whether to give the entropy.
        scratch: A folder whose disk holds the results for memory.

    Raises:
        UserError: That disk has no room for them.
    """
    names = dict(sorted(classes.items()))
    labels = _blank(volume.shape, np.min_scalar_type(max(names)), scratch)
    kind = np.uint8 if eight_bits else np.float32
    every = _blank((len(names), *volume.shape), kind, scratch) if probabilities else None
    entropy = _blank((1, *volume.shape), np.float32, scratch) if uncertainty else None
    values = np.array([*names], labels.dtype)
    for begin, found in restored(plan, volume, bands):
        here = slice(begin, begin + found.shape[1])
        np.moveaxis(labels, plan.slice_axis, 0)[here] = values[found.argmax(0)]
        if entropy is not None:
            share = entr(found).sum(0) / math.log(max(len(names), 2))
            np.moveaxis(entropy, plan.slice_axis + 1, 1)[0, here] = np.clip(share, 0, 1)
        if every is not None:
            some = np.rint(found / EIGHT_BITS) if eight_bits else found
            np.moveaxis(every, plan.slice_axis + 1, 1)[:, here] = some
    return Prediction(
        labels=Labels(labels, volume.spacing, volume.origin, volume.source, names),
        probabilities=None if every is None else beside(volume, every),
        uncertainty=None if entropy is None else beside(volume, entropy),
    )


def beside(volume: Volume, array: NDArray[Any]) -> Volume:
    """Maps (K, Z, Y, X) that lie where a scan lies."""
    return Volume(array, volume.spacing, volume.origin, volume.source)


def _blank(shape: tuple[int, ...], kind: DTypeLike, scratch: Path | None) -> NDArray[Any]:
    """An array to be filled, in memory or on the disk."""
    if scratch is None:
        return np.zeros(shape, kind)
    try:
        return blank(shape, kind, scratch)
    except OSError as error:
        raise UserError(
            f"{scratch} cannot hold the result ({error.strerror}). Make room there, or choose another folder."
        ) from error
