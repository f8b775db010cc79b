"""Runs beside each other: what they were asked for, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medcl.errors import UserError
from napari_medcl.files import write_rows
from napari_medcl.methods.choices import METHODS
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.metrics import DICE, Metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medcl.training.events import Stage
    from napari_medcl.training.run import Run

COUNTS = ("steps made", "seconds", "best step")


@dataclass(frozen=True)
class Record:
    """What a run was asked for, and what came of it.

    Attributes:
        run: The run.
        settings: Every setting by name, such as `steps` or `method.temperature`; `method` is the method's name.
        data: A digest of the files that it learned from and was measured on; None before they were read.
        judged: The validation cases; None before they were chosen.
        numbers: `steps made` and the `seconds` for them, the best validation `dice` with `dice/CLASS` and the `best
            step`, and the last `loss/TERM`.
    """

    run: Run
    settings: Mapping[str, Any]
    data: str | None
    judged: tuple[str, ...] | None
    numbers: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """Everything, as the columns of a table."""
        asked = {name: shown(value) for name, value in self.settings.items() if value is not None}
        about = {"run": self.run.name, "stage": self.run.stage, "state": self.run.state}
        return {**about, **asked, "data": self.data, **self.numbers}


def record(run: Run) -> Record:
    """Reads a run folder.

    Raises:
        UserError: It is none.
    """
    metrics = Metrics(run.events()[0])
    made, seconds, best_step = COUNTS
    numbers = {made: metrics.step, seconds: metrics.seconds}
    if best := metrics.best:
        numbers |= {best_step: best.pop("step"), **best}
    written, split = _json(run.folder / "environment.json"), _json(run.folder / "split.json")
    judged = split.get("val")
    return Record(
        run,
        settings(run),
        written.get("data"),
        None if judged is None else tuple(sorted(judged)),
        {**numbers, **metrics.losses},
    )


def settings(run: Run) -> dict[str, Any]:
    """Every setting of a run by name; what is not in its `config.json` is at its default.

    Raises:
        UserError: It is no run folder.
    """
    given = flat({name: value for name, value in run.config.items() if name != "stage"})
    return {**_defaults(run.stage, given.get("method")), **given}


def unusual(run: Run) -> dict[str, Any]:
    """The settings of a run that are not at their defaults.

    Raises:
        UserError: It is no run folder.
    """
    asked = settings(run)
    usual = _defaults(run.stage, asked["method"])
    first = _defaults(run.stage, None)["method"]
    return {name: value for name, value in asked.items() if {**usual, "method": first}.get(name) != value}


def differing(records: Sequence[Record]) -> list[str]:
    """The settings that are not the same in all of these."""
    names = dict.fromkeys(name for one in records for name in one.settings)
    return [name for name in names if any(one.settings.get(name) != records[0].settings.get(name) for one in records)]


def ordered(records: Sequence[Record], metric: str) -> list[Record]:
    """The records by a number, the best first; those that lack it last.

    Raises:
        UserError: None of them has it.
    """
    known = dict.fromkeys(name for one in records for name in one.numbers)
    if metric not in known:
        raise UserError(f"None of the runs has the number “{metric}”. They have {', '.join(known)}.")
    sign = -1 if metric.partition("/")[0] == DICE else 1
    return sorted(records, key=lambda one: sign * one.numbers.get(metric, sign * float("inf")))


def remarks(records: Sequence[Record]) -> list[str]:
    """Whether the numbers can be held against each other."""
    data = {one.data for one in records} - {None}
    judged = {one.judged for one in records if DICE in one.numbers}
    told = ["They read the same files." if len(data) == 1 else "They did not read the same files."] if data else []
    if len(judged) > 1:
        told.append("They were measured on different validation cases: their Dice cannot be compared.")
    return told


def write_records(records: Sequence[Record], path: Path) -> None:
    """Writes all settings and numbers as CSV, one line a run.

    Raises:
        UserError: The file cannot be written; one that was there is as it was.
    """
    write_rows(path, [one.row() for one in records])


def shown(value: Any) -> str:
    """A setting as it stands in `config.json`; a dash for one that is left to the data and the device."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _defaults(stage: Stage, method: str | None) -> dict[str, Any]:
    """Every setting that has a default, with those of a method or of the default one."""
    kind: type[PretrainConfig | FinetuneConfig] = PretrainConfig if stage == "pretrain" else FinetuneConfig
    usual = kind(folder=Path()).to_json()
    del usual["folder"]
    named = {str(one.model_fields["name"].default): one for one in METHODS}
    if method in named:
        usual["method"] = named[method](name=method).model_dump(mode="json")
    return flat(usual)


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of the method by their names; the method itself by its own."""
    method = config.get("method")
    if not isinstance(method, dict):
        return dict(config)
    own = {f"method.{name}": value for name, value in method.items() if name != "name"}
    return {**config, "method": method.get("name"), **own}


def _json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is not there, or not whole."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
