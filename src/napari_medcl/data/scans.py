"""Scans for training: decoded once, brought to the network's grid once, and then read from memory maps."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.cache import home, kept, mapped, room
from napari_medcl.data.conform import Conformed
from napari_medcl.data.geometry import Source
from napari_medcl.data.volume import Volume
from napari_medcl.files import write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medcl.data.case import Case
    from napari_medcl.data.plan import Plan

_WORTH = 2**22
"""Bytes of an array that is worth keeping; smaller ones are read sooner than found."""
_AT_A_TIME = 16
"""Slices of a scan that stays on the disk."""
_FORMAT = 1
"""Goes up whenever the same file would become other numbers."""


def kept_volume(case: Case, channel: int | None) -> Volume:
    """The scan of a case as `Case.volume` gives it, its array a memory map from the second time on.

    What can stay on the disk does, and is not kept once more.

    Raises:
        UserError: It cannot be read.
    """
    path = home() / "volumes" / f"{_known_as(case, channel)}.npy"
    about = path.with_suffix(".json")
    array = mapped(path)
    if array is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return _volume(array, json.loads(about.read_text("utf-8")), case)
    volume = case.volume(channel, lazily=True)
    if not _in_memory(volume) or volume.array.nbytes < _WORTH:
        return volume
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(about, _about(volume))
    return replace(volume, array=kept(path, lambda: np.ascontiguousarray(volume.array)))


def kept_image(case: Case, plan: Plan, channel: int | None) -> tuple[NDArray[np.float32], str]:
    """A case on the network's grid, as `Plan.conform` makes it, and what that is known as.

    Raises:
        UserError: The scan cannot be read, or has other channels than the plan.
    """
    chosen = plan.model_dump_json(include={"channels", "spacing", "slice_axis", "intensities"})
    known_as = hashlib.sha256(f"{_known_as(case, channel)} {chosen}".encode()).hexdigest()
    path = home() / "conformed" / f"{known_as}.npy"
    return kept(path, lambda: _conformed(plan, kept_volume(case, channel)), _WORTH), known_as


def _conformed(plan: Plan, volume: Volume) -> NDArray[np.float32]:
    """`Plan.conform`; a scan that stays on the disk becomes an array on the disk, as neither may fit into memory."""
    if _in_memory(volume):
        return plan.conform(volume)
    image = Conformed(plan, volume)
    array = room(image.shape, np.float32)
    for begin in range(0, image.shape[1], _AT_A_TIME):
        some = slice(begin, begin + _AT_A_TIME)
        array[:, some] = image[:, some]
    return array


def _in_memory(volume: Volume) -> bool:
    return isinstance(volume.array, np.ndarray)


def _known_as(case: Case, channel: int | None) -> str:
    return f"{replace(case, labels=None).digest()}-{'all' if channel is None else channel}-{_FORMAT}"


def _about(volume: Volume) -> dict[str, Any]:
    source = None if volume.source is None else volume.source.to_dict()
    return {"spacing": volume.spacing, "origin": volume.origin, "rgb": volume.rgb, "source": source}


def _volume(array: NDArray[Any], about: dict[str, Any], case: Case) -> Volume:
    """What was kept, with the file that it is of now: others may have held the same."""
    source = None if about["source"] is None else replace(Source.from_dict(about["source"]), path=case.images[0])
    spacing, origin = ((z, y, x) for z, y, x in (about["spacing"], about["origin"]))
    return Volume(array, spacing, origin, source, bool(about["rgb"]))
