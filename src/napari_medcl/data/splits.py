"""Which cases train, which choose the model, and which judge it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medcl.data.dataset import dataset_name, read_json, some
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from napari_medcl.data.cases import Cases

_SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Ids of cases on three sides.

    Attributes:
        train: Seen in training; cases without a mask are here, for pre-training.
        val: Choose the best model.
        test: Judge it.

    Raises:
        UserError: A case is on two sides, or twice on one.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for case in (*self.train, *self.val, *self.test):
            if case in seen:
                raise UserError(f"The case {case} stands twice in the split. A case belongs on one side, once.")
            seen.add(case)

    def to_json(self) -> str:
        """As {"train": [...], "val": [...], "test": [...]}."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Split:
        """The split that `to_json` wrote."""
        return cls(**{side: tuple(ids) for side, ids in json.loads(text).items()})


def split_by_group(cases: Cases, val: float = 0.2, test: float = 0.2, seed: int = 0) -> Split:
    """Divides the labelled cases so that a group is never divided.

    Groups are taken in the order of sha256("seed|group"), first for the test, then for validation, until
    each has its part of the cases.
    Cases without a mask train, unless one of their group is on another side.

    Args:
        cases: The cases.
        val: Part of the labelled cases for validation, from 0 to below 1.
        test: Part for the test.
        seed: Another seed gives another split.

    Raises:
        UserError: The parts are no parts, or there are too few groups.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UserError(f"The parts for validation ({val}) and test ({test}) must be 0 or more and together below 1.")
    labelled: dict[str, list[str]] = {}
    for case in cases.labelled:
        labelled.setdefault(case.group, []).append(case.id)
    waiting = sorted(labelled, key=lambda group: hashlib.sha256(f"{seed}|{group}".encode()).digest())
    needed = 1 + (val > 0) + (test > 0)
    if labelled and len(labelled) < needed:
        raise UserError(
            f"The labelled cases are of {len(labelled)} group(s); training, validation and test need {needed}. "
            "Label more cases, or set the part for validation or test to 0."
        )
    count = len(cases.labelled)
    sides: dict[str, list[str]] = {}
    for side, part, kept in (("test", test, 1 + (val > 0)), ("val", val, 1)):
        sides[side] = []
        while (
            part > 0
            and len(waiting) > kept
            and (not sides[side] or len(sides[side]) + len(labelled[waiting[0]]) / 2 <= part * count)
        ):
            sides[side] += labelled[waiting.pop(0)]
    sides["train"] = [case for group in waiting for case in labelled[group]]
    return _with_unlabelled(cases, sides)


def read_split(path: Path | str, cases: Cases) -> Split:
    """Reads a split that someone else made.

    Understood are {"train": [...], "val": [...], "test": [...]}, a collection {"datasets": {NAME: {...}}}
    in which the data set is found by the name in dataset.json, that of the folder, or its cases, and
    nnU-Net's list of folds, of which the first is taken. Cases without a mask that the file does not name
    train, unless one of their group is on another side; other cases that it does not name are left out.

    Raises:
        UserError: The file cannot be read, names cases that are not there, or divides a group.
    """
    path = Path(path)
    content = read_json(path)
    if isinstance(content, list) and content:
        content = content[0]
    if isinstance(content, dict) and isinstance(content.get("datasets"), dict):
        content = _data_set(content["datasets"], cases, path)
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        raise UserError(f'{path} is no split: it needs lists of case names under "train", "val" and "test".')
    sides = {side: [str(case) for case in content.get(side) or ()] for side in _SIDES}
    known = {case.id for case in cases}
    missing = [case for ids in sides.values() for case in ids if case not in known]
    if missing:
        raise UserError(f"{path} names cases that are not in {cases.folder}: {some(missing)}.")
    split = _with_unlabelled(cases, sides)
    _check_groups(split, cases, path)
    return split


def _data_set(collection: dict[str, Any], cases: Cases, path: Path) -> Any:
    for name in (dataset_name(cases.folder), cases.folder.name):
        if name in collection:
            return collection[name]
    known = {case.id for case in cases}
    fitting = [
        part
        for part in collection.values()
        if isinstance(part, dict) and (ids := _named(part)) and known.issuperset(ids)
    ]
    if len(fitting) != 1:
        raise UserError(
            f"None of the data sets in {path} ({some(sorted(collection))}) is that of {cases.folder}. "
            'Write its name into dataset.json as "name", or give a file with this split only.'
        )
    return fitting[0]


def _named(part: dict[str, Any]) -> set[str]:
    return {str(case) for side in _SIDES for case in part.get(side) or ()}


def _with_unlabelled(cases: Cases, sides: dict[str, list[str]]) -> Split:
    groups = {case.id: case.group for case in cases}
    taken = {case for ids in sides.values() for case in ids}
    held_out = {groups[case] for side in ("val", "test") for case in sides[side]}
    more = [case.id for case in cases.unlabelled if case.id not in taken and case.group not in held_out]
    return Split(tuple(sides["train"] + more), tuple(sides["val"]), tuple(sides["test"]))


def _check_groups(split: Split, cases: Cases, path: Path) -> None:
    groups = {case.id: case.group for case in cases}
    side_of: dict[str, str] = {}
    for side, ids in asdict(split).items():
        for case in ids:
            if side_of.setdefault(groups[case], side) != side:
                raise UserError(
                    f"{path} puts the group {groups[case]} into {side_of[groups[case]]} and {side}. "
                    "Cases of one group (patient) belong on one side."
                )
