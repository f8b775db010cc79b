"""What all runs of a benchmark share, decided once for its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medcl.data.cases import Cases, Split, find_cases, read_split, split_by_group
from napari_medcl.data.dataset import read_json, some
from napari_medcl.data.plan import make_plan
from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.training.dataset import read_volumes
from napari_medcl.training.run import writing

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.benchmark.config import BenchmarkConfig

_SPLIT, _ASKED, _DECIDED = "split.json", "benchmark.json", "decided.json"
_LISTS, _NAMED = ("labelled", "methods", "seeds"), ("starts", "additions")
"""What may be added to a benchmark that stands in its folder."""


@dataclass(frozen=True)
class Setting:
    """Who is on which side, and the network's dimensions, crops and depth for all runs.

    Attributes:
        config: The benchmark with what it left open decided from all training scans: otherwise every run would
            decide it from its own few.
        cases: All cases.
        split: Their sides.
        most: So many patients (or cases) there are to learn from.
        decided: What was left open: dimensions, crops, depth.
        asked: The settings as they were asked for, with those of earlier calls.
    """

    config: BenchmarkConfig
    cases: Cases
    split: Split
    most: int
    decided: dict[str, Any]
    asked: dict[str, Any]

    @classmethod
    def of(cls, config: BenchmarkConfig, folder: Path) -> Setting:
        """Decides it, or reads what was decided when the folder was new.

        Raises:
            UserError: The data do not make a benchmark, or the folder holds one with other settings.
        """
        cases, asked = find_cases(config.folder, groups=config.groups), config.to_json()
        if (folder / _ASKED).exists():
            asked = _joined(read_json(folder / _ASKED), asked, folder)
            split, decided = read_split(folder / _SPLIT, cases), read_json(folder / _DECIDED)
            most = _checked(cases, split, config)
        else:
            given = None if config.split is None else read_split(config.split, cases)
            split = given or split_by_group(cases, config.val, config.test)
            most = _checked(cases, split, config)
            scans = read_volumes([case for case in cases if case.id in split.train], config.channel)
            network, depth = make_plan(scans, config.dims, config.patch, config.depth)
            decided = {"dims": f"{network.spatial_dims}d", "patch": network.patch, "depth": depth}
        complete = config.model_copy(update={**decided, "patch": tuple(decided["patch"])})
        return cls(complete, cases, split, most, decided, asked)

    @property
    def tested(self) -> set[str]:
        """The test patients (or cases)."""
        groups = {case.id: case.group for case in self.cases}
        return {groups[case] if self.config.count == "patients" else case for case in self.split.test}

    def keep(self, folder: Path) -> None:
        """Writes it down.

        Raises:
            UserError: The folder cannot be written.
        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / _SPLIT, {side: getattr(self.split, side) for side in ("train", "val", "test")})
            write_json(folder / _DECIDED, self.decided)
            write_json(folder / _ASKED, self.asked)


def _joined(before: dict[str, Any], asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings with those of before; only what can be added to may differ."""
    other = [name for name in asked if name not in (*_LISTS, *_NAMED) and before.get(name) != asked[name]]
    for kind in _NAMED:
        other += [f"{kind}.{name}" for name, own in asked[kind].items() if before[kind].get(name, own) != own]
    if other:
        raise UserError(
            f"{folder} holds a benchmark with other settings: {', '.join(other)}. Put them back, or choose another "
            "folder for this one."
        )
    lists = {name: list(dict.fromkeys([*before[name], *asked[name]])) for name in _LISTS}
    return {**before, **lists, **{kind: {**before[kind], **asked[kind]} for kind in _NAMED}}


def _checked(cases: Cases, split: Split, config: BenchmarkConfig) -> int:
    """How many patients (or cases) there are to learn from."""
    bare = {case.id for case in cases.unlabelled}
    sides = {side: [case for case in getattr(split, side) if case not in bare] for side in ("train", "val", "test")}
    if missing := [side for side, labelled in sides.items() if not labelled]:
        raise UserError(
            f"A benchmark needs labelled cases on the sides train, val and test; {config.folder} has none for "
            f"{', '.join(missing)}. Label more cases, or give another split."
        )
    if unknown := [case for case in split.test if case in bare]:
        raise UserError(f"The test side names {some(unknown)}, which have no mask. Add their masks, or leave them out.")
    groups = {case.id: case.group for case in cases}
    return len({groups[case] for case in sides["train"]} if config.count == "patients" else sides["train"])
