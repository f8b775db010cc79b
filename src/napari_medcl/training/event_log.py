"""The file `events.jsonl` of a run folder, which one process writes while others read it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_medcl.errors import UserError
from napari_medcl.training.events import Event, Stepped, read_event

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_BYTES = 4096


@dataclass(frozen=True)
class EventLog:
    """One event a line, in the order they were said."""

    path: Path

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """Events after a byte offset, and the offset to ask from next time. A half-written line waits."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                text = file.read()
        except FileNotFoundError:
            return [], offset
        complete = text[: text.rfind(b"\n") + 1]
        events = []
        for line in complete.splitlines():
            with contextlib.suppress(ValidationError):  # a line that a crash cut short
                events.append(read_event(line))
        return events, offset + len(complete)

    def last(self) -> Event | None:
        """The last complete event, read from the end of the file."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return None
        tail, events = _TAIL_BYTES, self.read(max(0, size - _TAIL_BYTES))[0]
        while not events and tail < size:  # it is a long one, such as an error in very many words
            tail *= 8
            events, _ = self.read(max(0, size - tail))
        return events[-1] if events else None

    def append(self, event: Event) -> None:
        """Writes an event; it is on the disk when this returns, but for steps: the next other event takes them along.

        Raises:
            UserError: It cannot be written; what was there is as it was.
        """
        line = event.model_dump_json().encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    if file.write(line) < len(line):
                        raise OSError("the disk is full")
                    if not isinstance(event, Stepped):  # so often it would take longer than the steps on a slow disk
                        os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
        except OSError as error:
            raise UserError(
                f"The run folder {self.path.parent} cannot be written: {error}. Free some space or mend the folder's "
                "rights, then resume the run; its last checkpoint is as it was."
            ) from error

    def mend(self) -> None:
        """Ends the last line that a killed process left, so that the next event has one of its own."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                file.write(b"\n")
