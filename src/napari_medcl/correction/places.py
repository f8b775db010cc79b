"""Where journals lie, and how the next start finds them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from pathlib import Path

from napari_medcl.errors import UserError
from napari_medcl.files import write_json

_SUFFIX = ".medcl-journal"


def beside(mask: Path) -> Path:
    """Where the journal of a mask's file lies: in its folder, under a hidden name."""
    return mask.with_name(f".{mask.name}{_SUFFIX}")


def apart(home: Path) -> Path:
    """A new place for the journal of a mask that has no file, or whose folder cannot be written."""
    return home / f"{uuid.uuid4().hex}{_SUFFIX}"


def note_journal(home: Path, path: Path) -> None:
    """Notes in the folder `home` that a journal was begun, so that the next start finds it.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        write_json(_entry(home, path), {"journal": str(path.absolute())})
    except OSError as error:
        raise UserError(
            f"The folder {home} cannot be written: {error.strerror}. Mend its rights or free space."
        ) from error


def known_journals(home: Path) -> list[Path]:
    """The journals that were begun and are still there: those noted in the folder `home`, and those that lie in it.

    Notes of journals that are gone are deleted, but for those whose folder is gone too: it may be on a disk that
    comes back.
    """
    found = dict.fromkeys(sorted(home.glob(f"*{_SUFFIX}")))
    for entry in sorted(home.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            path = Path(json.loads(entry.read_text("utf-8"))["journal"])
            if path.exists():
                found[path] = None
            elif path.parent.exists():
                entry.unlink()
    return list(found)


def forget_journal(home: Path, path: Path) -> None:
    """Deletes the note of a journal."""
    with contextlib.suppress(OSError):
        _entry(home, path).unlink()


def _entry(home: Path, path: Path) -> Path:
    return home / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}.json"


def home_beside(runs: Path) -> Path:
    """The folder in which journals are noted: beside the folder of the runs."""
    return runs.parent / "corrections"
