from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qtpy.QtCore import QPointF

from napari_medcl.correction.rank import next_slice, slice_scores
from napari_medcl.gui.docks import HELPER
from tests.gui.test_correct import LONG_MS, open_dock, opened, windowless
from tests.gui.test_keeping import paint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

OPEN, REVIEWED = "#f9844a", "#90be6d"


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def dock(viewer: Any, scan: Path, mask: Path, qtbot: QtBot) -> Any:
    dock = opened(viewer, scan, mask)
    viewer.layers["mask"].data[3, 2:9, 2:9] = 1
    viewer.layers["mask"].data[8] = 0
    settle(dock.review, qtbot)
    return dock


def settle(tab: Any, qtbot: QtBot) -> str:
    """Waits until nothing runs, and gives what the tab says."""
    qtbot.wait(1)
    qtbot.waitUntil(lambda: not (tab._wait.isActive() or tab._task.running), timeout=LONG_MS)
    return str(tab.message.text())


def add_map(viewer: Any, array: Any, name: str = "scan uncertainty") -> Any:
    place = {name: getattr(viewer.layers["scan"], name)[-array.ndim :] for name in ("scale", "translate", "units")}
    return viewer.add_image(array, name=name, metadata={"medcl": {HELPER: True}}, **place)


def colours(tab: Any) -> list[str]:
    return list(tab.bar._bars.opts["brushes"])


def heights(tab: Any) -> list[float]:
    return [float(height) for height in tab.bar._bars.opts["height"]]


def test_slices_are_ranked_by_what_they_say(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, tab = viewer.layers["mask"], dock.review
    paint(mask, 0, 0, 0)
    assert settle(tab, qtbot) == "0 of 12 slices reviewed. This is slice 6."
    scores = slice_scores(mask.data, 0)
    assert np.ptp(scores) > 0
    assert np.array_equal(tab._scores, scores)
    assert heights(tab) == np.maximum(scores, 0.04).tolist()
    assert colours(tab) == [OPEN] * 12
    assert tab.bar._here.value() == 6
    viewer.dims.order = (2, 0, 1)
    viewer.dims.set_current_step(2, 20)
    assert settle(tab, qtbot) == "0 of 32 slices reviewed. This is slice 20."
    assert np.array_equal(tab._scores, slice_scores(mask.data, 2))
    mask.undo()
    qtbot.waitUntil(lambda: not dock.keeper._rest.isActive())
    settle(tab, qtbot)
    assert np.array_equal(tab._scores, slice_scores(mask.data, 2))


def test_next_is_the_most_doubtful_that_nobody_reviewed(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    tab, scores = dock.review, slice_scores(viewer.layers["mask"].data, 0)
    order = np.argsort(-scores, kind="stable").tolist()
    tab.next.click()
    assert viewer.dims.current_step[0] == order[0] == next_slice(scores, [], 6)
    tab.reviewed.click()
    tab.next.click()
    assert viewer.dims.current_step[0] == order[1]
    tab.reviewed.click()
    assert tab.reviewed.isChecked()
    assert dock.keeper.record.reviewed_along(0) == sorted(order[:2])
    settle(tab, qtbot)
    assert colours(tab) == [REVIEWED if index in order[:2] else OPEN for index in range(12)]
    assert "2 of 12 slices reviewed" in tab.message.text()
    for index in range(12):
        dock.keeper.review(0, index, done=True)
    tab.next.click()
    assert tab.message.text() == "All slices are reviewed."
    assert viewer.dims.current_step[0] == order[1]


def test_the_mark_is_of_the_slice_in_view_at_once(viewer: Any, dock: Any) -> None:
    """Also for whoever is faster than the ranking."""
    tab = dock.review
    tab.turn_reviewed()
    assert tab.reviewed.isChecked()
    viewer.dims.set_current_step(0, 2)
    assert not tab.reviewed.isChecked()
    tab.turn_reviewed()
    assert dock.keeper.record.reviewed == ((0, 2), (0, 6))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 9)
    tab.turn_reviewed()
    assert dock.keeper.record.reviewed == ((0, 2), (0, 6), (1, 9))
    viewer.dims.order = (0, 1, 2)
    assert tab.reviewed.isChecked()
    tab.reviewed.click()
    assert dock.keeper.record.reviewed == ((0, 6), (1, 9))
    viewer.dims.ndisplay = 3
    tab.turn_reviewed()
    assert dock.keeper.record.reviewed == ((0, 6), (1, 9))
    assert not tab.reviewed.isChecked()


def test_a_click_at_the_bar_goes_to_the_slice(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    tab = dock.review
    box = tab.bar.getPlotItem().vb
    for place, index in ((2.4, 2), (-7.0, 0), (99.0, 11)):
        tab.bar._clicked(SimpleNamespace(scenePos=lambda x=place: box.mapViewToScene(QPointF(x, 0.5))))
        assert viewer.dims.current_step[0] == index
    settle(tab, qtbot)
    assert tab.bar._here.value() == 11


def test_the_slices_of_an_uncertainty_map_come_first(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    mask, tab = viewer.layers["mask"], dock.review
    doubt = np.zeros(mask.data.shape, np.float32)
    doubt[10] = 0.9
    layer = add_map(viewer, doubt)
    assert tab.map.findData(layer) == 1
    assert tab.map.value() is None
    tab.map.setValue(layer)
    settle(tab, qtbot)
    assert np.array_equal(tab._scores, slice_scores(mask.data, 0, doubt))
    assert tab._scores[10] == 0.5
    other = add_map(viewer, doubt[:5], "other")
    tab.map.setValue(other)
    assert settle(tab, qtbot) == "“other” is of another scan than “mask”. Choose another map, or none."
    tab.next.click()
    assert viewer.dims.current_step[0] == 6
    viewer.layers.remove("other")
    assert tab.map.value() is None
    assert "slices reviewed" in settle(tab, qtbot)
    assert tab.map.count() == 2


def test_only_maps_are_offered(viewer: Any, scan: Path) -> None:
    dock = opened(viewer, scan)
    add_map(viewer, np.zeros((4, 5)), "flat")
    viewer.add_labels(np.zeros((3, 4, 5), int), metadata={"medcl": {HELPER: True}})
    assert dock.review.map.count() == 1


def test_where_there_is_nothing_to_rank_it_says_so(viewer: Any, qtbot: QtBot) -> None:
    dock = open_dock(viewer)
    assert "no mask to correct" in settle(dock.review, qtbot)
    dock.review.go_to(3)
    dock.review.turn_reviewed()
    dock.mask.setValue(viewer.add_labels(np.zeros((20, 30), int)))
    assert settle(dock.review, qtbot) == "A picture has no slices to rank."
    dock.review.next.click()
    dock.review.turn_reviewed()
    assert dock.keeper.record.reviewed == ()


def test_the_bar_takes_the_colours_of_the_theme(viewer: Any, dock: Any) -> None:
    before = dock.review.bar.backgroundBrush().color().name()
    viewer.theme = "light"
    assert dock.review.bar.backgroundBrush().color().name() != before
