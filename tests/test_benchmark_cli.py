"""The command `medcl benchmark`, as somebody types it."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.commands import alone, begin, medcl, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = ("--width", 4, "--patch", "16,16", "--dims", "2d", "--device", "cpu", "--test", 0.3, "--pretrain-steps", 3)


def test_a_benchmark_is_made_shown_and_not_made_again(blobs: Callable[..., Path], tmp_path: Path) -> None:
    data, out, plan = blobs(scans=6, masks=6), tmp_path / "out", tmp_path / "plan.json"
    own = {"starts": {"small": {"batch": 4, "method": {"name": "jcl"}}}, "finetune": {"mirror": True}}
    plan.write_text(json.dumps({**own, "pretrain": {"rate": 0.5}, "steps": 9}))
    words = ("benchmark", data, "--out", out, "--config", plan, *SMALL, "--steps", 3, "--labelled", "1,all")
    words = (*words, "--methods", "scratch,small+uafs", "--seeds", "0")
    told = alone(*words)
    assert "1 of 5: pretrain_small" in told
    assert "5 of 5: small+uafs_3_seed0" in told
    assert "3 gradient steps of fine-tuning in every run" in told
    for name in ("table.md", "patients.csv", "dice.png"):
        assert (out / name).stat().st_size > 0
        assert str(out / name) in told
    tuned = json.loads((out / "runs" / "small+uafs_1_seed0" / "config.json").read_text())
    assert (tuned["uafs"], tuned["mirror"], tuned["steps"]) == (True, True, 3)
    assert json.loads((out / "runs" / "pretrain_small" / "config.json").read_text())["rate"] == 0.5
    again = medcl(*words)
    assert "of 5:" not in again
    assert "small+uafs" in again


@pytest.mark.skipif(sys.platform == "win32", reason="there is no way to send Ctrl+C to one process")
def test_an_interruption_pauses_and_the_same_command_goes_on(blobs: Callable[..., Path], tmp_path: Path) -> None:
    data, out = blobs(scans=6, masks=6), tmp_path / "out"
    words = ("benchmark", data, "--out", out, *SMALL, "--methods", "scratch", "--labelled", 1, "--seeds", 0)
    process = begin(*words, "--steps", 80)
    events = out / "runs" / "scratch_1_seed0" / "events.jsonl"
    until(lambda: events.exists() and "stepped" in events.read_text(), process)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=100)[0]
    assert process.returncode == 0, told
    assert "1 of 1 runs are left. The same command goes on with them." in told
    assert "Goes on after step" in medcl(*words, "--steps", 80)
    assert (out / "table.md").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--methods", "magic"), "There is no pre-training “magic” to compare."),
        (("--labelled", "9"), "9 labelled patients were asked for; the training side has 3."),
        (("--labelled", "few"), "--labelled"),
        (("--seeds", "0,0"), "--seeds: something stands there twice: name each once."),
        (("--split", "nowhere.json"), "nowhere.json"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    words: tuple[str, ...], told: str, blobs: Callable[..., Path], tmp_path: Path
) -> None:
    said = medcl("benchmark", blobs(scans=6, masks=6), "--out", tmp_path / "out", *SMALL, *words, fails=True)
    assert told in said
    assert not (tmp_path / "out" / "runs").exists()


def test_a_folder_of_another_benchmark_is_refused(blobs: Callable[..., Path], tmp_path: Path) -> None:
    words = ("benchmark", blobs(scans=6, masks=6), "--out", tmp_path / "out", *SMALL, "--methods", "scratch")
    words = (*words, "--labelled", 1, "--seeds", 0, "--steps")
    medcl(*words, 2)
    assert "out holds a benchmark with other settings: steps." in medcl(*words, 3, fails=True)
