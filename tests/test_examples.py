"""The examples run, and the README shows them as they are."""

from __future__ import annotations

import csv
import os
import runpy
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_readme_shows_it(path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"```python\n{path.read_text('utf-8')}```" in readme


def test_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six bright balls on noise, five of them with masks."""
    data, out = tmp_path / "data", tmp_path / "out"
    affine = np.diag([1.5, 1.0, 2.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    for number in range(6):
        scan, mask = _ball(np.random.default_rng(number))
        _write(data / "images" / f"ball{number}.nii.gz", scan, affine)
        if number < 5:
            _write(data / "labels" / f"ball{number}.nii.gz", mask, affine)
    runpy.run_path(str(ROOT / "examples" / "main_job.py"))["main"](data, out, minutes=0.05)
    assert "kind='finished'" in capsys.readouterr().out
    made = nib.load(out / "ball5.nii.gz")
    np.testing.assert_array_equal(made.affine, affine)
    assert made.shape == (16, 18, 20)
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["case"] for row in rows}) == 1, "a quarter of five patients"


SAYS = """#!/bin/bash
echo "$(basename "$0") $*" >> "$HERE/said"
"""
STUBS = {
    "srun": 'exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo first; echo second; fi',
    "torchrun": """
        mkdir -p "$HERE/run" && echo '{"kind":"stepped"}' >> "$HERE/run/events.jsonl"
        for _ in $(seq 600); do
            if [ -e "$HERE/run/pause" ]; then echo '{"kind":"paused"}' >> "$HERE/run/events.jsonl"; exit 0; fi
            if [ -e "$HERE/run/done" ]; then exit 3; fi
            sleep 0.05
        done""",
    "medcl": 'touch "$HERE/run/pause"',
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="Slurm starts shell scripts, and there is no shell here")
def test_a_job_that_runs_out_of_time_goes_on_in_its_next_turn(tmp_path: Path) -> None:
    """With commands that stand for those of Slurm, torch and MedCL, and say how they were called."""
    for name, does in STUBS.items():
        (tmp_path / name).write_text(SAYS + does)
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_NODELIST": "nodes[1-2]", "NNODES": "2", "GPUS_ON_NODE": "4", "CPUS_PER_TASK": "32", "JOB_ID": "20123"}
    there = {"HERE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = tmp_path / "run"

    def job() -> subprocess.Popen[bytes]:
        (tmp_path / "said").write_text("")
        started = subprocess.Popen(
            ["bash", ROOT / "examples" / "cluster.slurm", run, "pretrain", "data", "--steps", "9"],
            env={**os.environ, **there, **{f"SLURM_{name}": value for name, value in slurm.items()}},
        )
        last = time.monotonic() + 60
        while "torchrun" not in (tmp_path / "said").read_text() or not (run / "events.jsonl").exists():
            assert time.monotonic() < last
            time.sleep(0.05)
        return started

    first = job()
    first.send_signal(signal.SIGUSR1)
    assert first.wait(60) == 0
    said = (tmp_path / "said").read_text().splitlines()
    assert f"medcl runs pause {run}" in said
    assert said[-1] == "scontrol requeue 20123"
    (started,) = (line for line in said if line.startswith("torchrun"))
    assert started.endswith(f"-m -- napari_medcl pretrain data --steps 9 --run {run}")
    assert "--nnodes=2 --nproc-per-node=4" in started
    assert "--rdzv-endpoint=first:20123 --rdzv-id=20123" in started

    (run / "pause").unlink()
    (run / "done").touch()
    second = job()
    assert second.wait(60) == 3, "the job ends as the run does"
    said = (tmp_path / "said").read_text().splitlines()
    assert next(line for line in said if line.startswith("torchrun")).endswith(f"napari_medcl runs resume {run}")
    assert not any("requeue" in line for line in said)


def _ball(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    middle = np.array([8, 9, 10]) + random.uniform(-2, 2, 3)
    place = np.moveaxis(np.indices((16, 18, 20)), 0, -1)
    inside = np.linalg.norm(place - middle, axis=-1) < 5
    return (100 * inside + random.normal(0, 10, inside.shape)).astype(np.float32), inside.astype(np.uint8)


def _write(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
