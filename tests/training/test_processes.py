"""One run in several processes, started by torchrun: what one process computes, and one that speaks for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.training.events import Evaluated, Failed, Finished, Paused, Resumed, Started, Stepped
from napari_medcl.training.run import Run
from tests.blobs import write_blobs
from tests.training.together import WHOLE, begin, configs

if TYPE_CHECKING:
    from napari_medcl.training.events import Event

_PATIENCE_S = 120
_TOLERANCE = 1e-4
"""Relative, of losses in single precision. Seen: 1e-6 in the first two steps, 3e-5 in the sixth."""
_COMPARED = ("supercl", "jcl", "pdcr", "plain", "patches")
_MORE = ("paused", "stopped", "timed", "without_gathering", "without_norms", "layers", "broken")


class Torchrun:
    """A command in two processes."""

    def __init__(self, cache: Path, *command: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
            + [str(word) for word in command],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def terminate(self, run: Run) -> None:
        """Sends TERM to all processes, as Slurm does; the one that leads gets it from torchrun once more."""
        os.kill(json.loads((run.folder / "owner.json").read_text("utf-8"))["process"], signal.SIGTERM)
        self._process.terminate()

    def end(self) -> tuple[int, str]:
        """The exit code, and what was printed. One that hangs is ended: torchrun kills its processes after 30 s."""
        try:
            printed, _ = self._process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            printed, _ = self._process.communicate(timeout=60)
            pytest.fail(f"The processes hang. They printed:\n{printed}")
        return self._process.returncode, printed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data") / "blobs")


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that two processes made."""
    folder = tmp_path_factory.mktemp("together")
    code, printed = Torchrun(folder / "cache", "tests.training.together", data, folder, *_COMPARED, *_MORE).end()
    assert code == 0, printed
    (folder / "printed.txt").write_text(printed, "utf-8")
    return folder


def told(events: list[Event]) -> list[str]:
    """What was said, but for what depends on the time."""
    return [event.kind for event in events if event.kind not in ("preparing", "saved")]


def losses(events: list[Event]) -> dict[tuple[int, str], float]:
    """By step and term."""
    return {(one.step, term): loss for one in events if isinstance(one, Stepped) for term, loss in one.terms.items()}


def difference(events: list[Event], others: list[Event]) -> float:
    """The largest between the losses of two runs, relative."""
    one, other = losses(events), losses(others)
    assert one.keys() == other.keys()
    assert len(one) >= 6
    return max(abs(one[key] - other[key]) / abs(one[key]) for key in one)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return Checkpoint.load(run / "checkpoints" / "last.safetensors").weights


@pytest.mark.parametrize("name", _COMPARED)
def test_two_processes_learn_as_one_does_from_both_their_batches(
    name: str, data: Path, together: Path, tmp_path: Path
) -> None:
    alone = list(begin(configs(data, WHOLE)[name], tmp_path / "alone"))
    run = Run(together / name)
    shared = run.events()[0]
    assert told(shared) == told(alone), "only one process writes"
    assert difference(alone, shared) < _TOLERANCE
    measured = ([event for event in events if isinstance(event, Evaluated)] for events in (alone, shared))
    for one, other in zip(*measured, strict=True):
        assert other.dice == pytest.approx(one.dice, abs=5e-3)
    if run.stage == "pretrain":  # AdamW makes steps of rounding errors, where a gradient should be 0
        torch.testing.assert_close(weights(run.folder), weights(tmp_path / "alone"), rtol=1e-3, atol=1e-4)
    assert "in 2 processes" in next(event.message for event in shared if isinstance(event, Started))
    assert json.loads((run.folder / "environment.json").read_text("utf-8"))["processes"] == 2
    assert run.state == "finished"


@pytest.mark.parametrize(("broken", "whole"), [("without_gathering", "supercl"), ("without_norms", "jcl")])
def test_the_comparison_notices_what_is_not_shared(broken: str, whole: str, together: Path) -> None:
    events = [Run(together / name).events()[0] for name in (broken, whole)]
    assert difference(*events) > 100 * _TOLERANCE


def test_layers_see_the_batch_of_all_processes(together: Path) -> None:
    assert (together / "layers").is_dir(), "made when all comparisons held"


def test_a_pause_changes_nothing(together: Path) -> None:
    events, whole = (Run(together / name).events()[0] for name in ("paused", "patches"))
    assert next(event.step for event in events if isinstance(event, Paused)) == 3
    assert next(event.step for event in events if isinstance(event, Resumed)) == 3
    assert losses(events) == losses(whole)
    assert all(
        torch.equal(one, weights(together / "patches")[name]) for name, one in weights(together / "paused").items()
    )


def test_a_stop_leaves_a_model_that_was_measured(together: Path) -> None:
    run = Run(together / "stopped")
    events = run.events()[0]
    assert run.state == "stopped"
    assert events[-1].step == 4  # type: ignore[union-attr]
    assert [event.step for event in events if isinstance(event, Evaluated)] == [3, 4]
    assert run.checkpoint is not None


def test_the_clock_of_one_process_ends_all(together: Path) -> None:
    run = Run(together / "timed")
    events = run.events()[0]
    assert run.state == "finished"
    assert any(isinstance(event, Evaluated) for event in events)
    assert isinstance(events[-1], Finished)


@pytest.mark.slow
def test_the_signal_of_a_cluster_pauses_a_run_that_goes_on_later(data: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    written = tmp_path / "config.json"
    written.write_text(configs(data, 2)["jcl"].model_copy(update={"steps": 20}).model_dump_json())
    first = Torchrun(tmp_path, "napari_medcl", "pretrain", "--config", written, "--run", run.folder)
    last = time.monotonic() + _PATIENCE_S
    while not any(isinstance(event, Stepped) for event in run.events()[0]) and time.monotonic() < last:
        time.sleep(0.05)
    first.terminate(run)
    _, printed = first.end()
    assert run.state == "paused", printed
    assert printed.count("Pauses after this step") == 1
    assert printed.count(f"To go on: medcl runs resume {run.folder}") == 1

    code, printed = Torchrun(tmp_path, "napari_medcl", "runs", "resume", run.folder).end()
    assert code == 0, printed
    assert run.state == "finished"
    assert printed.count(f"Model: {run.checkpoint}") == 1
    steps = [event.step for event in run.events()[0] if isinstance(event, Stepped)]
    assert steps == list(range(1, 21))


def test_what_is_wrong_for_one_process_is_said_once(together: Path) -> None:
    failed = Run(together / "broken").last_event()
    assert isinstance(failed, Failed)
    assert json.loads((together / "plain" / "split.json").read_text("utf-8"))["val"][1] in failed.message
    printed = (together / "printed.txt").read_text("utf-8")
    assert printed.count("Error:") == 1, printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_a_process_without_memory_ends_all_with_its_reason(data: Path, tmp_path: Path) -> None:
    code, printed = Torchrun(tmp_path, "tests.training.together", data, tmp_path, "disagreeing").end()
    assert code != 0
    assert printed.count("\nError: ") == 1, printed
    failed = Run(tmp_path / "disagreeing").last_event()
    assert isinstance(failed, Failed)
    assert "smaller batch" in failed.message
