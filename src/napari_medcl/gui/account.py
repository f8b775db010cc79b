"""What was done to the mask so far, and saving it with that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_medcl.correction.record import find_records, rows
from napari_medcl.errors import UserError
from napari_medcl.files import write_rows
from napari_medcl.gui.docks import Message
from napari_medcl.gui.editors import tip
from napari_medcl.gui.keeping import file_of
from napari_medcl.gui.writer import MASKS, suggested

if TYPE_CHECKING:
    from napari_medcl.correction.record import Record
    from napari_medcl.gui.keeping import Keeper
    from napari_medcl.gui.work import Work

_MOST_LABELS = 6


class Account(QWidget):  # type: ignore[misc]
    """Saves the mask, and tells edits, time and volumes."""

    def __init__(self, work: Work, keeper: Keeper) -> None:
        super().__init__()
        self._work, self._keeper = work, keeper

        # widgets
        self.save = QPushButton("Save")
        self.save.setToolTip(tip("Saves the mask to its file; the one that is there is kept in .medcl-backups."))
        self.save_as = QPushButton("Save as…")
        self.save_as.setToolTip(tip("Saves the mask to another file."))
        self.table = QPushButton("Table…")
        self.table.setToolTip(
            tip("Writes edits, minutes, volumes in ml and Dice between versions of all masks in the folder, as CSV.")
        )
        self.told = Message()
        self.message = Message()

        # layout
        buttons = QHBoxLayout()
        for button in (self.save, self.save_as, self.table):
            buttons.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(buttons)
        column.addWidget(self.told)
        column.addWidget(self.message)

        # connections
        self.save.clicked.connect(self._save)
        self.save_as.clicked.connect(self._ask_where)
        self.table.clicked.connect(self._ask_for_table)
        keeper.recorded.connect(self._tell)
        keeper.warned.connect(self.message.warn)
        work.changed.connect(self._tell)
        self._tell()

    def save_to(self, path: Path) -> None:
        """Saves the mask; what was in the file is kept."""
        try:
            saved = self._keeper.save(path)
        except (UserError, OSError) as error:
            self.message.warn(str(error))
            return
        kept = f" The file that was there is {saved.backup}." if saved.backup else ""
        self.message.say(f"Saved as {saved.path}.{kept}")

    def write_table(self, path: Path) -> None:
        """Writes the table of all masks in the folder of the mask."""
        try:
            file = file_of(self._work.chosen())
            if file is None:
                raise UserError("The mask has no file yet. Save it first.")
            records = find_records(file.parent)
            if not records:
                raise UserError(f"No mask in {file.parent} was saved from here yet. Save this one first.")
            write_rows(path, rows(records))
        except UserError as error:
            self.message.warn(str(error))
        else:
            self.message.say(f"The table of {len(records)} masks is {path}.")

    def _save(self) -> None:
        file = None if self._work.layer is None else file_of(self._work.layer)
        if file is None:
            self._ask_where()
        else:
            self.save_to(file)

    def _ask_where(self) -> None:
        try:
            layer = self._work.chosen()
        except UserError as error:
            self.message.warn(str(error))
            return
        asked, _ = QFileDialog.getSaveFileName(self, "Save the mask", str(file_of(layer) or suggested(layer)), MASKS)
        if asked:
            self.save_to(Path(asked))

    def _ask_for_table(self) -> None:
        asked, _ = QFileDialog.getSaveFileName(self, "Write the table", "corrections.csv", "Tables (*.csv)")
        if asked:
            self.write_table(Path(asked))

    def _tell(self, *_: Any) -> None:
        self.told.say("" if self._work.layer is None else in_words(self._keeper.record, unsaved=self._keeper.unsaved))


def in_words(record: Record, *, unsaved: bool) -> str:
    """Edits, time and the volumes of the last version."""
    told = f"{record.edits} edit{'s' * (record.edits != 1)} in {record.seconds / 60:.0f} min"
    told += ", not saved yet" if unsaved else ""
    if record.versions:
        last = record.versions[-1]
        sizes = [f"{label}: {size:.3g} ml" for label, size in list(last.volumes_ml.items())[:_MOST_LABELS]]
        told += f". Version {len(record.versions)}: {', '.join(sizes) or 'empty'}"
    return told
