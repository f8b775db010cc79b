"""Starting runs in processes of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training import launch

if TYPE_CHECKING:
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
