from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.errors import Stopped
from napari_medcl.gui import apply as dock_module
from napari_medcl.gui.writer import suggested
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet
from napari_medcl.training.events import Evaluated
from napari_medcl.training.run import create
from tests.gui.conftest import same_geometry, save

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

LONG_MS = 60_000


def model(
    path: Path,
    channels: int = 1,
    classes: tuple[str, ...] = ("background", "liver", "spleen"),
    uafs: tuple[str, ...] = (),
) -> Path:
    spec = NetworkSpec(in_channels=channels, classes=max(2, len(classes)), spatial_dims=2, width=2, depth=2, uafs=uafs)
    plan = Plan(
        channels=channels,
        spatial_dims=2,
        spacing=(None, 1.5, 1.5),
        patch=(16, 16),
        intensities=(Intensity(scheme="scan"),) * channels,
    )
    kind = "finetune" if classes else "pretrain"
    return Checkpoint(spec, UNet(spec).state_dict(), plan, dict(enumerate(classes)), kind).save(path)  # type: ignore[arg-type]


@pytest.fixture
def run(runs: Path) -> Path:
    """A fine-tuning run with a checkpoint."""
    run = create("finetune", {"folder": "x"}, runs / "1-finetune")
    run.append(Evaluated(step=5, dice={"liver": 0.75}, mean=0.75, best=True))
    model(run.folder / "checkpoints" / "best.safetensors")
    return run.folder


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture
def dock(viewer: Any, scan: Path, run: Path) -> Any:
    viewer.open(scan, plugin="medcl")
    return viewer.window.add_plugin_dock_widget("medcl", "Apply")[1]


def press(dock: Any, qtbot: QtBot) -> str:
    """Presses the button and gives what the dock says when all is over."""
    dock.run.click()
    qtbot.waitUntil(lambda: not dock._task.running, timeout=LONG_MS)
    return str(dock.message.text())


def look(dock: Any, qtbot: QtBot, path: Path) -> None:
    """Chooses a model and waits until the dock knows what it is."""
    dock.use(path)
    qtbot.waitUntil(lambda: not dock._look.running, timeout=LONG_MS)


def press_show(dock: Any, qtbot: QtBot) -> str:
    """Presses the button of the UAFS blocks and gives what the dock says when all is over."""
    dock.blocks.show_maps.click()
    qtbot.waitUntil(lambda: not dock._inside.running, timeout=LONG_MS)
    return str(dock.message.text())


def test_newest_run_is_chosen_and_described(dock: Any, run: Path, qtbot: QtBot) -> None:
    assert dock.model.value() == run
    qtbot.waitUntil(lambda: not dock._look.running, timeout=LONG_MS)
    text = dock.about.text()
    for part in ("Finds liver, spleen. Fine-tuned. 2D, 1 channel", "any × 1.5 × 1.5 mm", "0.750"):
        assert part in text


def test_what_is_found_lies_over_the_scan(viewer: Any, dock: Any, qtbot: QtBot) -> None:
    dock.uncertainty.setValue(True)
    dock.probabilities.setValue(True)
    assert "“scan mask”" in press(dock, qtbot)
    scan = viewer.layers["scan"]
    names = ["scan background", "scan liver", "scan spleen", "scan uncertainty", "scan mask"]
    for name in names:
        assert viewer.layers[name].data.shape == scan.data.shape
        assert np.array_equal(viewer.layers[name].translate, scan.translate)
    total = sum(viewer.layers[name].data for name in names[:3])
    assert np.allclose(total, 1, atol=1e-4)
    assert "spleen" in str(viewer.layers["scan mask"].features)
    assert dock.scan.count() == 1, "a map is no scan"


def test_what_blocks_are_unsure_of_lies_over_the_scan(viewer: Any, dock: Any, tmp_path: Path, qtbot: QtBot) -> None:
    look(dock, qtbot, model(tmp_path / "model.safetensors", uafs=("bottleneck", "dec1")))
    scan = viewer.layers["scan"]
    names = ["scan UAFS bottleneck", "scan UAFS dec1"]
    for axis, index in ((0, 2), (1, 4)):
        viewer.dims.order = (axis, *({0, 1, 2} - {axis}))
        viewer.dims.set_current_step(axis, index)
        assert "behind bottleneck, dec1" in press_show(dock, qtbot)
        for name in names:
            layer = viewer.layers[name]
            assert layer.data.shape == tuple(1 if a == axis else n for a, n in enumerate(scan.data.shape))
            expected = scan.translate + np.eye(3)[axis] * index * scan.scale
            assert np.allclose(layer.translate, expected)
            assert np.ptp(layer.data) > 0
    dock.blocks.extent.setValue(False)
    press_show(dock, qtbot)
    assert [layer.name for layer in viewer.layers] == ["scan", *names]
    for name in names:
        assert viewer.layers[name].data.shape == scan.data.shape
        assert np.array_equal(viewer.layers[name].translate, scan.translate)
    assert [viewer.layers[name].visible for name in names] == [False, True]
    assert dock.scan.count() == 1, "a map is no scan"
    look(dock, qtbot, model(tmp_path / "other.safetensors", uafs=("dec1",)))
    press_show(dock, qtbot)
    assert [layer.name for layer in viewer.layers] == ["scan", "scan UAFS dec1"]


def test_a_model_without_blocks_offers_none(dock: Any, tmp_path: Path, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not dock._look.running, timeout=LONG_MS)
    assert not dock.blocks.isEnabled()
    assert "has no UAFS blocks" in dock.blocks.toolTip()
    look(dock, qtbot, model(tmp_path / "model.safetensors", uafs=("dec1",)))
    assert dock.blocks.isEnabled()
    assert "Behind dec1" in dock.blocks.toolTip()
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    look(dock, qtbot, tmp_path / "broken.safetensors")
    assert not dock.blocks.isEnabled()


def test_blocks_of_a_slice_that_is_not_in_view(viewer: Any, dock: Any, tmp_path: Path, qtbot: QtBot) -> None:
    look(dock, qtbot, model(tmp_path / "model.safetensors", uafs=("dec1",)))
    viewer.dims.ndisplay = 3
    assert "in 3D" in press_show(dock, qtbot)
    dock.blocks.extent.setValue(False)
    press_show(dock, qtbot)
    assert "scan UAFS dec1" in viewer.layers


def test_mask_is_saved_beside_the_scan(dock: Any, scan: Path, qtbot: QtBot) -> None:
    assert not dock.save.isEnabled()
    press(dock, qtbot)
    assert suggested(dock._mask) == scan.parent / "scan_mask.nii.gz"
    dock.save_to(suggested(dock._mask))
    assert "Saved as" in dock.message.text()
    assert same_geometry(scan, scan.parent / "scan_mask.nii.gz")
    dock.save_to(scan.parent / "nowhere" / "mask.nii.gz")
    assert "nowhere" in dock.message.text()
    dock.viewer.layers.remove("scan mask")
    dock.save.click()
    assert "removed" in dock.message.text()


def test_mask_is_not_put_among_scans(viewer: Any, dock: Any, scan: Path, qtbot: QtBot) -> None:
    folder = scan.parent / "data" / "imagesTr"
    folder.mkdir(parents=True)
    viewer.open(scan.rename(folder / "case.nii.gz"), plugin="medcl")
    dock.scan.setValue(viewer.layers["case"])
    press(dock, qtbot)
    assert suggested(dock._mask) == scan.parent / "data" / "case_mask.nii.gz"


def test_channels_of_the_file_come_along(viewer: Any, dock: Any, tmp_path: Path, qtbot: QtBot) -> None:
    path = save(tmp_path / "two.nii.gz", np.random.default_rng(0).random((18, 16, 3, 2), np.float32))
    viewer.open(path, plugin="medcl")
    dock.use(model(tmp_path / "model.safetensors", channels=2))
    dock.scan.setValue(viewer.layers["two [1]"])
    press(dock, qtbot)
    assert viewer.layers["two [1] mask"].data.shape == (3, 16, 18)
    dock.scan.setValue(viewer.layers["scan"])
    said = press(dock, qtbot)
    assert "1 channel" in said
    assert "2" in said


def test_picture(viewer: Any, dock: Any, tmp_path: Path, qtbot: QtBot) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    photo = viewer.add_image(colours, rgb=True, name="photo")
    look(dock, qtbot, model(tmp_path / "model.safetensors", channels=3, uafs=("dec2",)))
    dock.scan.setValue(photo)
    press(dock, qtbot)
    assert viewer.layers["photo mask"].data.shape == (20, 30)
    press_show(dock, qtbot)
    assert viewer.layers["photo UAFS dec2"].data.shape == (20, 30)


@pytest.mark.parametrize("broken", [b"", b"no model at all"])
def test_file_that_is_no_model_is_said(dock: Any, tmp_path: Path, qtbot: QtBot, broken: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(broken)
    dock.use(path)
    qtbot.waitUntil(lambda: not dock._look.running, timeout=LONG_MS)
    assert str(path) in dock.about.text()
    assert str(path) in press(dock, qtbot)
    assert dock.run.isEnabled()


def test_model_that_was_only_pretrained_is_said(dock: Any, tmp_path: Path, qtbot: QtBot) -> None:
    dock.use(model(tmp_path / "model.safetensors", classes=()))
    assert "Fine-tune it" in press(dock, qtbot)


def test_without_a_model_or_scan_it_says_what_to_do(viewer: Any, qtbot: QtBot, tmp_path: Path) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Apply")
    assert "Choose a model" in press(dock, qtbot)
    dock.use(model(tmp_path / "model.safetensors"))
    assert "no scan open" in press(dock, qtbot)


def test_stop(viewer: Any, dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()

    def endless(*_: Any, progress: Any, stop: Any, **__: Any) -> None:
        progress(0.5)
        while not stop():
            pass
        left.set()
        raise Stopped

    monkeypatch.setattr(dock_module, "predict", endless)
    dock.run.click()
    qtbot.waitUntil(lambda: dock.progress._bar.value() == 500)
    assert not dock.run.isEnabled()
    dock.progress._stop.click()
    qtbot.waitUntil(left.is_set)
    assert dock.run.isEnabled()
    assert [layer.name for layer in viewer.layers] == ["scan"]


def test_device_that_is_not_there_is_said(dock: Any, qtbot: QtBot) -> None:
    torch = pytest.importorskip("torch")
    if torch.backends.mps.is_available():
        pytest.skip("this machine has what the test asks for in vain")
    dock.device.setValue("mps")
    assert "no MPS device" in press(dock, qtbot)
