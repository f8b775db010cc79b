"""A small picture for every state of a run: shape and colour say the same."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medcl.training.run import State

_SIZE, _SHARPER = 16, 3
_GREEN, _AMBER, _GREY, _RED = "#3aa655", "#d98e04", "#8a94a0", "#e5383b"


def _triangle(painter: QPainter) -> None:
    painter.drawPolygon(QPolygonF([QPointF(4, 2.5), QPointF(13.5, 8), QPointF(4, 13.5)]))


def _bars(painter: QPainter) -> None:
    painter.drawRect(QRectF(4, 3, 2.5, 10))
    painter.drawRect(QRectF(9.5, 3, 2.5, 10))


def _square(painter: QPainter) -> None:
    painter.drawRect(QRectF(3.5, 3.5, 9, 9))


def _check(painter: QPainter) -> None:
    painter.drawPolyline(QPolygonF([QPointF(3, 8.5), QPointF(6.5, 12), QPointF(13, 4)]))


def _cross(painter: QPainter) -> None:
    painter.drawLine(QPointF(4, 4), QPointF(12, 12))
    painter.drawLine(QPointF(12, 4), QPointF(4, 12))


def _clock(painter: QPainter) -> None:
    painter.drawEllipse(QRectF(2.5, 2.5, 11, 11))
    painter.drawPolyline(QPolygonF([QPointF(8, 5), QPointF(8, 8), QPointF(10.5, 9.5)]))


def _dots(painter: QPainter) -> None:
    for x in (3.5, 8, 12.5):
        painter.drawEllipse(QPointF(x, 8), 0.9, 0.9)


_SIGNS: dict[State, tuple[Callable[[QPainter], None], str, bool]] = {
    "starting": (_dots, _GREEN, True),
    "queued": (_clock, _AMBER, False),
    "running": (_triangle, _GREEN, True),
    "pausing": (_bars, _AMBER, False),
    "stopping": (_square, _GREY, False),
    "paused": (_bars, _AMBER, True),
    "finished": (_check, _GREEN, False),
    "stopped": (_square, _GREY, True),
    "failed": (_cross, _RED, False),
    "dead": (_cross, _GREY, False),
}
"""Shape, colour, and whether it is filled."""


@cache
def sign(state: State) -> QIcon:
    """The picture for a state; the same in both themes."""
    draw, colour, filled = _SIGNS[state]
    pixmap = QPixmap(_SIZE * _SHARPER, _SIZE * _SHARPER)
    pixmap.setDevicePixelRatio(_SHARPER)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(colour), 1 if filled else 1.8))
    if filled:
        painter.setBrush(QColor(colour))
    draw(painter)
    painter.end()
    return QIcon(pixmap)
