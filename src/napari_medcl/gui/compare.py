"""The curves of several runs over each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_medcl.gui.curves import CurvePlot, Line
from napari_medcl.gui.docks import Message
from napari_medcl.gui.editors import Choice, tip
from napari_medcl.gui.watch import Watch
from napari_medcl.training.follow import Follower
from napari_medcl.training.history import MEAN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.training.history import Curve, History
    from napari_medcl.training.run import Run

_EVERY_MS = 2000
_DICE = "Dice: "
_MEAN = f"{_DICE}{MEAN}"
_MOST = 12
"""More curves than that cannot be told apart."""
_STROKES = {
    Qt.PenStyle.SolidLine: "━━━",
    Qt.PenStyle.DashLine: "━ ━",
    Qt.PenStyle.DotLine: "┅┅┅",
    Qt.PenStyle.DashDotLine: "━ ·",
}


@dataclass(frozen=True)
class Compared:
    """A curve of several runs.

    Attributes:
        runs: The runs.
        mark: What it was made of; equal where nothing has changed.
        which: The curve; empty where there is none.
        offered: The curves that any of them has.
        lines: The curve of each that has it, by the name of the run.
    """

    runs: tuple[Run, ...]
    mark: tuple[Any, ...]
    which: str
    offered: tuple[str, ...]
    lines: dict[str, Line]


def compare(followers: list[Follower], which: str, seen: tuple[Any, ...], **_: Callable[..., Any]) -> Compared | None:
    """Reads on in runs.

    Args:
        followers: Read them.
        which: The curve that is asked for, else the mean Dice is taken if there is one.
        seen: The mark of what was shown last.

    Returns:
        Their curves; None where all is as it was.

    Raises:
        UserError: A folder cannot be read.
    """
    offsets = [(follower.run.folder, follower.look()) for follower in followers]
    curves = {follower.run.name: _curves(follower.history) for follower in followers}
    offered = tuple(sorted({name for one in curves.values() for name in one}, key=lambda name: (name != _MEAN, name)))
    if which not in offered:
        which = offered[0] if offered else ""
    if (mark := (which, *offsets)) == seen:
        return None
    lines = {run: Line.of(one[which]) for run, one in curves.items() if which in one}
    return Compared(tuple(follower.run for follower in followers), mark, which, offered, lines)


def _curves(history: History) -> dict[str, Curve]:
    """All curves of a run by their titles."""
    dice = {f"{_DICE}{name}": curve for name, curve in history.dice.items()}
    return {**dice, **{f"loss: {name}": curve for name, curve in history.terms.items()}}


class Comparison(QWidget):  # type: ignore[misc]
    """One curve of each of several runs. Looks only while it is visible."""

    def __init__(self, theme: str) -> None:
        super().__init__()
        self._followers: dict[Path, Follower] = {}
        self._left_out = 0
        self._seen: tuple[Any, ...] = ()

        # widgets
        self.curve = Choice()
        self.curve.setToolTip(tip("Which curve of the runs is drawn: a term of the loss, or the validation Dice."))
        self.plot = CurvePlot("", beside=True, theme=theme)
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setWordWrap(True)
        self.message = Message()

        # layout
        layout = QVBoxLayout(self)
        for widget in (self.curve, self.plot, self.legend, self.message):
            layout.addWidget(widget)
        layout.addStretch()

        # connections
        self._watch = Watch(self, _EVERY_MS, self._look)
        self._watch.looked.connect(self._show)
        self._watch.failed.connect(self.message.warn)
        self.curve.valueChanged.connect(lambda _: self._watch.now())

    def show_runs(self, runs: list[Run]) -> None:
        """Compares these runs."""
        known, left_out_before = self._followers, self._left_out
        self._left_out = max(0, len(runs) - _MOST)
        self._followers = {run.folder: known.get(run.folder) or Follower(run) for run in runs[:_MOST]}
        if self._left_out != left_out_before:
            self._seen = ()
        if self._followers.keys() != known.keys() or not self._seen:
            self._watch.now()

    def _look(self) -> Callable[..., Compared | None]:
        return partial(compare, list(self._followers.values()), self.curve.value() or "", self._seen)

    def _show(self, found: Compared | None) -> None:
        self.message.say("")
        if found is None or [run.folder for run in found.runs] != list(self._followers):
            return
        self._seen = found.mark
        self.curve.blockSignals(True)
        self.curve.setChoices((name, name) for name in found.offered)
        self.curve.setValue(found.which)
        self.curve.blockSignals(False)
        self.plot.setWhat(f"{found.which}, by step" if found.which else "", fraction=found.which.startswith(_DICE))
        self.plot.draw(found.lines)
        rows = "".join(map(self._entry, found.lines))
        self.legend.setText("<br>".join([f"<table>{rows}</table>", *self._missing(found)]))

    def _entry(self, name: str) -> str:
        pen = self.plot.pen(name)
        stroke = f'<td style="color:{pen.color().name()}">{_STROKES[pen.style()]}&nbsp;</td>'
        return f"<tr>{stroke}<td>{escape(name)}</td></tr>"

    def _missing(self, found: Compared) -> list[str]:
        without = len(found.runs) - len(found.lines)
        return [
            *([f"{without} of the runs do not have this curve."] if without else []),
            *([f"{self._left_out} more are not drawn: choose fewer."] if self._left_out else []),
        ]
