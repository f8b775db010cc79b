"""Runs that are killed at random instants, and go on as if nothing had been.

Both tests are slow, one kills a few runs and one a hundred: `pytest -m slow tests/training/test_kills.py`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Finished, Preparing, Resumed, Stepped, read_event
from napari_medcl.training.run import Run, create
from tests.training.runs import SMALL, numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medcl.training.events import Event

_OFTEN = Path(__file__).with_name("often.py")
_AT_A_TIME = 2
_MOST_KILLS = 3
_STEPS = 40
_START = 0.3
"""Share of the kills that come while a process starts."""
_LATER_S = 0.1
"""So long after an event the others come at most."""
_PHASES = ("start-up", "preparing", "training", "writing", "over")


@dataclass
class Kind:
    """A short run, and how it ends when nobody kills it."""

    config: PretrainConfig | FinetuneConfig
    folder: Path
    start_s: float = 0.0
    numbers: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def stage(self) -> Any:
        return "pretrain" if isinstance(self.config, PretrainConfig) else "finetune"


def start(run: Run, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(_OFTEN), *words, "--now"]
    with (run.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def begin(kind: Kind, folder: Path) -> tuple[Run, subprocess.Popen[bytes]]:
    run = create(kind.stage, kind.config.to_json(), folder)
    return run, start(run, kind.stage, "--config", str(folder / "config.json"), "--run", str(folder))


def measure(kind: Kind) -> None:
    """Lets one run go on undisturbed."""
    began = time.time()
    run, process = begin(kind, kind.folder)
    assert process.wait() == 0, run.log_tail()
    events, _ = run.events()
    kind.start_s, kind.numbers = events[0].time - began, numbers(events)


def kill(kind: Kind, run: Run, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Kills it while it starts, or soon after it has made a step, unless it is over before."""
    if chance.random() < _START:
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, kind.start_s))
    else:
        done, offset = step(run.events()[0]), (run.folder / "events.jsonl").stat().st_size if run.last_event() else 0
        wanted = chance.randint(done, _STEPS)
        while process.poll() is None:
            said, _ = run.events(offset)
            if said and max(done, step(said)) >= wanted:
                break
            time.sleep(0.003)
        time.sleep(chance.uniform(0, _LATER_S))
    process.kill()
    process.wait()


def step(events: list[Event]) -> int:
    return max((event.step for event in events if isinstance(event, Stepped)), default=0)


def phase(run: Run, process: subprocess.Popen[bytes], before: int) -> str:
    """In what the kill found the run, which had said so many events when its process started."""
    events = run.events()[0][before:]
    if process.returncode == 0 or (events and isinstance(events[-1], Finished)):
        return "over"
    if not events:
        return "start-up"
    if isinstance(events[-1], Preparing | Resumed):
        return "preparing"
    return "writing" if [*run.folder.rglob(".part-*")] else "training"


def look(run: Run) -> None:
    """Everything in the folder of a killed run can be read, and nobody takes it for alive."""
    assert run.config["width"] == SMALL["width"]
    assert not run.is_alive()
    assert run.state in ("starting", "dead", "finished")
    assert (run.state == "starting") == ((run.folder / "called").exists())
    events = run.folder / "events.jsonl"
    for line in events.read_bytes().split(b"\n")[:-1] if events.exists() else []:
        read_event(line)
    for path in run.checkpoints.glob("[!.]*.safetensors"):
        if path.name.startswith("state-"):
            assert f"{zlib.crc32(path.read_bytes()):08x}" in path.name
        else:
            Checkpoint.load(path)
    for path in run.folder.glob("*.json"):
        json.loads(path.read_text())


def survive(kind: Kind, folder: Path, seed: int) -> list[str]:
    """Kills a run at random instants, once or more often, lets it go on to its end, and compares."""
    chance = random.Random(seed)
    found: list[str] = []
    run, process = begin(kind, folder)
    for _ in range(chance.choice(range(1, _MOST_KILLS + 1))):
        before = len(run.events()[0])
        kill(kind, run, process, chance)
        look(run)
        found.append(phase(run, process, before))
        if run.state == "finished":
            break
        process = start(run, "runs", "resume", str(folder))
    if run.state != "finished":
        assert process.wait() == 0, run.log_tail()
    assert run.state == "finished"
    assert numbers(run.events()[0]) == kind.numbers
    for name in {path.name for path in (kind.folder / "checkpoints").glob("*t.safetensors")}:
        one, other = (Checkpoint.load(at / "checkpoints" / name).weights for at in (folder, kind.folder))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not [*run.checkpoints.glob(".part-*")]
    return found


@pytest.mark.parametrize(
    "runs",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
    ids=["few", "many"],
)
def test_a_run_that_is_killed_at_any_instant_ends_as_if_it_had_not_been(
    runs: int, blobs: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = blobs()
    settings = {**SMALL, "steps": _STEPS, "dims": "2d", "folder": data}
    kinds = [
        Kind(FinetuneConfig(val=0.25, evaluations=4, **settings), tmp_path / "fine-tuned"),
        Kind(PretrainConfig(**settings), tmp_path / "pre-trained"),
    ]
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        list(threads.map(measure, kinds))
        each = [(kinds[seed % 2], tmp_path / f"run-{seed}", seed) for seed in range(runs)]
        found = list(threads.map(lambda given: survive(*given), each))
    counts = Counter(what for kills in found for what in kills)
    with capsys.disabled():
        told = ", ".join(f"{counts[name]} {name}" for name in _PHASES)
        print(f"\n{runs} runs killed {sum(counts.values())} times ({told}); all ended alike")  # noqa: T201
    assert len(found) == runs
