"""The lock of a run folder: who holds it is known on this machine at once, on others by its signs of life."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training import lock as locks
from napari_medcl.training.lock import FolderLock, held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOLD = """
import pathlib, sys, time
from napari_medcl.training.lock import FolderLock
with FolderLock(pathlib.Path(sys.argv[1])).holding():
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def elsewhere(folder: Path, seconds_ago: float) -> None:
    """A process of another machine gave its last sign of life then."""
    owner = folder / "owner.json"
    owner.write_text(json.dumps({"host": "another-machine", "process": 1}))
    os.utime(owner, (time.time() - seconds_ago, time.time() - seconds_ago))


def test_nobody_holds_a_folder_that_is_new(tmp_path: Path) -> None:
    assert not FolderLock(tmp_path).alive()
    assert not [*tmp_path.iterdir()], "looking leaves nothing behind"


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert FolderLock(tmp_path).alive()
    with pytest.raises(UserError, match=f"Another process is training in {tmp_path}"), FolderLock(tmp_path).holding():
        pass
    assert FolderLock(tmp_path).alive(), "being refused disturbs nobody"
    holder.kill()
    holder.wait()
    assert (tmp_path / "owner.json").exists()
    assert not FolderLock(tmp_path).alive()
    with FolderLock(tmp_path).holding():
        assert json.loads((tmp_path / "owner.json").read_text())["process"] == os.getpid()
    assert not (tmp_path / "owner.json").exists()


def test_a_holder_that_stands_still_is_alive(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.utime(tmp_path / "owner.json", (0, 0))
    assert FolderLock(tmp_path).alive()


def test_one_process_holds_it_once(tmp_path: Path) -> None:
    with FolderLock(tmp_path).holding():
        assert FolderLock(tmp_path).alive()
        with pytest.raises(UserError, match="Another process"), FolderLock(tmp_path).holding():
            pass
        assert FolderLock(tmp_path).alive()
    assert not FolderLock(tmp_path).alive()


def test_another_thread_may_end_what_one_began(tmp_path: Path) -> None:
    holding = FolderLock(tmp_path).holding()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(holding.__enter__).result()
        assert FolderLock(tmp_path).alive()
        holding.__exit__(None, None, None)
        assert not held(tmp_path / "lock")


def test_looking_from_many_threads_disturbs_nobody(tmp_path: Path) -> None:
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            FolderLock(tmp_path).alive()

    with ThreadPoolExecutor(4) as threads:
        looks = [threads.submit(look) for _ in range(4)]
        for _ in range(20):
            with FolderLock(tmp_path).holding():
                assert FolderLock(tmp_path).alive()
        ended.set()
        for one in looks:
            one.result()


def test_many_who_look_at_once_do_not_take_each_other_for_the_holder(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LOOK_S", 1.0)  # a busy machine may let the one who looks stand still for longer
    holder.kill()
    holder.wait()
    with ThreadPoolExecutor(4) as threads:
        looks = threads.map(lambda _: FolderLock(tmp_path).alive(), range(200))
    assert not any(looks)


def test_one_who_looks_is_waited_for_by_the_one_who_takes_it(tmp_path: Path) -> None:
    looking = locks.FileLock(tmp_path / "lock", thread_local=False)
    looking.acquire()
    release = threading.Timer(0.2, looking.release)
    release.start()
    with FolderLock(tmp_path).holding():
        assert FolderLock(tmp_path).alive()
    release.join()


def test_another_machine_lives_as_long_as_it_gives_signs(tmp_path: Path) -> None:
    elsewhere(tmp_path, seconds_ago=1)
    assert FolderLock(tmp_path).alive()
    with pytest.raises(UserError, match="Another process"), FolderLock(tmp_path).holding():
        pass
    elsewhere(tmp_path, seconds_ago=locks._STALE_S + 1)
    assert not FolderLock(tmp_path).alive()
    with FolderLock(tmp_path).holding():
        assert json.loads((tmp_path / "owner.json").read_text())["host"] == locks.platform.node()


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_STALE_S", 0.04)
    with FolderLock(tmp_path).holding():
        os.utime(tmp_path / "owner.json", (0, 0))
        while (tmp_path / "owner.json").stat().st_mtime == 0:
            time.sleep(0.01)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"process": 3}'])
def test_an_owner_that_cannot_be_read_goes_by_its_time(broken: str, tmp_path: Path) -> None:
    owner = tmp_path / "owner.json"
    owner.write_text(broken)
    assert FolderLock(tmp_path).alive()
    os.utime(owner, (0, 0))
    assert not FolderLock(tmp_path).alive()


def test_where_the_lock_cannot_be_tried_the_signs_of_life_count(
    protected_disk: tuple[Path, Callable[[str], None]],
) -> None:
    disk, remount = protected_disk
    for name, sign in (("fresh", time.time()), ("old", 0.0)):
        (disk / name).mkdir()
        (disk / name / "lock").touch()
        owner = disk / name / "owner.json"
        owner.write_text(json.dumps({"host": locks.platform.node(), "process": 1}))
        os.utime(owner, (sign, sign))
    remount("ro")
    assert FolderLock(disk / "fresh").alive()
    assert not FolderLock(disk / "old").alive()
    with pytest.raises(UserError, match=r"The run folder .* cannot be written"), FolderLock(disk / "old").holding():
        pass


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match=f"The run folder {tmp_path} cannot be written"), FolderLock(tmp_path).holding():
        pass


def test_a_process_of_another_machine_is_alive_but_not_here(tmp_path: Path) -> None:
    elsewhere(tmp_path, seconds_ago=1)
    assert FolderLock(tmp_path).alive()
    assert not FolderLock(tmp_path).here()
    (tmp_path / "owner.json").unlink()
    assert not FolderLock(tmp_path).here()
    with FolderLock(tmp_path).holding():
        assert FolderLock(tmp_path).here()
