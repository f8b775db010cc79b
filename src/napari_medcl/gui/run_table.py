"""The table of the runs in a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QStyledItemDelegate, QTableView

from napari_medcl.gui.signs import sign
from napari_medcl.training.history import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qtpy.QtGui import QResizeEvent
    from qtpy.QtWidgets import QStyleOptionViewItem

    from napari_medcl.training.overview import Brief

_STAGES = {"pretrain": "pre-training", "finetune": "fine-tuning"}
_WORDS = {"dead": "died"}
"""States that are not called what they are in the folder."""
_KEY = Qt.ItemDataRole.UserRole


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
        return f"after {brief.ahead[0]}"
    done = f"{int(100 * brief.progress)} %" if 0 < brief.progress < 1 else ""
    return f"{done}, {duration(brief.remaining_s)}" if brief.alive and brief.remaining_s is not None else done


_NAME, _STATE, _WHAT, _DATA, _DICE, _LEFT, _BEGAN = range(7)
_COLUMNS = (
    _Column("Run", "The name of the run's folder", lambda brief: brief.run.name, lambda brief: brief.run.name),
    _Column(
        "State", "How it stands with the run", lambda brief: _WORDS.get(brief.state, brief.state),
        lambda brief: (not brief.alive, brief.state), "stopping",
    ),
    _Column("Method", "The stage, and the method that it learns by", what, what, "pre-training, SuperCL"),
    _Column("Data", "What it learns from", lambda brief: brief.data, lambda brief: brief.data, "hippocampus"),
    _Column(
        "Dice", "The best mean Dice on the validation cases so far",
        lambda brief: "" if brief.dice is None else f"{brief.dice:.3f}",
        lambda brief: -1.0 if brief.dice is None else brief.dice, "0.000",
    ),
    _Column(
        "Progress", "What is done, and the time that is left", left, lambda brief: brief.progress, "99 %, 59 min"
    ),
    _Column(
        "Began", "When it was started", lambda brief: time.strftime("%Y-%m-%d %H:%M", time.localtime(brief.began)),
        lambda brief: brief.began, "2000-00-00 00:00",
    ),
)  # fmt: skip
_GIVE_WAY = (_BEGAN, _DATA, _WHAT)
"""Columns that are hidden, this one first, where there is no room."""
_NAME_CHARACTERS = 16


class _Runs(QAbstractTableModel):  # type: ignore[misc]
    """One row a run; a row stays that of its run."""

    def __init__(self) -> None:
        super().__init__()
        self.briefs: list[Brief] = []

    def rowCount(self, _: QModelIndex | None = None) -> int:  # noqa: N802
        """How many runs there are."""
        return len(self.briefs)

    def columnCount(self, _: QModelIndex | None = None) -> int:  # noqa: N802
        """How much is told of each."""
        return len(_COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:  # noqa: N802
        """The titles."""
        if orientation == Qt.Orientation.Horizontal:
            column = _COLUMNS[section]
            return {Qt.ItemDataRole.DisplayRole: column.title, Qt.ItemDataRole.ToolTipRole: column.about}.get(role)
        return None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """What is told of a run."""
        brief, column = self.briefs[index.row()], _COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(brief)
        if role == _KEY:
            return column.key(brief)
        if role == Qt.ItemDataRole.DecorationRole and index.column() == _STATE:
            return sign(brief.state)
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(f"{one.title}: {text}" for one in _COLUMNS if (text := one.text(brief)))
        return None

    def show(self, briefs: Sequence[Brief]) -> None:
        """Takes these runs and no others."""
        new = {brief.run.folder: brief for brief in briefs}
        for row in reversed(range(len(self.briefs))):
            if self.briefs[row].run.folder not in new:
                self.beginRemoveRows(QModelIndex(), row, row)
                del self.briefs[row]
                self.endRemoveRows()
        for row, brief in enumerate(self.briefs):
            if (now := new.pop(brief.run.folder)) != brief:
                self.briefs[row] = now
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(_COLUMNS) - 1))
        if new:
            self.beginInsertRows(QModelIndex(), len(self.briefs), len(self.briefs) + len(new) - 1)
            self.briefs += new.values()
            self.endInsertRows()


class _Sorted(QSortFilterProxyModel):  # type: ignore[misc]
    """By the keys of the columns; equal ones by their age."""

    def lessThan(self, one: QModelIndex, other: QModelIndex) -> bool:  # noqa: N802
        """Whether a run comes before another one."""
        runs, key = self.sourceModel(), _COLUMNS[one.column()].key
        first, second = runs.briefs[one.row()], runs.briefs[other.row()]
        return bool((key(first), first.began) < (key(second), second.began))


class _Cells(QStyledItemDelegate):  # type: ignore[misc]
    """Names are told apart by their ends."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex) -> None:  # noqa: N802
        """Leaves out the beginning of a name that is too long, and the middle of whom a run waits for."""
        super().initStyleOption(option, index)
        modes = {_NAME: Qt.TextElideMode.ElideLeft, _LEFT: Qt.TextElideMode.ElideMiddle}
        option.textElideMode = modes.get(index.column(), Qt.TextElideMode.ElideRight)


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
        sorted_ = _Sorted(self)
        sorted_.setSourceModel(self._runs)
        self.setModel(sorted_)
        self.setItemDelegate(_Cells(self))
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
        sorted_.dataChanged.connect(lambda *_: self.chosen.emit())

    def briefs(self) -> list[Brief]:
        """The runs that are chosen, as they stand."""
        rows = sorted(self.selectionModel().selectedRows(), key=lambda row: row.row())
        return [self._runs.briefs[self.model().mapToSource(row).row()] for row in rows]

    def show_briefs(self, briefs: Sequence[Brief]) -> None:
        """Shows these runs; those that are chosen stay so.

        At first, and when those are gone, a run that goes on is chosen, else the newest.
        """
        choosing = not self._runs.briefs or bool(self.briefs())
        self._runs.show(briefs)
        if self._wanted is not None:
            self.choose(self._wanted)
        elif choosing and briefs and not self.briefs():
            self.choose(next((brief for brief in briefs if brief.alive), briefs[0]).run.folder)

    def choose(self, folder: Path) -> None:
        """Chooses a run, as soon as it is there."""
        rows = [row for row, brief in enumerate(self._runs.briefs) if brief.run.folder == folder]
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
