"""Keeps what is done to a mask: every stroke in a journal, what was looked at and how long it took in a record."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medcl.correction.journal import (
    Journal,
    apart,
    beside,
    discard,
    forget_journal,
    known_journals,
    note_journal,
    pending,
    read,
)
from napari_medcl.correction.record import Record
from napari_medcl.correction.save import save_mask
from napari_medcl.errors import UserError
from napari_medcl.gui.layers import source_of, sources, to_labels
from napari_medcl.gui.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from numpy.typing import NDArray

    from napari_medcl.correction.journal import Recovered
    from napari_medcl.correction.save import Saved
    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.layers import LayerData
    from napari_medcl.gui.work import Work

SAVED = "saved"
"""Mark, in the metadata of a mask, of the file that it was saved to."""
_REST_MS = 400
"""What is undone is looked for when so long nothing was drawn anew."""
_PAUSE_S = 60.0
"""Whoever makes no edit for longer does something else meanwhile."""


class Keeper(QObject):  # type: ignore[misc]
    """Keeps the mask of a dock.

    Attributes:
        altered: Voxels have changed, by whatever tool, by undoing or by another program.
        recorded: The record is another one.
        warned: What the user has to do something about.
    """

    altered = Signal()
    recorded = Signal()
    warned = Signal(str)

    def __init__(self, dock: Dock, work: Work) -> None:
        super().__init__(dock)
        self._work = work
        self._journal: Journal | None = None
        self._before: NDArray[Any] | None = None
        self._layer: Any = None
        self._changes = 0
        self._aside: dict[Any, tuple[Record, int, Journal | None]] = {}
        self._last = 0.0
        self.record = Record(origin="empty")
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)

        self._rest.timeout.connect(self._note)
        work.changed.connect(self._follow)
        work.painted.connect(self._painted)
        work.refreshed.connect(self._rest.start)
        work.viewer.layers.events.removed.connect(self._removed)
        dock.closed.connect(self.end)
        self._follow()

    @property
    def unsaved(self) -> bool:
        """Whether there are edits that no file has yet."""
        return self._changes > 0

    def review(self, axis: int, index: int, *, done: bool) -> None:
        """Marks a slice as looked at, or not."""
        self._put(self.record.review(axis, index, done))

    def save(self, path: Path) -> Saved:
        """Saves the mask; a file that is there already is kept as a backup.

        Raises:
            UserError: It cannot be saved; the journal goes on.
        """
        layer = self._work.chosen()
        data, meta, _ = layer.as_layer_data_tuple()
        labels = to_labels(data, meta, sources(self._work.viewer.layers))
        self._note()
        saved = save_mask(labels, path, self.record)
        layer.metadata.setdefault("medcl", {})[SAVED] = str(saved.path)
        self._changes = 0
        self._close()
        self._begin()
        self.recorded.emit()
        return saved

    def resume(self, path: Path, changes: int) -> None:
        """Goes on with a journal of the mask that is chosen: what it holds is in no file yet."""
        try:
            self._journal, self._before = Journal.resume(path), None
        except UserError as error:
            self.warned.emit(str(error))
            return
        self._changes = changes
        self._note()
        self.recorded.emit()

    def end(self) -> None:
        """Ends all journals; one stays where there are edits that no file has."""
        self._rest.stop()
        self._note()
        self._close()
        self._end_of({*self._aside})
        self._work.viewer.layers.events.removed.disconnect(self._removed)

    def _follow(self) -> None:
        """Goes over to the mask that is chosen."""
        if self._work.layer is self._layer:
            return
        self._rest.stop()
        self._note()
        if self._layer is not None:
            self._aside[self._layer.unique_id] = self.record, self._changes, self._journal
        self._journal, self._layer = None, self._work.layer
        self._begin()
        if self._layer is not None and self._layer.unique_id in self._aside:
            self.record, self._changes, self._journal = self._aside.pop(self._layer.unique_id)
            if self._journal is not None:
                self._before = None
                self._note()
        self._removed()
        self.recorded.emit()

    def _removed(self, _: Any = None) -> None:
        self._end_of(self._aside.keys() - {layer.unique_id for layer in self._work.viewer.layers})

    def _end_of(self, masks: Set[Any]) -> None:
        """Ends the journals of masks that were put aside."""
        for one in masks:
            _, changes, journal = self._aside.pop(one)
            if journal is not None:
                _end(journal, keep=changes > 0)

    def _begin(self) -> None:
        """Remembers the mask as it is; the journal begins with the first edit, so that none is left without any."""
        layer, self._changes, self._last = self._layer, 0, time.monotonic()
        self._before, self.record = None, Record(origin="empty")
        if layer is None or layer.ndim not in (2, 3):
            return
        self._before = np.array(layer.data)
        file = file_of(layer)
        try:
            self.record = Record(origin=layer.name) if file is None else Record.load(file)
        except UserError as error:
            self.warned.emit(str(error))

    def _opened(self, before: NDArray[Any]) -> Journal:
        """A journal beside the mask, else apart: where the folder cannot be written or the place beside it is taken.

        It is taken by another viewer that corrects the mask, or by edits that were never saved.

        Raises:
            UserError: There cannot be one there either.
        """
        told, home, file = about(self._layer, self._work.scan), settings().corrections, file_of(self._layer)
        home.mkdir(parents=True, exist_ok=True)
        journal = None
        if file is not None:
            with suppress(UserError):
                journal = Journal.begin(beside(file), before, told)
        journal = journal or Journal.begin(apart(home), before, told)
        note_journal(home, journal.path)
        return journal

    def _close(self) -> None:
        if self._journal is not None:
            journal, self._journal = self._journal, None
            _end(journal, keep=self.unsaved)

    def _painted(self, atoms: Any) -> None:
        """A step was made: it is on the disk when this returns."""
        now = time.monotonic()
        spent, self._last = min(now - self._last, _PAUSE_S), now
        self._note(box_of(atoms, np.asarray(self._layer.data).shape))
        self._rest.start()  # napari tells of some changes before they are there
        self._put(self.record.with_edit().worked(spent))

    def _note(self, box: tuple[slice, ...] | None = None) -> None:
        if self._layer is None:
            return
        array, before = np.asarray(self._layer.data), self._before
        try:
            if self._journal is None and before is not None and not np.array_equal(array, before):
                self._journal, self._before = self._opened(before), None
            if self._journal is not None and self._journal.note(array, box):
                self._changes += 1
                self.altered.emit()
        except (UserError, OSError) as error:
            self.warned.emit(f"This edit is not journalled, so save the mask. {error}")
        except ValueError:  # the layer was given other data, of another shape or type
            self._close()
            self._begin()

    def _put(self, record: Record) -> None:
        self.record = record
        self.recorded.emit()


def _end(journal: Journal, *, keep: bool) -> None:
    journal.close(keep=keep)
    if not keep:
        forget_journal(settings().corrections, journal.path)


def left_behind() -> list[Recovered]:
    """Edits that were never saved, of viewers that have ended, the newest first."""
    return pending(known_journals(settings().corrections))


def give_up(recovered: Recovered) -> None:
    """Deletes what was left behind."""
    discard(recovered.path)
    forget_journal(settings().corrections, recovered.path)


def layer_of(recovered: Recovered) -> LayerData:
    """The mask as it was left, as a labels layer."""
    found = read(recovered.path)
    meta: dict[str, Any] = dict(found.about["layer"])
    if found.about["mask"] is not None:
        meta["metadata"]["medcl"][SAVED] = found.about["mask"]
    meta["axis_labels"] = tuple(meta["axis_labels"])
    return found.mask, meta, "labels"


def about(layer: Any, scan: Any) -> dict[str, Any]:
    """What a journal says of its mask: enough to lay it over its scan again."""
    file, source = file_of(layer), None if scan is None else source_of(scan.metadata)
    kept = {name: value for name, value in layer.metadata.get("medcl", {}).items() if name != "helper"}
    return {
        "mask": None if file is None else str(file),
        "scan": None if source is None or source.path is None else str(source.path),
        "layer": {
            "name": layer.name,
            "scale": [float(step) for step in layer.scale],
            "translate": [float(place) for place in layer.translate],
            "units": ["mm"] * layer.ndim,
            "axis_labels": [*layer.axis_labels],
            "metadata": {"medcl": kept},
        },
    }


def file_of(layer: Any) -> Path | None:
    """The file of a mask: where it was saved, else where it was opened from."""
    path = layer.metadata.get("medcl", {}).get(SAVED) or layer.source.path
    return None if path is None else Path(path)


def box_of(atoms: Sequence[Any], shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Where the changes of a step lie, from what napari keeps of it; None where that cannot be told."""
    boxes = []
    for atom in atoms:
        key = getattr(atom, "slice_key", None)
        if key is None and isinstance(atom, tuple) and atom and isinstance(atom[0], tuple):
            key = atom[0]
        if not isinstance(key, tuple) or len(key) != len(shape):
            return None
        boxes.append([_span(one, n) for one, n in zip(key, shape, strict=True)])
    if not boxes:
        return None
    return tuple(
        slice(min(low), max(high)) for low, high in (zip(*axis, strict=True) for axis in zip(*boxes, strict=True))
    )


def _span(axis: Any, size: int) -> tuple[int, int]:
    """From where to where an index reaches along an axis."""
    return axis.indices(size)[:2] if isinstance(axis, slice) else (int(np.min(axis)), int(np.max(axis)) + 1)
