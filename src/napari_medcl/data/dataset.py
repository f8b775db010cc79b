"""What people write beside their scans: dataset.json, and files or rules that tell the patient."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 3


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        UserError: It is not there or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the name and the folder.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}. Correct it or leave it out.") from error


def some(ids: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more


def class_names(folder: Path, pictures: bool) -> dict[int, str]:
    """Names of the foreground classes in a folder's dataset.json; none if it does not tell them.

    Both ways are understood: {"1": "liver"} (Decathlon) and {"liver": 1} (nnU-Net).

    Args:
        folder: The data folder.
        pictures: Whether the masks are pictures: there 255 is white, which is read as label 1.

    Raises:
        UserError: dataset.json is damaged, or gives a meaning to a label that it cannot have here.
    """
    path = folder / "dataset.json"
    content = read_json(path) if path.is_file() else {}
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict):
        return {}
    names = {}
    for key, value in labels.items():
        number, name = (key, value) if str(key).isdigit() else (value, key)
        if str(name).lower() == "ignore":
            raise UserError(f'{path} has a class "ignore", which MedCL does not know. Write {IGNORE} there instead.')
        if isinstance(number, list):
            raise UserError(f'{path} makes "{name}" of several labels, which MedCL does not do. Name single labels.')
        names[int(number)] = str(name)
    names.pop(0, None)
    if list(names) == [IGNORE]:
        if not pictures:
            raise UserError(f"{path} names the label {IGNORE}, which means: not annotated. Use another number.")
        return {1: names[IGNORE]}
    names.pop(IGNORE, None)
    return dict(sorted(names.items()))


def dataset_name(folder: Path) -> str | None:
    """The name in a folder's dataset.json."""
    path = folder / "dataset.json"
    content = read_json(path) if path.is_file() else {}
    name = content.get("name") if isinstance(content, dict) else None
    return str(name) if name else None


def groups_of(ids: Sequence[str], groups: str | None) -> dict[str, str]:
    """The group (patient) of every case.

    Args:
        ids: Names of the cases.
        groups: A regular expression whose one group is the patient, "(patient[0-9]+)"; a .csv file with
            case and group in two columns; a .json file {case: group} or {group: [cases]}; or None: every
            case is a group of its own.

    Raises:
        UserError: The rule cannot be read or leaves cases without a group.
    """
    if groups is None:
        return {case: case for case in ids}
    path = Path(groups)
    if path.suffix.lower() in (".csv", ".json"):
        found = _groups_in_csv(path) if path.suffix.lower() == ".csv" else _groups_in_json(path)
    else:
        found = _groups_by_rule(ids, groups)
    missing = [case for case in ids if case not in found]
    if missing:
        raise UserError(f"The groups {groups!r} do not cover {some(missing)}. Add them, or change the rule.")
    return {case: found[case] for case in ids}


def _groups_by_rule(ids: Sequence[str], rule: str) -> dict[str, str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(f"The group rule {rule!r} is no regular expression: {error}.") from error
    if pattern.groups != 1:
        raise UserError(f'The group rule {rule!r} needs one pair of brackets round the patient: "(patient[0-9]+)".')
    matches = {case: pattern.search(case) for case in ids}
    return {case: str(match[1]) for case, match in matches.items() if match and match[1] is not None}


def _groups_in_json(path: Path) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold {{case: group}} or {{group: [cases]}}.")
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, list):
            found |= {str(case): str(key) for case in value}
        else:
            found[key] = str(value)
    return found


def _groups_in_csv(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the name and the folder.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}.") from error
    short = [number for number, row in enumerate(rows, 1) if len(row) < 2]
    if short:
        raise UserError(f"{path} needs two columns, case and group; line {short[0]} has one.")
    return {row[0].strip(): row[1].strip() for row in rows}
