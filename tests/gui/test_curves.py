from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_medcl.gui.curves import CurvePlot, Line
from napari_medcl.training.history import Curve

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


@pytest.fixture
def plot(qtbot: QtBot) -> CurvePlot:
    plot = CurvePlot("losses", beside=True)
    qtbot.addWidget(plot)
    return plot


def line(*values: float) -> Line:
    return Line.of(Curve([*range(len(values))], [*values]))


def shown(plot: CurvePlot) -> dict[str, list[float]]:
    return {name: curve.getOriginalDataset()[1].tolist() for name, curve in plot._curves.items()}


def test_these_curves_and_no_others_are_shown(plot: CurvePlot) -> None:
    plot.draw({"a": line(1, 2), "b": line(3)})
    assert shown(plot) == {"a": [1, 2], "b": [3]}
    plot.draw({"b": line(3, 4), "c": line(5)})
    assert shown(plot) == {"b": [3, 4], "c": [5]}
    plot.draw({})
    assert shown(plot) == {}


def test_curve_keeps_its_looks_while_others_come_and_go(plot: CurvePlot) -> None:
    plot.draw({"a": line(1), "b": line(1)})
    before = plot.pen("b")
    plot.draw({"b": line(1, 2)})
    plot.draw({"b": line(1, 2), "c": line(1)})
    assert plot.pen("b") == before
    looks = {(plot.pen(name).color().name(), plot.pen(name).style()) for name in ("b", "c")}
    assert len(looks) == 2


def test_only_what_has_changed_is_drawn_anew(plot: CurvePlot, monkeypatch: pytest.MonkeyPatch) -> None:
    plot.draw({"a": line(1, math.nan), "b": line(1)})
    drawn: list[str] = []
    for name, curve in plot._curves.items():
        monkeypatch.setattr(curve, "setData", lambda *_, name=name, **__: drawn.append(name))
    plot.draw({"a": line(1, math.nan), "b": line(1, 2)})
    assert drawn == ["b"]
    plot.draw({"a": line(1, 3), "b": line(1, 2)})
    assert drawn == ["b", "a"]


def test_few_points_are_seen_as_dots_and_many_as_a_line(plot: CurvePlot) -> None:
    plot.draw({"few": line(1), "many": line(*range(100))})
    assert plot._curves["few"].opts["symbol"] == "o"
    assert plot._curves["many"].opts["symbol"] is None


def test_fractions_have_a_scale_of_their_own(plot: CurvePlot) -> None:
    plot.setWhat("Dice", fraction=True)
    plot.draw({"a": Line(np.arange(2.0), np.array([0.4, 0.5]))})
    assert plot.getPlotItem().viewRange()[1] == pytest.approx([0, 1], abs=0.2)
    plot.setWhat("loss", fraction=False)
    plot.draw({"a": Line(np.arange(2.0), np.array([40.0, 50.0]))})
    plot.getPlotItem().getViewBox().updateAutoRange()
    assert plot.getPlotItem().viewRange()[1][0] > 30
