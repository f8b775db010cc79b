"""Live previews: which case somebody wants to see, and what the model made of it last.

As with a stop, whoever wants to see something leaves a file in the run folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_medcl.data.formats import read_labels
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.errors import UserError
from napari_medcl.files import write_json

if TYPE_CHECKING:
    from napari_medcl.training.run import Run

Stamp = tuple[int, int, int]
"""Tells a file from the one that was there before."""

_REQUEST, _FOLDER = "preview", "previews"
_SIDES = {
    "val": "validation",
    "learned": "learned",
    "train": "not used",
    "unlabelled": "no mask",
    "test": "test",
}


def ask_preview(run: Run, case: str | None) -> None:
    """Asks the run to show what it makes of a case; None: of none any more.

    Raises:
        UserError: The run folder cannot be written.
    """
    path = run.folder / _REQUEST
    try:
        if case is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"case": case})
    except OSError as error:
        raise UserError(f"The run folder {run.folder} cannot be written: {error}. Mend its rights.") from error


def asked_preview(run: Run) -> str | None:
    """The case that somebody wants to see.

    Raises:
        UserError: The request cannot be read.
    """
    path = run.folder / _REQUEST
    try:
        found = json.loads(path.read_text("utf-8"))
        return str(found["case"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} cannot be read: {error}. It holds the name of a case: {{"case": "NAME"}}') from error


def request_stamp(run: Run) -> Stamp | None:
    """Changes when somebody asks anew; None while nobody wants to see anything."""
    return _stamp(run.folder / _REQUEST)


def cases_of(run: Run) -> dict[str, str]:
    """The cases that can be asked for, and on which side each is; none before the run has divided them."""
    try:
        sides = json.loads((run.folder / "split.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, str] = {}
    for side, words in _SIDES.items():
        for case in sides.get(side, ()):
            found.setdefault(case, words)
    return found


class Preview(BaseModel):
    """What the model of a run made of a case.

    Attributes:
        case: Name of the case.
        step: Of the model.
        file: In the folder `previews`: a mask (.nii.gz), or colours (3, Z, Y, X) as uint8 (.npy).
        images: The files of the scan.
        source: Where the voxels of the scan lie, see `Source.to_dict`.
        names: What the labels mean; None where there are colours.
        spacing: Of the mask or the colours, in mm along z, y, x.
        origin: LPS position of their first voxel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    step: int
    file: str
    images: tuple[Path, ...]
    source: dict[str, Any]
    names: dict[int, str] | None = None
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @classmethod
    def last(cls, run: Run, case: str) -> Preview | None:
        """The last one that was made of a case.

        Raises:
            UserError: It cannot be read.
        """
        path = _about(run, case)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} cannot be read: {error}. Ask for the preview again.") from error

    def read(self, run: Run) -> Labels | Volume:
        """The mask, or the colours; they lie over the scan.

        Raises:
            UserError: The file cannot be read.
        """
        path, source = run.folder / _FOLDER / self.file, Source.from_dict(self.source)
        if self.names is not None:
            return Labels(read_labels(path).array, self.spacing, self.origin, source, self.names)
        try:
            return Volume(np.load(path), self.spacing, self.origin, source, rgb=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}. Ask for the preview again.") from error

    def write(self, run: Run) -> Path:
        """Says that the file is complete; gives its path."""
        write_json(_about(run, self.case), self.model_dump(mode="json"))
        return run.folder / _FOLDER / self.file


def preview_folder(run: Run) -> Path:
    """Where previews are; it is made where it is missing."""
    folder = run.folder / _FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def preview_stamp(run: Run, case: str) -> Stamp | None:
    """Changes with every preview of the case; None where there is none."""
    return _stamp(_about(run, case))


def _about(run: Run, case: str) -> Path:
    return run.folder / _FOLDER / f"{case}.json"


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
