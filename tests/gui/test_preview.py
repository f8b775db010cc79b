"""Previews of runs that go on in the test's own process, step by step."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari._app_model import get_app_model
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.cases import find_cases
from napari_medcl.errors import UserError
from napari_medcl.gui import preview
from napari_medcl.gui.docks import Dock, images_of, masks_of
from napari_medcl.gui.inputs import Pair, write_inputs
from napari_medcl.gui.layers import to_volume
from napari_medcl.gui.preview import PreviewRow
from napari_medcl.inference.predict import Predictor
from napari_medcl.training import previewer
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Noted, Previewed
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.preview import ask_preview, asked_preview
from napari_medcl.training.run import Run
from tests.gui.conftest import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_medcl.training.events import Event

WAIT_MS = 20_000
SMALL: dict[str, Any] = {"width": 4, "batch": 4, "steps": 30, "precision": "float32", "device": "cpu"}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preview with every step."""
    monkeypatch.setattr(previewer, "_SHORTEST_S", 0.0)
    monkeypatch.setattr(previewer, "_SHARE", math.inf)


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer(show=True)


class Watched:
    """A run that is shown, and goes on when the test says so."""

    def __init__(self, events: Iterator[Event], run: Run, viewer: Any, row: PreviewRow, qtbot: QtBot) -> None:
        self.events, self.run, self.viewer, self.row, self.qtbot = events, run, viewer, row, qtbot
        self.until("started")
        row.follow(run)
        qtbot.waitUntil(lambda: row.case.count() > 1, timeout=WAIT_MS)

    def until(self, kind: str) -> Any:
        return next(event for event in self.events if event.kind == kind)

    def choose(self, case: str | None) -> None:
        """Chooses a case and waits until the run is asked for it."""
        self.row.case.setValue(case)
        self.written()

    def remove(self, layer: Any) -> None:
        """Removes a layer and waits until the run knows."""
        self.viewer.layers.remove(layer)
        QApplication.processEvents()
        self.written()

    def written(self) -> None:
        self.qtbot.waitUntil(lambda: not self.row._asking.running, timeout=WAIT_MS)

    def look(self) -> None:
        """Waits until the row has read what is new."""
        self.qtbot.waitUntil(lambda: not self.row._watch._task.running, timeout=WAIT_MS)
        with self.qtbot.waitSignal(self.row._watch.looked, timeout=WAIT_MS):
            self.row._watch.now()

    def show(self) -> Any:
        """Lets the run go on to the next preview, and the viewer look; gives the layer."""
        told = self.until("previewed")
        assert isinstance(told, Previewed)
        self.look()
        layer = self.row._layer
        assert layer.metadata["medcl"]["step"] == told.step
        return layer


@pytest.fixture
def watch(viewer: Any, qtbot: QtBot, runs: Path) -> Iterator[Callable[..., Watched]]:
    dock = Dock(viewer)
    row = PreviewRow(dock)
    dock.outer.addWidget(row)
    viewer.window.add_dock_widget(dock)
    row._watch._timer.setInterval(10 * WAIT_MS)  # it looks when the test says so
    begun: list[Any] = []

    def watching(config: PretrainConfig | FinetuneConfig, name: str = "run") -> Watched:
        folder = runs / name
        begun.append(pretrain(config, folder) if isinstance(config, PretrainConfig) else finetune(config, folder))
        return Watched(begun[-1], Run(folder), viewer, row, qtbot)

    yield watching
    for events in begun:
        events.close()
    viewer.window.remove_dock_widget(dock)


@pytest.fixture
def finetuning(blobs: Callable[..., Path], watch: Callable[..., Watched]) -> Watched:
    return watch(FinetuneConfig(folder=blobs(spacing=2.0), dims="2d", test=0.25, **SMALL))


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_labels_appear_over_the_scan_and_follow_the_model(viewer: Any, finetuning: Watched) -> None:
    row, run = finetuning.row, finetuning.run
    offered = [row.case.itemText(index) for index in range(row.case.count())]
    assert offered[0] == "none"
    assert sum(text.endswith("(test)") for text in offered) == 1
    assert sum(text.endswith("(validation)") for text in offered) == 1
    assert len(offered) == 5
    other = viewer.add_image(np.zeros((4, 5, 6)), name="other", scale=(1, 1, 1), units=["mm"] * 3)
    finetuning.choose("case_2")
    assert asked_preview(run) == "case_2"
    layer = finetuning.show()
    assert names(viewer) == ["other", "case_2", "preview case_2 (run)"]
    assert viewer.layers.selection.active is other
    scan = viewer.layers["case_2"]
    for attribute in ("scale", "translate", "units"):
        assert list(getattr(layer, attribute)) == list(getattr(scan, attribute))
    assert layer.data.shape == scan.data.shape
    assert list(layer.features["class"]) == ["background", "class 1", "class 2"]
    assert layer not in masks_of(viewer)
    first = layer.data.copy()
    layer.opacity, layer.contour, layer.visible = 0.3, 2, False
    assert finetuning.show() is layer
    for event in finetuning.events:
        last = event
    assert last.kind == "finished"
    finetuning.look()
    assert layer.metadata["medcl"]["step"] == 30
    assert (layer.opacity, layer.contour, layer.visible) == (0.3, 2, False)
    assert len(viewer.layers) == 3
    assert not np.array_equal(layer.data, first)
    model = Checkpoint.load(run.folder / "checkpoints" / "last.safetensors")
    told = Predictor(model, "cpu", 0.25, precision="float32")(to_volume([scan])).labels
    np.testing.assert_array_equal(layer.data, told.array)
    assert "after step 30" in row.message.text()


def test_colours_appear_over_the_scan_and_follow_the_model(
    viewer: Any, blobs: Callable[..., Path], watch: Callable[..., Watched]
) -> None:
    folder = blobs(masks=0, spacing=2.0)
    viewer.open(folder / "imagesTr" / "case_1.nii.gz", plugin="medcl")
    pretraining = watch(PretrainConfig(folder=folder, dims="2d", val=0, **SMALL))
    pretraining.choose("case_1")
    layer = pretraining.show()
    assert names(viewer) == ["case_1", "preview case_1 (run)"]
    assert layer.rgb
    assert layer not in images_of(viewer)
    scan = viewer.layers["case_1"]
    step = np.divide(layer.scale, scan.scale)
    assert step[0] == 1
    assert step[1] == step[2] > 1
    near = np.array(layer.translate) - layer.scale / 2
    np.testing.assert_allclose(near, np.array(scan.translate) - scan.scale / 2, atol=1e-6)
    first = layer.data.copy()
    layer.opacity = 0.9
    for _ in range(5):
        assert pretraining.show() is layer
    assert layer.opacity == 0.9
    assert not np.array_equal(layer.data, first)
    assert len(viewer.layers) == 2


def test_nobody_asks_and_nothing_comes(viewer: Any, finetuning: Watched) -> None:
    kinds = {event.kind for event in finetuning.events}
    assert "previewed" not in kinds
    assert not (finetuning.run.folder / "previews").exists()
    assert not viewer.layers


def test_a_layer_that_was_removed_stays_away_until_it_is_asked_for(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    layer = finetuning.show()
    finetuning.remove(layer)
    assert asked_preview(finetuning.run) is None
    finetuning.look()
    assert finetuning.row.case.value() is None
    assert names(viewer) == ["case_0"]
    finetuning.choose("case_0")
    assert finetuning.show() is not layer
    assert names(viewer) == ["case_0", "preview case_0 (run)"]


def test_a_layer_that_was_painted_on_is_the_users(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    layer = finetuning.show()
    layer.data_setitem((np.array([0, 1]), np.array([2, 2]), np.array([3, 3])), 2)
    painted = layer.data.copy()
    assert layer in masks_of(viewer)
    second = finetuning.show()
    assert second is not layer
    assert "painted" in finetuning.row.message.text()
    np.testing.assert_array_equal(layer.data, painted)
    assert finetuning.show() is second
    assert names(viewer) == ["case_0", "preview case_0 (run)", "preview case_0 (run) [1]"]
    layer.undo()
    finetuning.remove(layer)
    assert asked_preview(finetuning.run) == "case_0"


def test_a_stroke_of_the_brush_counts_before_it_ends(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    layer = finetuning.show()
    with layer.block_history():
        layer.paint((0, 2, 3), 2)
        assert finetuning.show() is not layer


def test_the_request_holds_when_the_viewer_closes(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    finetuning.show()
    viewer.layers.clear()
    viewer.window._qt_window.hide()
    QApplication.processEvents()
    finetuning.written()
    assert asked_preview(finetuning.run) == "case_0"


def test_a_layer_stays_away_where_that_cannot_be_written(
    viewer: Any, finetuning: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run folder that may only be read."""
    finetuning.choose("case_0")
    layer = finetuning.show()

    def refuse(*_: Any) -> None:
        raise UserError("The run folder cannot be written.")

    monkeypatch.setattr(preview, "ask_preview", refuse)
    finetuning.remove(layer)
    assert finetuning.row.message.text() == "⚠ The run folder cannot be written."
    finetuning.until("previewed")
    finetuning.look()
    assert names(viewer) == ["case_0"]
    monkeypatch.undo()
    finetuning.choose(None)
    finetuning.choose("case_0")
    assert finetuning.show() in viewer.layers


def test_the_last_choice_counts(finetuning: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a slow disk takes the one before at the same time."""
    delays = iter([0.3, 0.0, 0.0])

    def slow(run: Run, case: str | None) -> None:
        time.sleep(next(delays))
        ask_preview(run, case)

    monkeypatch.setattr(preview, "ask_preview", slow)
    began = time.monotonic()
    for case in ("case_0", "case_1", "case_2"):
        finetuning.row.case.setValue(case)
    assert time.monotonic() - began < 0.3
    finetuning.qtbot.waitUntil(lambda: asked_preview(finetuning.run) == "case_2", timeout=WAIT_MS)
    finetuning.written()
    assert finetuning.row.case.value() == "case_2"


def test_a_copy_of_the_layer_is_the_users(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    layer = finetuning.show()
    viewer.layers.selection.active = layer
    get_app_model().commands.execute_command("napari.layer.duplicate").result()
    copy = viewer.layers[f"{layer.name} copy"]
    viewer.layers.move(viewer.layers.index(copy), viewer.layers.index(layer))
    copy.data_setitem((np.array([0]), np.array([2]), np.array([3])), 2)
    painted = copy.data.copy()
    assert copy in masks_of(viewer)
    assert finetuning.show() is layer
    np.testing.assert_array_equal(copy.data, painted)
    finetuning.remove(copy)
    assert asked_preview(finetuning.run) == "case_0"


def test_another_case_gets_a_layer_of_its_own(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    first = finetuning.show()
    before = first.data.copy()
    finetuning.choose("case_1")
    second = finetuning.show()
    assert second is not first
    np.testing.assert_array_equal(first.data, before)
    assert names(viewer) == ["case_0", "preview case_0 (run)", "case_1", "preview case_1 (run)"]
    assert "painted" not in finetuning.row.message.text()
    finetuning.choose("case_0")
    assert finetuning.show() is first
    assert len(viewer.layers) == 4


def test_the_row_shows_what_others_asked_for(viewer: Any, finetuning: Watched) -> None:
    ask_preview(finetuning.run, "case_3")
    layer = finetuning.show()
    assert finetuning.row.case.value() == "case_3"
    assert layer.name == "preview case_3 (run)"
    ask_preview(finetuning.run, None)
    finetuning.look()
    assert finetuning.row.case.value() is None
    assert layer in viewer.layers


def test_what_cannot_be_shown_is_said(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_1")
    (scan,) = find_cases(finetuning.run.config["folder"]).select(["case_1"])[0].images
    whole = scan.read_bytes()
    scan.write_bytes(whole[:40])
    note = finetuning.until("noted")
    assert isinstance(note, Noted)
    assert str(scan) in note.message
    for _ in range(2):
        finetuning.look()
        assert finetuning.row.message.text() == f"⚠ {note.message}"
    scan.write_bytes(whole)
    finetuning.choose("case_2")
    finetuning.look()
    assert finetuning.row.message.text() == "It comes with the next step."
    finetuning.until("previewed")
    (finetuning.run.folder / "previews" / "case_2.nii.gz").write_bytes(b"")
    finetuning.look()
    assert finetuning.row.message.text().startswith("⚠")
    assert finetuning.show() is not None
    assert not finetuning.row.message.text().startswith("⚠")


def test_a_scan_that_is_gone_is_no_reason_to_show_nothing(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_1")
    finetuning.until("previewed")
    find_cases(finetuning.run.config["folder"]).select(["case_1"])[0].images[0].unlink()
    finetuning.look()
    assert names(viewer) == ["preview case_1 (run)"]
    assert "is not there" in finetuning.row.message.text()


def test_pictures_are_shown_over_pictures(viewer: Any, watch: Callable[..., Watched], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for side in ("images", "masks"):
        (tmp_path / "data" / side).mkdir(parents=True)
    for number in range(3):
        colours = random.integers(0, 255, (30, 44, 3), np.uint8)
        Image.fromarray(colours).save(tmp_path / "data" / "images" / f"p{number}.png")
        Image.fromarray((colours[..., 0] > 128).astype(np.uint8)).save(tmp_path / "data" / "masks" / f"p{number}.png")
    for name, kind in (("pre", PretrainConfig), ("fine", FinetuneConfig)):
        watched = watch(kind(folder=tmp_path / "data", **SMALL), name)
        watched.choose("p1")
        assert watched.show().ndim == 2
    assert names(viewer) == ["p1", "preview p1 (pre)", "preview p1 (fine)"]
    assert viewer.dims.ndim == 2


def test_open_layers_that_were_trained_on_are_known_again(
    viewer: Any, watch: Callable[..., Watched], runs: Path, scan: Path, brick: Any, tmp_path: Path
) -> None:
    viewer.open(scan, plugin="medcl")
    drawn = viewer.add_image(np.asarray(brick[0], np.float32), name="another one", units=["mm"] * 3)
    pairs = [Pair(layer.name, to_volume([layer])) for layer in (viewer.layers["scan"], drawn)]
    write_inputs(pairs, runs / "run" / "inputs", lambda _: None, lambda: False)
    watched = watch(PretrainConfig(folder=runs / "run" / "inputs", val=0, dims="3d", **SMALL))
    for case in ("scan", "another-one"):
        watched.choose(case)
        watched.show()
    assert names(viewer) == ["scan", "another one", "preview scan (run)", "preview another-one (run)"]
    oblique, straight = viewer.layers["preview scan (run)"], viewer.layers["preview another-one (run)"]
    for layer, over in ((oblique, viewer.layers["scan"]), (straight, drawn)):
        np.testing.assert_allclose(layer.translate - layer.scale / 2, over.translate - over.scale / 2, atol=1e-4)


def test_an_oblique_scan_lies_under_its_labels(
    viewer: Any, watch: Callable[..., Watched], tmp_path: Path, brick: Any
) -> None:
    for side, array in (("images", brick[0]), ("masks", brick[1])):
        (tmp_path / "data" / side).mkdir(parents=True)
        for number in range(2):
            save(tmp_path / "data" / side / f"b{number}.nii.gz", array)
    watched = watch(FinetuneConfig(folder=tmp_path / "data", dims="3d", **SMALL))
    watched.choose("b1")
    layer = watched.show()
    for attribute in ("scale", "translate"):
        np.testing.assert_array_equal(getattr(layer, attribute), getattr(viewer.layers["b1"], attribute))


def test_a_run_that_has_ended_shows_its_last_preview(viewer: Any, finetuning: Watched) -> None:
    finetuning.choose("case_0")
    finetuning.show()
    finetuning.choose(None)
    assert list(finetuning.events)[-1].kind == "finished"
    viewer.layers.clear()
    QApplication.processEvents()
    finetuning.written()
    finetuning.choose("case_1")
    finetuning.look()
    assert "does not go on" in finetuning.row.message.text()
    finetuning.choose("case_0")
    finetuning.look()
    assert names(viewer) == ["case_0", "preview case_0 (run)"]
    assert json.loads((finetuning.run.folder / "preview").read_text("utf-8")) == {"case": "case_0"}
