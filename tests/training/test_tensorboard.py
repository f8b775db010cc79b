"""What TensorBoard reads of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training import check
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Stepped
from napari_medcl.training.finetune import finetune
from napari_medcl.training.metrics import numbers
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL: dict[str, Any] = {"dims": "2d", "width": 4, "batch": 4, "steps": 8, "precision": "float32", "device": "cpu"}
READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1]).Reload()
tags = found.Tags()
scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags["scalars"]}
texts = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("settings/text_summary")]
print(json.dumps([scalars, texts]))
"""


def read(run: Run) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
    """What TensorBoard's own reader makes of a run folder."""
    done = subprocess.run([sys.executable, "-c", READ, run.folder / "tensorboard"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scalars, texts = json.loads(done.stdout)
    return {tag: [tuple(point) for point in points] for tag, points in scalars.items()}, texts


def said(run: Run) -> dict[str, dict[int, float]]:
    """The numbers of the events; of what was said of a step twice, the last."""
    found: dict[str, dict[int, float]] = {}
    for event in run.events()[0]:
        for name, value in numbers(event).items():
            found.setdefault(name, {})[event.step] = value
    return found


def test_all_numbers_are_there_once_also_after_a_resume(blobs: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    run = Run(tmp_path / "run")
    for event in finetune(FinetuneConfig(folder=blobs(), evaluations=4, tensorboard=True, **SMALL), run.folder):
        if isinstance(event, Stepped) and event.step == 3:
            run.ask("pause")
    state = {path: path.read_bytes() for path in (run.folder / "checkpoints").iterdir()}
    for event in (paused := resume(run.folder)):
        if isinstance(event, Stepped) and event.step == 6:
            paused.close()  # type: ignore[attr-defined]
    for path, data in state.items():
        path.write_bytes(data)
    list(resume(run.folder))
    scalars, texts = read(run)
    expected = said(run)
    assert set(scalars) == {"rate", "loss/dice", "loss/cross-entropy", "dice", "dice/class 1", "dice/class 2"}
    for name, points in scalars.items():
        assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected[name].items()], name
    assert [step for step, _ in scalars["dice"]] == [2, 4, 6, 8]
    assert '    "tensorboard": true' in texts[-1]


def test_nobody_who_does_not_ask_for_it_loads_it(blobs: Callable[..., Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from napari_medcl import PretrainConfig, pretrain\n"
        f"config = PretrainConfig(folder=Path({str(blobs())!r}), **{ ({**SMALL, 'steps': 1})!r})\n"
        f"list(pretrain(config, Path({str(tmp_path / 'run')!r})))\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.partition("LOADED")[2].split()
    assert "napari_medcl.training.tensorboard" in loaded
    assert not {"tensorboard", "torch.utils.tensorboard", "google.protobuf"} & set(loaded)
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.parametrize("config", [PretrainConfig, FinetuneConfig])
def test_without_the_package_it_is_refused_before_a_folder_is_made(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "medcl\[tensorboard\]"'):
        check.check(config(folder=tmp_path, tensorboard=True))
    check.check(config(folder=tmp_path))


def test_a_folder_that_cannot_be_made_ends_the_run_with_a_word(blobs: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").touch()
    with pytest.raises(UserError, match="tensorboard"):
        list(pretrain(PretrainConfig(folder=blobs(), tensorboard=True, **SMALL), tmp_path / "run"))
    assert Run(tmp_path / "run").state == "failed"
