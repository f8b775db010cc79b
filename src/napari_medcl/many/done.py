"""What has been done before and need not be done again: a record for every scan, beside the results."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_medcl.errors import UserError
from napari_medcl.files import digest, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medcl.data.case import Case

_FOLDER = ".medcl-done"

State = Literal["made", "done before", "changed since", "failed"]


@dataclass(frozen=True)
class Result:
    """What became of a scan.

    Attributes:
        name: The case.
        state: "made" now, "done before" by the same from the same scan, "changed since" it was done so (somebody
            corrected it, and it is left as it is), or "failed".
        seconds: How long it took.
        files: What was written, that of the labels first.
        message: Why it failed.
    """

    name: str
    state: State
    seconds: float = 0.0
    files: tuple[Path, ...] = ()
    message: str = ""


class Done:
    """The records of a folder.

    Args:
        out: The folder with the results.
        made_by: What the results are made by, see `Work.made_by`.
    """

    def __init__(self, out: Path, made_by: dict[str, Any]) -> None:
        self._out = out
        self._made_by = json.loads(json.dumps(made_by))

    def note(self, case: Case, files: Sequence[Path]) -> None:
        """Notes that a case is done; called when all of its files are on the disk."""
        record = {
            "scan": _scan(case),
            "made_by": self._made_by,
            "files": {path.name: digest(path) for path in files},
        }
        path = self._path(case)
        try:
            path.parent.mkdir(exist_ok=True)
            write_json(path, record)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error}. Free some space or mend the folder's rights."
            ) from error

    def look(self, case: Case) -> Result | None:
        """What was done for a case; None where it is still to do.

        It is to do where nothing was noted, the scan, the model or a setting is another one, or a file is missing.
        """
        try:
            record = json.loads(self._path(case).read_text("utf-8"))
            files = {self._out / name: value for name, value in record["files"].items() if self._here(name)}
            if (record["scan"], record["made_by"]) != (_scan(case), self._made_by) or not files:
                return None
            same = [digest(path) == value for path, value in files.items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
            return None
        return Result(case.id, "done before" if all(same) else "changed since", files=(*files,))

    def _here(self, name: str) -> bool:
        """Whether a name is that of a file in the folder and leads to no other."""
        return (self._out / name).parent == self._out

    def _path(self, case: Case) -> Path:
        return self._out / _FOLDER / f"{case.id}.json"


def _scan(case: Case) -> str:
    """A hash of the scan alone: its mask has no part in the result."""
    return replace(case, labels=None).digest()
