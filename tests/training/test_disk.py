"""Disks that are full, folders that may only be read, and files that were damaged."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.errors import UserError
from napari_medcl.training import loop
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Stepped
from napari_medcl.training.finetune import finetune
from napari_medcl.training.resume import extend, repeat, resume
from napari_medcl.training.run import Run, create
from tests.training.runs import SMALL, begin, end_at, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def config(blobs: Callable[..., Path]) -> FinetuneConfig:
    return FinetuneConfig(folder=blobs(), dims="2d", evaluations=1, **{**SMALL, "steps": 20})


@pytest.fixture
def pretraining(blobs: Callable[..., Path]) -> PretrainConfig:
    """Of its models only the last is kept."""
    return PretrainConfig(folder=blobs(), dims="2d", **{**SMALL, "steps": 20})


def paused(config: FinetuneConfig | PretrainConfig, folder: Path) -> Run:
    run = Run(folder)
    end_at(begin(config, folder), run, 4, "pause")
    return run


@contextmanager
def full(disk: Path, room: int) -> Iterator[None]:
    """A disk with so many bytes left."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - room)))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def limited(room: int) -> Iterator[None]:
    """No file gets longer than so many bytes."""
    resource = pytest.importorskip("resource", reason="files can be limited on POSIX only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def room(run: Run, what: str, how: str) -> int:
    """Bytes with which the next of these cannot be written, but all before it can."""
    (state,) = run.checkpoints.glob("state-*")
    sizes = {"checkpoint": (run.checkpoints / "last.safetensors").stat().st_size, "state": state.stat().st_size}
    match what:
        case "checkpoint":
            return sizes["checkpoint"] // 2
        case "state":
            return (sizes["checkpoint"] + sizes["state"]) // 2
        case _:
            return 0 if how == "disk" else (run.folder / "events.jsonl").stat().st_size + 300


TOLD = {
    "checkpoint": r"The checkpoint in .*/last\.safetensors cannot be written: .*Free some space",
    "state": r"The checkpoint in .*/checkpoints cannot be written: .*Free some space",
    "events": r"The run folder .* cannot be written: .*Free some space .* then resume the run",
}


@pytest.mark.parametrize("what", TOLD)
@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_disk_that_is_full_spoils_nothing(
    how: str, what: str, pretraining: PretrainConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    list(begin(pretraining, tmp_path / "whole"))
    disk = request.getfixturevalue("small_disk") if how == "disk" else tmp_path
    run = paused(pretraining, disk / "run")
    events = resume(run.folder)
    next(event for event in events if isinstance(event, Stepped))
    left = room(run, what, how)
    with pytest.raises(UserError, match=TOLD[what]), full(disk, left) if how == "disk" else limited(left):
        list(events)
    assert not run.is_alive()
    assert run.state == "failed" or what == "events"
    assert not [*run.checkpoints.glob(".part-*")]
    for line in (run.folder / "events.jsonl").read_text().splitlines():
        json.loads(line)
    assert Checkpoint.load(run.checkpoints / "last.safetensors").provenance["step"] == (20 if what == "state" else 4)
    list(resume(run.folder))
    assert run.state == "finished"
    assert same(run.folder, tmp_path / "whole")


def test_a_folder_that_may_only_be_read_is_named(
    config: FinetuneConfig, tmp_path: Path, protected_disk: tuple[Path, Callable[[str], None]]
) -> None:
    disk, remount = protected_disk
    run = paused(config, disk / "run")
    remount("ro")
    told = f"The run folder {run.folder} cannot be written: .*Read-only"
    for what in (
        lambda: list(resume(run.folder)),
        lambda: list(extend(run.folder, steps=5)),
        lambda: run.ask("stop"),
        lambda: create("finetune", {}, run.folder / "inner"),
    ):
        with pytest.raises(UserError, match=r"cannot be written: .*Read-only"):
            what()
    with pytest.raises(UserError, match=told):
        run.call()
    assert (run.state, run.message[:6]) == ("paused", "Paused")
    remount("rw")
    list(resume(run.folder))
    assert run.state == "finished"


def test_a_file_in_the_way_of_the_checkpoints_is_named(config: FinetuneConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    with pytest.raises(UserError, match=f"The run folder {tmp_path / 'run'} cannot be written"):
        finetune(config, tmp_path / "run")


def test_models_that_were_damaged_are_named_and_written_anew(config: FinetuneConfig, tmp_path: Path) -> None:
    list(begin(config, tmp_path / "whole"))
    run = paused(config, tmp_path / "run")
    path = run.checkpoints / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{path} "):
        finetune(config.model_copy(update={"start": run.folder}), tmp_path / "other")
    list(resume(run.folder))
    assert same(run.folder, tmp_path / "whole")


def test_a_state_that_was_damaged_gives_way_to_the_one_before(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    list(begin(config, tmp_path / "whole"))
    run = Run(tmp_path / "run")
    end_at(begin(config, run.folder), run, 6, "kill")
    before, last = sorted(run.checkpoints.glob("state-*"))
    last.write_bytes(last.read_bytes()[:-100])
    events = list(resume(run.folder))
    assert events[0].step == int(before.name.split("-")[1])  # type: ignore[union-attr]
    assert events[0].message == (  # type: ignore[union-attr]
        f"Goes on after step {events[0].step}. The saved state {last} is damaged; the run goes on from the one before."  # type: ignore[union-attr]
    )
    assert same(run.folder, tmp_path / "whole")


def test_where_every_state_was_damaged_the_run_can_be_repeated(config: FinetuneConfig, tmp_path: Path) -> None:
    list(begin(config, tmp_path / "whole"))
    run = paused(config, tmp_path / "run")
    (state,) = run.checkpoints.glob("state-*")
    state.write_bytes(b"")
    for _ in range(2):  # asked once more, it does not begin anew over its models
        with pytest.raises(UserError, match=rf"are damaged, and the run cannot go on.*medcl runs repeat {run.folder}"):
            list(resume(run.folder))
    assert run.state == "failed"
    assert Checkpoint.load(run.checkpoints / "last.safetensors").provenance["step"] == 4
    list(repeat(run.folder, tmp_path / "again"))
    assert same(tmp_path / "again", tmp_path / "whole")
