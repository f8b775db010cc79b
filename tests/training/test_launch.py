"""Starting runs in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training import launch
from napari_medcl.training.events import Stepped
from napari_medcl.training.run import create
from tests.training.runs import CONFIGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were to be started; none is."""
    started: list[list[str]] = []

    def start(command: list[str], **given: Any) -> None:
        given["stdout"].write(b"said by the process\n")
        started.append(command[1:])

    monkeypatch.setattr(launch.subprocess, "Popen", start)
    return started


def test_new_folders_are_never_taken(tmp_path: Path) -> None:
    first = launch.new_folder(tmp_path, "pretrain", "my scans/../..")
    assert first.parent == tmp_path
    first.mkdir()
    assert launch.new_folder(tmp_path, "pretrain", "my scans/../..") != first


@pytest.mark.parametrize("now", [False, True])
def test_a_start_is_a_command_on_the_folder(now: bool, tmp_path: Path, commands: list[list[str]]) -> None:
    folder = tmp_path / "run"
    run = launch.start("finetune", {"folder": "x"}, folder, now=now)
    given = ["-m", "napari_medcl", "finetune", "--config", str(folder / "config.json"), "--run", str(folder)]
    assert commands == [[*given, "--now"] if now else given]
    assert (run.state, run.config) == ("starting", {"stage": "finetune", "folder": "x"})
    assert run.log_tail() == "said by the process"


def test_a_start_again_is_a_resume_and_forgets_what_was_asked_before(tmp_path: Path, commands: list[list[str]]) -> None:
    run = launch.start("pretrain", {}, tmp_path / "run")
    run.answer()
    run.ask("pause")
    launch.start_again(run, now=True)
    assert commands[1] == ["-m", "napari_medcl", "runs", "resume", str(run.folder), "--now"]
    assert (run.state, run.asked()) == ("starting", None)
    assert run.log_tail() == "said by the process\nsaid by the process"


def test_a_folder_that_holds_a_run_is_not_started_again(tmp_path: Path, commands: list[list[str]]) -> None:
    folder = tmp_path / "run"
    launch.start("pretrain", {}, folder)
    (folder / "events.jsonl").touch()
    with pytest.raises(UserError, match=rf"already holds a run.*medcl runs resume {folder}"):
        launch.start("pretrain", {}, folder)
    assert len(commands) == 1


def test_the_process_is_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to the viewer's group, or its end, does not reach it, and it reads and writes files only."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **more: given.update(more, command=command))
    launch.start("pretrain", {}, tmp_path / "run")
    assert given["command"][0] == sys.executable
    assert given["start_new_session"] if sys.platform != "win32" else given["creationflags"]
    assert given["stdin"] == launch.subprocess.DEVNULL


def test_an_extension_says_how_much_further(tmp_path: Path, commands: list[list[str]]) -> None:
    run = launch.start("pretrain", {}, tmp_path / "run")
    launch.extend(run, steps=100)
    launch.extend(run, minutes=2.5, now=True)
    given = ["-m", "napari_medcl", "runs", "extend", str(run.folder)]
    assert commands[1:] == [[*given, "--steps", "100"], [*given, "--minutes", "2.5", "--now"]]


def test_a_repetition_is_a_run_of_its_own_from_the_beginning(tmp_path: Path, commands: list[list[str]]) -> None:
    run = launch.start("pretrain", {"folder": "x"}, tmp_path / "run")
    again = launch.repeat(run, tmp_path / "again")
    assert commands[1] == ["-m", "napari_medcl", "runs", "repeat", str(run.folder), "--run", str(again.folder)]
    assert (again.state, again.config) == ("starting", run.config)
    (run.folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        launch.repeat(run, tmp_path / "third")
    assert len(commands) == 2


def python(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "napari_medcl", *map(str, words), "--now"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_goes_on(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = CONFIGS["plain"](blobs()).model_copy(update={"steps": 100_000})
    run = create("finetune", config.to_json(), folder)
    with python("finetune", "--config", folder / "config.json", "--run", folder) as first:
        while not isinstance(run.last_event(), Stepped):
            assert first.poll() is None
            time.sleep(0.05)
        for words, told in (
            (("runs", "resume", folder), "goes on already"),
            (("finetune", "--config", folder / "config.json", "--run", folder), "already holds a run"),
        ):
            with python(*words) as second:
                assert told in " ".join(second.communicate()[0].split())
                assert second.returncode
        assert run.state == "running"
        step = run.last_event().step  # type: ignore[union-attr]
        run.ask("pause")
        assert not first.wait(), first.communicate()[0]
    assert run.state == "paused"
    assert run.last_event().step > step  # type: ignore[union-attr]
    steps = [event.step for event in run.events()[0] if isinstance(event, Stepped)]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_of_two_that_start_at_once_one_trains(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = create("finetune", CONFIGS["plain"](blobs()).to_json(), folder)
    words = ("finetune", "--config", folder / "config.json", "--run", folder)
    with python(*words) as one, python(*words) as other:
        said = {process.communicate()[0]: process.returncode for process in (one, other)}
    assert sorted(map(bool, said.values())) == [False, True]
    (refused,) = [" ".join(words.split()) for words, code in said.items() if code]
    assert "Another process is training in" in refused or "already holds a run" in refused
    assert run.state == "finished"
    assert [event.kind for event in run.events()[0]].count("started") == 1
