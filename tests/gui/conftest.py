"""The screen: without a Qt binding nothing here is collected; pytest-xvfb brings the display."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from napari_medcl.training.run import Run, create

try:
    import qtpy.QtWidgets  # noqa: F401
except ImportError:
    collect_ignore_glob = ["test_*.py"]
os.environ["NAPARI_STRICT_QT"] = "1"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

OBLIQUE = np.array([[-1.4, 0.1, 0.2, 12.0], [0.1, -1.3, 0.3, -8.0], [0.1, 0.2, 2.5, 30.0], [0, 0, 0, 1]])
"""Voxels of about 1.4 × 1.3 × 2.5 mm, turned by some degrees."""


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """`make_napari_viewer` collects garbage several times a test: not in what PyTorch and napari made when imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for runs and for what is cached."""
    monkeypatch.setenv("MEDCL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "runs"


@pytest.fixture
def brick() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A scan (x, y, z) with a bright ball in it, and the ball."""
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in (32, 30, 12)), indexing="ij")
    ball = ((x**2 + y**2) / 64 + z**2 / 16 < 1).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 20, ball.shape)
    return (100 + 200 * ball + noise).astype(np.int16), ball


@pytest.fixture
def scan(tmp_path: Path, brick: tuple[NDArray[np.int16], NDArray[np.uint8]]) -> Path:
    """A NIfTI file of the brick, oblique."""
    return save(tmp_path / "scan.nii.gz", brick[0])


@pytest.fixture
def mask(tmp_path: Path, brick: tuple[NDArray[np.int16], NDArray[np.uint8]]) -> Path:
    """A NIfTI file of the ball, on the scan's grid."""
    return save(tmp_path / "mask.nii.gz", brick[1])


def save(path: Path, array: NDArray[np.generic]) -> Path:
    """Writes an array as NIfTI, with other codes for qform and sform than any default."""
    image = nib.Nifti1Image(array, OBLIQUE)
    image.set_qform(OBLIQUE, code=1)
    image.set_sform(OBLIQUE, code=2)
    nib.save(image, path)
    return path


def same_geometry(first: Path, second: Path) -> bool:
    """Whether shape, affine, qform and sform and their codes are equal to the bit."""
    one, two = nib.load(first), nib.load(second)
    fields = ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "pixdim")
    return (
        one.shape[:3] == two.shape[:3]
        and np.array_equal(one.affine, two.affine)
        and all(np.array_equal(one.header[field], two.header[field]) for field in fields)
    )


def a_run(root: Path, name: str, stage: Any = "finetune", *events: Any, **config: Any) -> Run:
    """A run that said these events, and that nobody has in hand."""
    run = create(stage, {"folder": "/data/ACDC", **config}, root / name)
    run.answer()
    for event in events:
        run.append(event)
    return run


def answer(kind: type[Any], act: Callable[[Any], None]) -> Any:
    """Answers the next dialog of a kind, which otherwise nobody does; keep what it gives back until then."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    timer = QTimer()

    def look() -> None:
        if isinstance(dialog := QApplication.activeModalWidget(), kind):
            timer.stop()
            try:
                act(dialog)
            finally:
                dialog.close()

    timer.timeout.connect(look)
    timer.start(10)
    return timer


@pytest.fixture
def alive() -> Iterator[Callable[[Run], Run]]:
    """Lets runs go on: this process holds their locks."""
    with ExitStack() as locks:

        def hold(run: Run) -> Run:
            locks.enter_context(run.locked())
            return run

        yield hold


@pytest.fixture
def open_runs(viewer: Any, qtbot: Any) -> Callable[[], Any]:
    """Opens the dock Runs of the test's viewer and waits until it has looked."""

    def opened() -> Any:
        from tests.gui.listed import looked

        _, dock = viewer.window.add_plugin_dock_widget("medcl", "Runs")
        looked(dock, qtbot)
        return dock

    return opened
