"""The commands `medcl runs`, and how a run on the terminal is interrupted."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from napari_medcl.training.events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Noted,
    Paused,
    Resumed,
    Started,
    Stepped,
    Waiting,
)
from napari_medcl.training.run import Run, create
from tests.commands import SMALL, begin, medcl, raw, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENDLESS = ("--dims", "2d", "--steps", 1_000_000, *SMALL)
STARTED = Started(
    time=100, run="r", stage="finetune", device="cpu", precision="float32", steps=9, minutes=None, cases=3, message="go"
)
WAITING = Waiting(ahead=("other",), message="Waits for other to leave the device.")
FINISHED = Finished(step=9, reason="done", message="9 steps.")


def stepped(step: int, **terms: float) -> Stepped:
    return Stepped(time=100 + step, step=step, progress=step / 9, terms=terms, rate=0.1, remaining_s=120)


def evaluated(step: int, mean: float, best: bool = True, **dice: float) -> Evaluated:
    return Evaluated(time=100 + step, step=step, dice=dice, mean=mean, best=best)


def a_run(
    folder: Path, *events: Event, stage: str = "finetune", data: str = "", judged: str = "", **config: object
) -> Run:
    run = create(stage, {"folder": "/scans", **config}, folder)  # type: ignore[arg-type]
    for event in events:
        run.append(event)
    if data:
        (folder / "environment.json").write_text(json.dumps({"data": data}))
        (folder / "split.json").write_text(json.dumps({"val": judged.split()}))
    run.answer()
    return run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runs"
    monkeypatch.setenv("MEDCL_RUNS", str(folder))
    return folder


def rows(said: str) -> list[list[str]]:
    """The cells of a table, without its lines."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]


def test_the_list_says_how_each_run_stands(root: Path) -> None:
    method = {"name": "supercl", "positives": "simclr", "intra": 0, "inter": 0}
    a_run(root / "one", STARTED, stepped(4, instance=1), stage="pretrain", method=method)
    done = (STARTED, stepped(9, dice=1), evaluated(9, 0.81234), FINISHED)
    a_run(root / "two", *done, steps=9, method={"name": "pdcr"}, start="/other")
    waits = a_run(root / "three", WAITING)
    with waits.locked():
        found = {row[0]: row[1:] for row in rows(raw("runs", "list"))}
    assert found["one"][:-1] == ["dead", "pretrain", "SimCLR", "scans", "4/1000", ""]
    assert found["two"][:-1] == ["finished", "finetune", "PDCR", "scans", "9/9", "0.812"]
    assert found["three"] == ["queued", "finetune", "", "scans", "0/2000", "", "waits for other"]
    assert found["two"][-1].startswith("20")
    assert "There are no runs in" in medcl("runs", "list", root / "nowhere")


def test_what_a_run_said_is_shown_once_and_its_unusual_settings(root: Path) -> None:
    before = [WAITING, STARTED, stepped(4, dice=1), evaluated(4, 0.5, a=0.5), evaluated(8, 0.6, a=0.6)]
    after = [Resumed(step=4, message="Goes on after step 4."), STARTED, evaluated(8, 0.7, a=0.7)]
    noted = Noted(step=8, message="In 2 parts of [8].")
    failed = Failed(step=8, message="No space.", hint="Free some.")
    a_run(
        root / "one", *before, *after, noted, failed, method={"name": "pdcr", "temperature": 0.3}, uafs=True, width=32
    )
    said = raw("runs", "show", "one")
    asked = {"width": "32", "method": "pdcr", "uafs": "true", "method.temperature": "0.3", "folder": "/scans"}
    assert dict(rows(said)) == asked
    lines = [line[18:] for line in said.splitlines() if line[:2] in ("19", "20")]
    assert lines == [
        "finetune on cpu (float32): go",
        "step 4: validation Dice 0.5000 (a 0.500)  best so far",
        "Goes on after step 4.",
        "step 8: validation Dice 0.7000 (a 0.700)  best so far",
        "In 2 parts of [8].",
        "Failed: No space. Free some.",
    ]
    assert "State: failed, after 8 steps" in said
    assert "Model: none yet" in said
    assert f"To go on: medcl runs resume {root / 'one'}" in said
    everything = dict(rows(raw("runs", "show", "one", "--all")))
    assert everything.items() >= {**asked, "val": "0.2", "split": "–", "method.windows": "–"}.items()


@pytest.mark.parametrize(
    ("events", "config", "expected"),
    [
        ((STARTED, FINISHED), {}, "medcl runs extend {run} --steps 1000"),
        ((STARTED, FINISHED), {"minutes": 3}, "medcl runs extend {run} --minutes 10"),
        ((STARTED, Paused(step=3, message="")), {}, "medcl runs resume {run}"),
        ((STARTED, FINISHED.model_copy(update={"reason": "stopped"})), {}, "medcl runs resume {run}"),
        ((STARTED, stepped(3)), {}, "The last lines that it printed: Segmentation fault"),
    ],
)
def test_how_to_go_on_is_said(events: tuple[Event, ...], config: dict[str, object], expected: str, root: Path) -> None:
    run = a_run(root / "one", *events, **config)
    (run.folder / "log.txt").write_text("Segmentation fault\n")
    assert expected.format(run=run.folder) in medcl("runs", "show", "one")


def test_runs_stand_beside_each_other(root: Path, tmp_path: Path) -> None:
    first = (STARTED, stepped(4, dice=0.5), evaluated(4, 0.8, a=0.9, b=0.7), stepped(8, dice=0.25))
    a_run(root / "one", *first, evaluated(8, 0.6, best=False), data="d", judged="x y", steps=8, rate=0.5, seed=1)
    a_run(root / "two", STARTED, stepped(2, dice=0.75), evaluated(2, 0.9), data="d", judged="y x", steps=4, seed=1)
    a_run(root / "three", stage="pretrain", seed=1)
    said = raw("runs", "compare", "one", root / "two", "--csv", tmp_path / "all.csv")
    assert rows(said) == [
        ["stage", "finetune", "finetune"],
        ["state", "dead", "dead"],
        ["steps", "8", "4"],
        ["rate", "0.5", "0.001"],
        ["steps made", "8", "2"],
        ["seconds", "8", "2"],
        ["best step", "4", "2"],
        ["dice", "0.800", "0.900"],
        ["dice/a", "0.900", "–"],
        ["dice/b", "0.700", "–"],
        ["loss/dice", "0.250", "0.750"],
    ]
    assert "They read the same files." in said
    assert "different validation cases" not in said
    one, two = csv.DictReader((tmp_path / "all.csv").read_text("utf-8").splitlines())
    assert (one["run"], one["rate"], one["seed"], one["dice/b"], one["data"]) == ("one", "0.5", "1", "0.7", "d")
    assert (two["rate"], two["seed"], two["dice/b"], two["uafs"]) == ("0.001", "1", "", "false")

    a_run(root / "four", STARTED, evaluated(2, 0.1), data="e", judged="x")
    said = raw("runs", "compare", "three", "four", "two", "--metric", "dice")
    assert rows(said)[-1] == ["dice", "0.900", "0.100", "–"]
    assert "They did not read the same files." in said
    assert "different validation cases: their Dice cannot be compared" in said
    assert rows(raw("runs", "compare", "two", "one", "--metric", "loss/dice"))[-1] == ["loss/dice", "0.250", "0.750"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("show", "unet-2"), "There is no run “unet-2”, neither at that path nor in {root}. Did you mean unet-1?"),
        (("show", "{root}/unet-2"), "Did you mean unet-1?"),
        (("resume", "else"), "These are there: medcl runs list"),
        (("pause", "{root}"), "{root} is not a run folder: there is no config.json in it."),
        (("resume", "unet-1"), "unet-1 has finished. To train on, extend it: medcl runs extend"),
        (("stop", "unet-1"), "unet-1 is not running: it is finished."),
        (("pause", "unet-1"), "unet-1 is not running: it is finished."),
        (("extend", "unet-1"), "Say how much further"),
        (("extend", "unet-1", "--steps", "0"), "Say how much further"),
        (("extend", "unet-1", "--minutes", "3"), "Extend it by --steps."),
        (("resume", "alive"), "alive goes on already. Pause or stop it first: medcl runs pause"),
        (("extend", "alive", "--steps", "3"), "alive goes on already."),
        (("repeat", "unet-1", "--run", "{root}/alive"), "already holds a run"),
        (("repeat", "unet-1", "--run", "{root}/file/x"), "cannot be written"),
        (("repeat", "unet-1", "--run", "{root}/new"), "The queue in {root}/file/medcl/queue"),
        (("compare", "unet-1"), "Name two runs or more"),
        (("compare", "unet-1", "alive", "--metric", "loss"), "have steps made, seconds, loss/dice."),
        (("compare", "unet-1", "alive", "--csv", "{root}/file/x.csv"), "x.csv cannot be written"),
    ],
)
def test_what_is_wrong_is_said(
    words: tuple[str, ...], expected: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(root / "unet-1", STARTED, stepped(9, dice=1), FINISHED, steps=9)
    alive = a_run(root / "alive", STARTED)
    (root / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "file"))
    with alive.locked():
        said = medcl("runs", *(word.format(root=root) for word in words), fails=True)
    assert expected.format(root=root) in said.partition("Error: ")[2]
    assert alive.asked() is None


def test_several_processes_are_to_be_told_the_new_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(root / "one", STARTED, FINISHED)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert "name its folder with --run" in medcl("runs", "repeat", "one", fails=True)


@pytest.mark.parametrize(
    "typed", ["list", "show one", "show one --all", "pause one", "stop one", "compare one two", "show nobody", "--help"]
)
def test_runs_are_looked_at_without_torch(typed: str, root: Path) -> None:
    one = a_run(root / "one", STARTED, evaluated(4, 0.8))
    a_run(root / "two", STARTED)
    code = (
        "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules))\n"
        f"sys.argv = ['medcl', 'runs', *{typed.split()!r}]; from napari_medcl.__main__ import main; main()"
    )
    with one.locked():
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    loaded = {name.partition(".")[0] for name in said.rpartition("LOADED")[2].split()}
    assert "napari_medcl" in loaded
    assert not {"torch", "monai", "napari", "qtpy"} & loaded


def test_an_interrupted_run_pauses_and_goes_on_to_its_end(blobs: Callable[..., Path], root: Path) -> None:
    run = Run(root / "one")
    process = begin("pretrain", blobs(masks=0), "--run", run.folder, *ENDLESS)
    until(lambda: isinstance(run.last_event(), Stepped), process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Pauses after this step" in said
    assert f"To go on: medcl runs resume {run.folder}" in said
    assert run.state == "paused"

    config = {**run.config, "steps": (step := run.last_event().step) + 3}  # type: ignore[union-attr]
    (run.folder / "config.json").write_text(json.dumps(config))
    assert f"Goes on after step {step}." in medcl("runs", "resume", "one")
    assert run.state == "finished"
    medcl("runs", "extend", "one", "--steps", 2, "--now")
    assert run.last_event().step == step + 5  # type: ignore[union-attr]
    assert len(list(csv.DictReader((run.folder / "metrics.csv").read_text("utf-8").splitlines()))) > 0


def test_the_second_interruption_ends_a_run_at_once(blobs: Callable[..., Path], root: Path) -> None:
    run = Run(root / "one")
    process = begin("pretrain", blobs(masks=0), "--run", run.folder, *ENDLESS)
    until(lambda: isinstance(run.last_event(), Stepped), process)
    process.send_signal(signal.SIGSTOP)  # it learns of both at the same moment
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Ended at once. To go on from the last saved state" in said
    assert run.state == "dead"


@pytest.mark.parametrize(("what", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_run_is_ended_from_elsewhere(what: str, state: str, blobs: Callable[..., Path], root: Path) -> None:
    run = Run(root / "one")
    process = begin("finetune", blobs(), "--run", run.folder, *ENDLESS)
    until(lambda: isinstance(run.last_event(), Stepped), process)
    assert "one was asked to" in medcl("runs", what, "one")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert run.state == state
    assert ("Model: " in said) == (what == "stop")
    assert "To go on: medcl runs resume" in said


def test_a_failure_ends_with_status_1(blobs: Callable[..., Path], root: Path) -> None:
    folder = blobs()
    (folder / "imagesTr" / "case_0.nii.gz").write_bytes(b"no scan")
    process = begin("finetune", folder, "--run", root / "one", *ENDLESS)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert Run(root / "one").state == "failed"


def test_a_run_is_repeated_beside_itself_with_the_same_numbers(blobs: Callable[..., Path], root: Path) -> None:
    medcl("pretrain", blobs(masks=0), "--run", root / "one", "--dims", "2d", "--steps", 3, *SMALL)
    medcl("runs", "repeat", "one")
    (second,) = root.glob("*-pretrain-one")
    medcl("runs", "repeat", second.name, "--now")
    (third,) = {*root.glob("*-pretrain-one*")} - {second}
    first, *others = (
        [event for event in Run(one).events()[0] if isinstance(event, Stepped)] for one in (root / "one", second, third)
    )
    assert len(first) == 3
    for again in others:
        assert [event.terms for event in again] == [event.terms for event in first]


@pytest.mark.slow
def test_a_run_waits_for_the_one_before_it_unless_told_not_to(blobs: Callable[..., Path], root: Path) -> None:
    data, few = blobs(masks=0), ("--dims", "2d", "--steps", 2, *SMALL)
    first, second, third = (Run(root / name) for name in ("first", "second", "third"))
    before = begin("pretrain", data, "--run", first.folder, *ENDLESS)
    until(lambda: isinstance(first.last_event(), Stepped), before)
    after = begin("pretrain", data, "--run", second.folder, *few)
    until(lambda: second.state == "queued", after)
    assert [rows(raw("runs", "list"))[0][place] for place in (0, 1, -1)] == ["second", "queued", "waits for first"]

    medcl("pretrain", data, "--run", third.folder, "--now", *few)
    assert third.state == "finished"
    assert not any(isinstance(event, Waiting) for event in third.events()[0])
    assert (first.state, second.state) == ("running", "queued")

    before.send_signal(signal.SIGKILL)
    said, _ = after.communicate(timeout=120)
    assert after.returncode == 0, said
    assert "Waits for first to leave the device." in said
    assert second.state == "finished"
    before.communicate()
    assert first.state == "dead"


@pytest.mark.slow
def test_a_run_that_was_stopped_while_it_waited_starts_later(blobs: Callable[..., Path], root: Path) -> None:
    data = blobs(masks=0)
    first, second = (Run(root / name) for name in ("first", "second"))
    before = begin("pretrain", data, "--run", first.folder, *ENDLESS)
    until(lambda: isinstance(first.last_event(), Stepped), before)
    after = begin("pretrain", data, "--run", second.folder, "--dims", "2d", "--steps", 2, *SMALL)
    until(lambda: second.state == "queued", after)
    medcl("runs", "stop", "second")
    said, _ = after.communicate(timeout=120)
    assert after.returncode == 0, said
    assert second.state == "stopped"
    again = begin("runs", "resume", "second")
    until(lambda: second.state == "queued", again)
    medcl("runs", "stop", "first")
    before.communicate(timeout=120)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert (first.state, second.state) == ("stopped", "finished")
