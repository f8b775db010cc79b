"""Items on the network's grid, made from the cases of a run."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medcl.data.loader import Item
from napari_medcl.data.scans import kept_image
from napari_medcl.data.superpixels import cached_superpixels
from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import Stopped
from napari_medcl.training.events import Event, Preparing
from napari_medcl.training.processes import ALONE, Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from napari_medcl.data.case import Case
    from napari_medcl.data.plan import Plan
    from napari_medcl.data.superpixels import SuperpixelSettings
    from napari_medcl.training.config import FinetuneConfig

_SAY_EVERY_S = 1.0
_AT_ONCE = 4
"""Scans that are read and divided side by side: as many are in memory whole."""
_ENOUGH = 5
"""Slices that may choose the model where no patient does. Seven of a scan chose as well as the last model or better;
two took one of a fifth of the steps, far worse on the rest of the scan."""


def prepared(
    what: str,
    cases: Sequence[Case],
    make: Callable[[Case], Item],
    stop: Callable[[], bool],
    processes: Processes = ALONE,
) -> Generator[Event, None, tuple[list[Item], dict[str, str]]]:
    """Makes the items, some side by side, and a hash of each case's files, and says how far it is.

    Every process needs all items. Those of a host first make a share each, and find in the cache what took the others
    long.

    Raises:
        UserError: A process could not make one.
        Stopped: `stop` said so.
    """
    items: dict[str, Item] = {}
    digests: dict[str, str] = {}
    said = time.monotonic()
    own = processes.own(cases)
    for share in (own, [case for case in cases if case not in own]):
        with processes.agreeing(), ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
            coming = pool.map(make, share)
            try:
                for case in share:
                    if stop():
                        raise Stopped
                    if time.monotonic() - said > _SAY_EVERY_S:
                        said = time.monotonic()
                        done = f"{what} {len(items) + 1} of {len(cases)}"
                        yield Preparing(progress=len(items) / len(cases), message=done)
                    items[case.id] = next(coming)
                    if share is own:
                        digests[case.id] = case.digest()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    found = {name: digest for part in processes.gather(digests) for name, digest in part.items()}
    return [items[case.id] for case in cases], {case.id: found[case.id] for case in cases}


def labelled_item(case: Case, plan: Plan, classes: dict[int, str], config: FinetuneConfig) -> Item:
    """A case with its mask on the network's grid; slices that nobody annotated are IGNORE.

    Raises:
        UserError: Scan or mask cannot be read, or do not fit each other.
    """
    truth = case.truth()
    array = truth.array
    if config.annotated == "nonempty":
        axes = tuple(axis for axis in range(3) if axis != plan.slice_axis)
        empty = ~array.any(axis=axes, keepdims=True)
        array = np.where(empty, IGNORE, array)
    indices = to_indices(array, classes)
    image, _ = kept_image(case, plan, config.channel)
    return Item(case.id, image, plan.conform_labels(replace(truth, array=indices)).astype(np.uint8))


def unlabelled_item(
    case: Case, plan: Plan, regions: SuperpixelSettings | None, channel: int | None, stop: Callable[[], bool]
) -> Item:
    """A case on the network's grid with its superpixels, which are computed once and cached.

    Raises:
        UserError: The scan cannot be read.
        Stopped: `stop` said so.
    """
    image, known_as = kept_image(case, plan, channel)
    spacing = tuple(size or 1.0 for size in plan.spacing)
    found = None if regions is None else cached_superpixels(image, regions, spacing, known_as=known_as, stop=stop)
    return Item(case.id, image, superpixels=found)


def to_indices(array: NDArray[np.integer], classes: dict[int, str]) -> NDArray[np.uint8]:
    """Mask values as class indices; values that are no class, and IGNORE, become IGNORE."""
    table: NDArray[np.uint8] = np.full(max(IGNORE, int(array.max(initial=0))) + 1, IGNORE, np.uint8)
    for index, value in enumerate(sorted(classes)):
        table[value] = index
    table[IGNORE] = IGNORE
    return np.take(table, array)


def judged_by_slices(items: Sequence[Item], fraction: float) -> tuple[list[Item], list[Item], bool, str]:
    """Without validation patients, some of the annotated slices measure the model.

    Returns:
        What to learn from, what to measure on, whether it is enough to choose the model by, and what to tell the user.
    """
    pairs = [hold_out_slices(item, fraction) for item in items]
    learned, judged = [train for train, _ in pairs], [val for _, val in pairs if len(val.annotated)]
    slices = sum(len(item.annotated) for item in judged)
    said = "annotated slices of the training scans {} it, and their Dice is too optimistic"
    if not slices:
        note = "No patient and no slice validates: the last model is the result, and nothing measures it"
    elif slices < _ENOUGH:
        note = f"No patient validates: the last model is the result. {slices} {said.format('measure')}"
    else:
        note = f"No patient validates the model: {slices} {said.format('choose')}"
    return learned, judged, slices >= _ENOUGH, note


def hold_out_slices(item: Item, fraction: float) -> tuple[Item, Item]:
    """Divides one scan's annotated slices: every k-th one validates, the others train.

    For when there is one patient only; what it says of other patients is little. One slice alone trains.
    """
    assert item.labels is not None
    every, last = max(2, round(1 / max(fraction, 0.1))), len(item.annotated) - 1
    held = item.annotated[min(every // 2, last) :: every] if last else item.annotated[:0]
    train, val = item.labels.copy(), np.full_like(item.labels, IGNORE)
    val[held] = item.labels[held]
    train[held] = IGNORE
    return Item(item.name, item.image, train), Item(item.name, item.image, val)
