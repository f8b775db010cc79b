from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_medcl.correction.training_set import TrainingSet
from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import read_labels
from napari_medcl.data.volume import IGNORE
from napari_medcl.gui import learning
from napari_medcl.gui.docks import masks_of
from napari_medcl.gui.learning import case_name
from napari_medcl.training.config import FinetuneConfig
from napari_medcl.training.dataset import Sides, write_sides
from napari_medcl.training.run import Run, create
from tests.gui.listed import DONE
from tests.gui.test_apply import model
from tests.gui.test_correct import LONG_MS, close_dock, names, opened, windowless
from tests.gui.test_keeping import paint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

CLASSES = ("background", "class 1", "class 2")
DIFFERENCE, PROPOSAL = "what the proposal changes", "scan proposal"


@pytest.fixture
def data(blobs: Callable[..., Path]) -> Path:
    return blobs(shape=(10, 9, 8))


@pytest.fixture
def run(runs: Path, data: Path) -> Run:
    """A run with a model, that learned from two cases, chose by one and was measured on one."""
    found = create("finetune", FinetuneConfig(folder=data, dims="2d", steps=5).to_json(), runs / "1-finetune")
    first, second, third, last = find_cases(data)
    write_sides(found, (first, second), Sides((first, second), (third,), (last,), ()))
    torch.manual_seed(0)
    model(found.folder / "checkpoints" / "best.safetensors", classes=CLASSES)
    return found


@pytest.fixture
def viewer(qtbot: QtBot) -> Iterator[Any]:
    yield from windowless()


@pytest.fixture
def dock(viewer: Any, scan: Path, mask: Path, run: Run, qtbot: QtBot) -> Any:
    return ready(opened(viewer, scan, mask), run, qtbot)


def ready(dock: Any, run: Run, qtbot: QtBot) -> Any:
    qtbot.waitUntil(lambda: dock.learn.model.value() == run.folder, timeout=LONG_MS)
    return dock


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that were started; nothing is."""
    started: list[Any] = []

    def start(stage: Any, config: Any, folder: Path) -> Run:
        started.append(create(stage, config, folder))
        return started[-1]

    monkeypatch.setattr(learning, "start", start)
    return started


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def add(dock: Any, qtbot: QtBot) -> str:
    """Presses the button, and gives what the tab says when all is over."""
    dock.learn.add.click()
    qtbot.waitUntil(lambda: not dock.learn._add.running, timeout=LONG_MS)
    return str(dock.learn.message.text())


def improve(dock: Any, qtbot: QtBot) -> str:
    dock.learn.improve.click()
    qtbot.waitUntil(lambda: not dock.learn._begin.running, timeout=LONG_MS)
    return str(dock.learn.message.text())


def propose(dock: Any, path: Path, qtbot: QtBot) -> str:
    dock.learn.look_at(path)
    qtbot.waitUntil(lambda: not dock.learn._look.running, timeout=LONG_MS)
    return str(dock.learn.message.text())


def test_what_was_reviewed_teaches(viewer: Any, dock: Any, data: Path, runs: Path, qtbot: QtBot) -> None:
    tab, before = dock.learn, content(data)
    folder = runs.parent / "training-sets" / "blobs"
    assert (tab.folder.value(), tab.name.value()) == (folder, "scan")
    assert "No slice is marked as reviewed" in add(dock, qtbot)
    assert find_cases(folder).labelled, "those of the run"
    dock.keeper.review(0, 6, done=True)
    paint(viewer.layers["mask"], 6, 0, 0)
    assert add(dock, qtbot) == "scan is in the training set."
    (case,) = TrainingSet(folder).cases().select(["scan"])
    assert case.labels is not None
    expected = np.full(viewer.layers["mask"].data.shape, IGNORE)
    expected[6] = viewer.layers["mask"].data[6]
    assert np.array_equal(read_labels(case.labels).array, expected)
    assert all(path.is_symlink() for path in (folder / "labelsTr").glob("case_*"))
    assert content(data) == before
    tab.everything.setValue(True)
    add(dock, qtbot)
    assert np.array_equal(read_labels(case.labels).array, viewer.layers["mask"].data)
    assert len(list((folder / "labelsTr" / ".medcl-backups").iterdir())) == 1


def test_what_must_not_teach_is_refused(viewer: Any, dock: Any, run: Run, tmp_path: Path, qtbot: QtBot) -> None:
    tab = dock.learn
    tab.everything.setValue(True)
    for name, words in (("case_2", "chooses the model"), ("case_3", "judges the model"), ("a b", "cannot be the name")):
        tab.name.setValue(name)
        assert words in add(dock, qtbot)
    tab.name.setValue("scan")
    paint(viewer.layers["mask"], 6, 15, 16, label=7)
    assert "label 7, which the model does not know" in add(dock, qtbot)
    dock.scan.setValue(viewer.add_image(np.zeros((2, 3, 4)), name="other"))
    assert "does not lie on the voxels of “other”" in add(dock, qtbot)
    tab.folder.setValue(None)
    assert "Choose a folder" in add(dock, qtbot)
    tab.model.setValue(run.folder / "checkpoints" / "best.safetensors")
    assert "Choose a fine-tuning run" in add(dock, qtbot)
    assert not list(tmp_path.rglob("scan.nii.gz*"))[1:], "nothing was added"


def test_the_model_learns_on_from_all_cases(
    viewer: Any, dock: Any, run: Run, runs: Path, begun: list[Run], qtbot: QtBot
) -> None:
    tab = dock.learn
    assert "is no training set yet" in improve(dock, qtbot)
    tab.everything.setValue(True)
    add(dock, qtbot)
    tab.minutes.setValue(2.5)
    with qtbot.waitSignal(tab.started, timeout=LONG_MS) as started:
        tab.improve.click()
    (new,) = begun
    assert started.args == [new]
    made = TrainingSet(tab.folder.value())
    config = FinetuneConfig.model_validate({name: value for name, value in new.config.items() if name != "stage"})
    assert config == FinetuneConfig(folder=made.folder, split=made.split, start=run.folder, dims="2d", minutes=2.5)
    assert new.stage == "finetune"
    assert new.folder.parent == runs
    assert new.name.endswith("-finetune-blobs-improved")
    assert f"{new.name} learns on" in tab.message.text()


def test_a_run_that_has_ended_makes_a_proposal(
    make_napari_viewer: Any, scan: Path, mask: Path, run: Run, begun: list[Run], qtbot: QtBot
) -> None:
    viewer = make_napari_viewer(show=True)
    dock = ready(opened(viewer, scan, mask), run, qtbot)
    dock.tabs.setCurrentWidget(dock.learn)
    dock.learn.everything.setValue(True)
    add(dock, qtbot)
    improve(dock, qtbot)
    (new,) = begun
    assert not dock.learn.accept.isEnabled()
    model(new.folder / "checkpoints" / "best.safetensors", classes=CLASSES)
    new.answer()
    new.append(DONE)
    qtbot.waitUntil(lambda: PROPOSAL in viewer.layers, timeout=LONG_MS)
    assert dock.learn._run is None
    assert dock.learn.accept.isEnabled()


def test_a_run_that_failed_is_said(dock: Any, runs: Path) -> None:
    failed = create("finetune", {"folder": "x"}, runs / "2")
    dock.learn._run = failed
    dock.learn._take("running")
    assert dock.learn._run is failed
    dock.learn._take("failed")
    assert "2 ended without a model" in dock.learn.message.text()


def test_an_accepted_proposal_is_one_step_and_spares_reviewed_slices(
    viewer: Any, dock: Any, run: Run, qtbot: QtBot
) -> None:
    mask, tab = viewer.layers["mask"], dock.learn
    dock.keeper.review(0, 6, done=True)
    before = mask.data.copy()
    said = propose(dock, run.folder, qtbot)
    proposal, difference = viewer.layers[PROPOSAL], viewer.layers[DIFFERENCE]
    assert names(viewer) == ["scan", "mask", PROPOSAL, DIFFERENCE]
    assert masks_of(viewer) == [mask]
    assert viewer.layers.selection.active is mask
    assert not proposal.visible
    assert np.array_equal(difference.data > 0, proposal.data != before)
    assert np.any(proposal.data != before)
    assert np.allclose(difference.data_to_world((3, 4, 5)), mask.data_to_world((3, 4, 5)))
    assert said.startswith("The new model would change: ")
    assert np.array_equal(mask.data, before)
    expected = proposal.data.astype(mask.data.dtype)
    expected[6] = before[6]
    tab.accept.click()
    assert np.array_equal(mask.data, expected)
    assert names(viewer) == ["scan", "mask"]
    assert not tab.accept.isEnabled()
    assert f"{np.count_nonzero(expected != before)} voxels have changed" in tab.message.text()
    mask.undo()
    assert np.array_equal(mask.data, before)


def test_a_rejected_proposal_leaves_the_mask_as_it_is(viewer: Any, dock: Any, run: Run, qtbot: QtBot) -> None:
    mask, tab = viewer.layers["mask"], dock.learn
    before = mask.data.copy()
    for withdraw in (tab.reject.click, lambda: dock.mask.setValue(None)):
        dock.mask.setValue(mask)
        propose(dock, run.folder, qtbot)
        assert tab.reject.isEnabled()
        withdraw()
        assert names(viewer) == ["scan", "mask"]
        assert not tab.accept.isEnabled()
    dock.mask.setValue(mask)
    propose(dock, run.folder, qtbot)
    close_dock(viewer, dock)
    assert names(viewer) == ["scan", "mask"]
    assert np.array_equal(mask.data, before)
    assert not mask._undo_history


def test_what_a_case_is_called(viewer: Any, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    viewer.open(scan, plugin="medcl")
    viewer.open(scan.rename(tmp_path / "imagesTr" / "patient_0000.nii.gz"), plugin="medcl")
    drawn = viewer.add_image(np.zeros((4, 5)), name="A scan, odd")
    assert [case_name(layer) for layer in viewer.layers] == ["scan", "patient", "A-scan-odd"]
    assert case_name(drawn) == "A-scan-odd"
