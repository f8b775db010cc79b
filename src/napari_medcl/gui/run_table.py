"""The table of the runs in a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QStandardItem, QStandardItemModel
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_medcl.gui.signs import sign
from napari_medcl.training.history import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtpy.QtGui import QResizeEvent

    from napari_medcl.training.overview import Brief

_STAGES = {"pretrain": "pre-training", "finetune": "fine-tuning"}
_WORDS = {"dead": "died"}
"""States that are not called what they are in the folder."""
_KEY, _FOLDER = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
_SHORT = 5


@dataclass(frozen=True)
class _Column:
    """What stands in a column, by what it is sorted, and the widest text that it must hold."""

    title: str
    about: str
    text: Callable[[Brief], str]
    key: Callable[[Brief], Any]
    widest: str = ""


def what(brief: Brief) -> str:
    """The stage of a run, with its method."""
    return ", ".join(filter(None, (_STAGES.get(brief.stage or "", "unreadable settings"), brief.method)))


def left(brief: Brief) -> str:
    """How far a run is and how long it takes, or whom it waits for."""
    if brief.ahead and brief.state == "queued":
        name = brief.ahead[0]
        return f"after {name}" if len(name) <= _SHORT else f"after …{name[-_SHORT:]}"
    done = f"{int(100 * brief.progress)} %" if 0 < brief.progress < 1 else ""
    return f"{done}, {duration(brief.remaining_s)}" if brief.alive and brief.remaining_s is not None else done


_NAME, _STATE, _WHAT, _DATA, _DICE, _LEFT, _BEGAN = range(7)
_COLUMNS = (
    _Column("Run", "The name of the run's folder", lambda brief: brief.run.name, lambda brief: brief.run.name),
    _Column(
        "State", "How it stands with the run", lambda brief: _WORDS.get(brief.state, brief.state),
        lambda brief: f"{'0' if brief.alive else '1'} {brief.state}", "stopping",
    ),
    _Column("Method", "The stage, and the method that it learns by", what, what, "pre-training, SuperCL"),
    _Column("Data", "What it learns from", lambda brief: brief.data, lambda brief: brief.data, "hippocampus"),
    _Column(
        "Dice", "The best mean Dice on the validation cases so far",
        lambda brief: "" if brief.dice is None else f"{brief.dice:.3f}",
        lambda brief: -1.0 if brief.dice is None else brief.dice, "0.000",
    ),
    _Column(
        "Progress", "What is done, and the time that is left", left, lambda brief: brief.progress, "99 %, 59 min  "
    ),
    _Column(
        "Began", "When it was started", lambda brief: time.strftime("%Y-%m-%d %H:%M", time.localtime(brief.began)),
        lambda brief: brief.began, "2000-00-00 00:00",
    ),
)  # fmt: skip
_GIVE_WAY = (_BEGAN, _DATA, _WHAT)
"""Columns that are hidden, this one first, where there is no room."""
_NAME_CHARACTERS = 16


class _Runs(QStandardItemModel):  # type: ignore[misc]
    """One row a run; a row stays that of its run.

    The cells are kept in Qt's own model: it is painted and sorted without a word of Python, so that a thread which
    reads the runs never holds the painting up.
    """

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        self.briefs: dict[str, Brief] = {}
        for number, column in enumerate(_COLUMNS):
            self.setHorizontalHeaderItem(number, QStandardItem(column.title))
            self.horizontalHeaderItem(number).setToolTip(column.about)

    def folder(self, row: int) -> str:
        """The folder of the run of a row."""
        return str(self.item(row, _NAME).data(_FOLDER))

    def show(self, briefs: Sequence[Brief]) -> None:
        """Takes these runs and no others."""
        before, new = self.briefs, {str(brief.run.folder): brief for brief in briefs}
        self.briefs = {**before, **new}  # as long as there are rows of them, somebody may ask
        for row in reversed(range(self.rowCount())):
            if (folder := self.folder(row)) not in new:
                self.removeRow(row)
            elif new[folder] != before[folder]:
                _fill([self.item(row, number) for number in range(len(_COLUMNS))], new[folder])
        for folder, brief in new.items():
            if folder not in before:
                items = [QStandardItem() for _ in _COLUMNS]
                items[_NAME].setData(folder, _FOLDER)
                _fill(items, brief)
                self.appendRow(items)
        self.briefs = new


def _fill(items: list[QStandardItem], brief: Brief) -> None:
    """Puts into the cells of a row what is told of a run."""
    texts = [column.text(brief) for column in _COLUMNS]
    if items[_STATE].text() != texts[_STATE]:
        items[_STATE].setIcon(sign(brief.state))
    for item, column, text in zip(items, _COLUMNS, texts, strict=True):
        item.setText(text)
        item.setData(column.key(brief), _KEY)
    told = (f"{column.title}: {text}" for column, text in zip(_COLUMNS, texts, strict=True) if text)
    items[_NAME].setToolTip("\n".join(told))


class RunTable(QTableView):  # type: ignore[misc]
    """The runs, newest first unless the user sorts them; some of them can be chosen.

    Attributes:
        chosen: Other runs are chosen, or there is something new of those that are.
    """

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._wanted: Path | None = None
        self._runs = _Runs()
        sorted_ = QSortFilterProxyModel(self)
        sorted_.setSourceModel(self._runs)
        sorted_.setSortRole(_KEY)
        self.setModel(sorted_)
        self.setTextElideMode(Qt.TextElideMode.ElideLeft)  # names are told apart by their ends
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self._dress_headers()
        self.setSortingEnabled(True)
        self.sortByColumn(_BEGAN, Qt.SortOrder.DescendingOrder)

        self.selectionModel().selectionChanged.connect(lambda *_: self.chosen.emit())

    def briefs(self) -> list[Brief]:
        """The runs that are chosen, as they stand."""
        rows = sorted(self.selectionModel().selectedRows(), key=lambda row: row.row())
        return [self._runs.briefs[self._runs.folder(self.model().mapToSource(row).row())] for row in rows]

    def show_briefs(self, briefs: Sequence[Brief]) -> None:
        """Shows these runs; those that are chosen stay so.

        At first, and when those are gone, a run that goes on is chosen, else the newest.
        """
        before = self.briefs()
        choosing = not self._runs.briefs or bool(before)
        self._runs.show(briefs)
        if before and self.briefs() != before:
            self.chosen.emit()
        if self._wanted is not None:
            self.choose(self._wanted)
        elif choosing and briefs and not self.briefs():
            self.choose(next((brief for brief in briefs if brief.alive), briefs[0]).run.folder)

    def choose(self, folder: Path) -> None:
        """Chooses a run, as soon as it is there."""
        rows = [row for row in range(self._runs.rowCount()) if self._runs.folder(row) == str(folder)]
        self._wanted = None if rows else folder
        for row in rows:
            index = self.model().mapFromSource(self._runs.index(row, 0))
            self.selectRow(index.row())
            self.scrollTo(index)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """Shows as many columns as there is room for."""
        super().resizeEvent(event)
        room = self.viewport().width() - _NAME_CHARACTERS * self.fontMetrics().averageCharWidth()
        room -= sum(self.columnWidth(column) for column in (_STATE, _DICE, _LEFT))
        for column in reversed(_GIVE_WAY):
            room -= self._width(column)
            self.setColumnHidden(column, room < 0)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Room for some runs."""
        return QSize(super().sizeHint().width(), 8 * self.verticalHeader().defaultSectionSize())

    def _dress_headers(self) -> None:
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setMinimumSectionSize(30)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(_COLUMNS)):
            self.setColumnWidth(column, self._width(column))

    def _width(self, column: int) -> int:
        """Of a column that is not the name's."""
        metrics, one = self.fontMetrics(), _COLUMNS[column]
        icon = metrics.height() + 8 if column == _STATE else 0
        return int(max(metrics.horizontalAdvance(one.widest) + icon, metrics.horizontalAdvance(one.title)) + 10)
