"""From a data folder to what a run learns from: which patients, which classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.cases import find_cases
from napari_medcl.data.dataset import read_json, some
from napari_medcl.data.scans import kept_volume
from napari_medcl.data.splits import Split, read_split, split_by_group
from napari_medcl.data.volume import IGNORE, Labels
from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.training.config import FinetuneConfig, PretrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_medcl.data.cases import Case, Cases
    from napari_medcl.data.volume import Volume
    from napari_medcl.training.run import Run


_SIDES = ("train", "val", "test", "unlabelled")
_SPLIT, _DATA = "split.json", "data.json"


@dataclass(frozen=True)
class Sides:
    """Who stands where: patients of one side are on no other."""

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    test: tuple[Case, ...]
    unlabelled: tuple[Case, ...]

    def to_json(self) -> dict[str, list[str]]:
        """The case names, as they stand in `split.json`."""
        return {side: [case.id for case in getattr(self, side)] for side in _SIDES}


def read_cases(run: Run, config: PretrainConfig | FinetuneConfig) -> Cases:
    """The cases of the configured folder; who is whose patient counts only until the sides are chosen.

    Raises:
        UserError: There is no folder, or no scan in it.
    """
    groups = None if (run.folder / _SPLIT).exists() else config.groups
    return find_cases(config.folder, groups=groups)


def divide(config: PretrainConfig | FinetuneConfig, cases: Cases) -> Sides:
    """Divides the labelled cases by patient; the unlabelled ones of validation and test patients are left out.

    Raises:
        UserError: The split file does not fit.
    """
    split = _split(config, cases)
    labelled, named = cases.labelled, {*split.train, *split.val, *split.test}

    def side(ids: Sequence[str]) -> tuple[Case, ...]:
        return tuple(case for case in labelled if case.id in set(ids))

    train, val, test = side(split.train), side(split.val), side(split.test)
    kept_back = {case.group for case in cases if case.id in {*split.val, *split.test}}
    others = tuple(
        c for c in cases.unlabelled if c.group not in kept_back and (c.id in split.train or c.id not in named)
    )
    return Sides(train=train, val=val, test=test, unlabelled=others)


def choose(config: PretrainConfig | FinetuneConfig, cases: Cases) -> tuple[tuple[Case, ...], Sides]:
    """The cases that a new run learns from, and who stands where; by names alone.

    Raises:
        UserError: There are none, or fewer than asked for, or the split file does not fit.
    """
    sides = divide(config, cases)
    if isinstance(config, PretrainConfig):
        return _unlabelled_too(cases, sides), sides
    cases.require_labelled()
    if not sides.train:
        raise UserError(
            f"{cases.folder} has no masks to learn from on the training side. Put masks into labelsTr (nnU-Net), "
            "labels or masks, named like their scans, or set aside fewer patients for validation and test."
        )
    if config.labelled is None:
        return sides.train, sides
    first = first_patients if config.labelled_by == "patient" else first_labelled
    return first(sides.train, config.labelled, config.seed), sides


def _unlabelled_too(cases: Cases, sides: Sides) -> tuple[Case, ...]:
    if chosen := (*sides.train, *sides.unlabelled):
        return chosen
    raise UserError(f"{cases.folder} has no scans to pre-train on: all of them are set aside for validation or test.")


def write_sides(run: Run, learned: Sequence[Case], sides: Sides) -> None:
    """Writes `split.json`, which holds from then on, whatever comes into the data folder."""
    write_json(run.folder / _SPLIT, {"learned": [case.id for case in learned], **sides.to_json()})


def read_sides(run: Run, cases: Cases) -> tuple[tuple[Case, ...], Sides] | None:
    """The cases that the run learns from, and who stands where; None where that was not decided yet.

    Raises:
        UserError: `split.json` cannot be read, or cases that it names are not in the data folder any more.
    """
    path = run.folder / _SPLIT
    if not path.exists():
        return None
    named = read_json(path)
    known = {case.id: case for case in cases}
    lists = {side: [str(case) for case in named.get(side, ())] for side in ("learned", *_SIDES)}
    needed = dict.fromkeys([*lists["learned"], *lists["val"]])
    if missing := [case for case in needed if case not in known]:
        raise UserError(
            f"{cases.folder} does not hold {some(missing)} any more, which the run {run.name} learns from. Put them "
            "back, or start a new run."
        )
    learned, *sides = (tuple(known[case] for case in lists[key] if case in known) for key in ("learned", *_SIDES))
    return learned, Sides(*sides)


def keep(
    run: Run, learned: Sequence[Case], sides: Sides, digests: Mapping[str, str], provenance: Mapping[str, Any]
) -> list[str]:
    """Writes down what the run learns from, and what makes it.

    Returns:
        What to tell the user about data that have changed since the run began.
    """
    if not (run.folder / _SPLIT).exists():
        write_sides(run, learned, sides)
    write_json(run.folder / "environment.json", provenance)
    return changed(run, digests)


def changed(run: Run, digests: Mapping[str, str]) -> list[str]:
    """What to tell the user about data that differ from those that the run began with; writes these down at first."""
    path = run.folder / _DATA
    if not path.exists():
        write_json(path, dict(digests))
        return []
    before = read_json(path)
    if not (others := sorted(case for case, digest in digests.items() if before.get(case) != digest)):
        return []
    return [f"The files of {some(others)} have changed since the run began: its numbers will not be those of before."]


def _split(config: PretrainConfig | FinetuneConfig, cases: Cases) -> Split:
    if config.split is not None:
        return read_split(config.split, cases)
    if len({case.group for case in cases.labelled}) < 2:
        return Split(train=tuple(case.id for case in cases.labelled), val=(), test=())
    return split_by_group(cases, val=config.val, test=config.test, seed=config.seed)


def first_labelled(cases: Sequence[Case], count: int, seed: int) -> tuple[Case, ...]:
    """So many cases of as many patients as there are, in an order that only the seed and the names decide.

    Raises:
        UserError: There are fewer.
    """
    if count > len(cases):
        raise UserError(f"{count} labelled cases were asked for; the training side has {len(cases)}.")
    taken: Counter[str] = Counter()
    order = []
    for case in sorted(cases, key=lambda case: case.id):
        order.append((taken[case.group], _place(case, seed), case))
        taken[case.group] += 1
    return tuple(case for _, _, case in sorted(order, key=lambda entry: entry[:2])[:count])


def first_patients(cases: Sequence[Case], count: int, seed: int) -> tuple[Case, ...]:
    """The cases of so many patients, in the order of `first_labelled`; more patients hold those of fewer.

    Raises:
        UserError: There are fewer.
    """
    order = sorted({_place(case, seed): case.group for case in cases}.items())
    if count > len(order):
        raise UserError(f"{count} labelled patients were asked for; the training side has {len(order)}.")
    taken = {patient for _, patient in order[:count]}
    return tuple(case for case in cases if case.group in taken)


def _place(case: Case, seed: int) -> str:
    """Where a case's patient stands in a random order."""
    return hashlib.sha256(f"{seed}|{case.group}".encode()).hexdigest()


def read_volumes(cases: Sequence[Case], channel: int | None) -> Iterator[Volume]:
    """The scans of the cases, one at a time: all together may not fit into memory.

    Raises:
        UserError: One cannot be read.
    """
    return (kept_volume(case, channel) for case in cases)


def find_classes(names: dict[int, str], truths: Sequence[Labels]) -> tuple[dict[int, str], list[str]]:
    """The classes that can be learned from these masks, and what to tell the user about the others.

    Returns:
        Mask values with their names, background first; warnings.

    Raises:
        UserError: No mask holds anything but background.
    """
    found = {int(value) for truth in truths for value in np.unique(truth.array)} - {0, IGNORE}
    if not found:
        raise UserError("No training mask labels anything but background. Label something in at least one of them.")
    classes = {0: names.get(0, "background")} | {value: names.get(value, f"class {value}") for value in sorted(found)}
    absent = [f"{name} ({value})" for value, name in names.items() if value not in classes]
    warnings = [f"No training mask contains {', '.join(absent)}: the model cannot learn it."] if absent else []
    return classes, warnings
