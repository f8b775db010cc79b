"""Reading on what a run says while it goes on."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.training.events import read_event
from napari_medcl.training.history import History

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from napari_medcl.training.events import Event
    from napari_medcl.training.run import Run

_BLOCK = 1 << 18
"""Bytes that are looked at in one go: a long run is read without a long hold of the interpreter."""
_STEPPED = b'"kind":"stepped"'


class Follower:
    """Gathers what a run says; each look begins where the last one ended.

    Args:
        run: The run.
        curves: Whether every step is wanted. Else most of those that lie between other events are passed over, which
            takes a hundredth of the time and of the memory.

    Attributes:
        run: The run.
        history: What it has said so far.
    """

    def __init__(self, run: Run, *, curves: bool = True) -> None:
        self.run = run
        self.history = History()
        self._curves = curves
        self._offset = 0

    def look(self) -> int:
        """Takes in what is new.

        Returns:
            How many bytes were read so far, which tells whether there was anything new.

        Raises:
            UserError: The folder cannot be read.
        """
        try:
            with (self.run.folder / "events.jsonl").open("rb") as file:
                self._read(file)
        except FileNotFoundError:  # it has said nothing yet
            return self._offset
        except OSError as error:
            raise UserError(f"The run folder {self.run.folder} cannot be read: {error}.") from error
        return self._offset

    def _read(self, file: BinaryIO) -> None:
        if os.fstat(file.fileno()).st_size < self._offset:  # another run took the folder
            self.history, self._offset = History(), 0
        file.seek(self._offset)
        while lines := file.readlines(_BLOCK):
            half = not lines[-1].endswith(b"\n")
            if half:
                lines.pop()  # half-written: it waits
            self._offset += sum(map(len, lines))
            self.history.add(_events(lines if self._curves else _thinned(lines)))
            if half:
                return


def _thinned(lines: list[bytes]) -> list[bytes]:
    """Of steps that follow each other, the first and the last."""
    stepped = [_STEPPED in line for line in lines]
    around = zip([False, *stepped], stepped, [*stepped[1:], False], strict=False)
    return [line for line, three in zip(lines, around, strict=True) if not all(three)]


def _events(lines: list[bytes]) -> Iterator[Event]:
    for line in lines:
        with contextlib.suppress(ValidationError):  # a line that a crash cut short
            yield read_event(line)
