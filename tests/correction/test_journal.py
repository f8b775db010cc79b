"""Journals of masks: what was noted is there, wherever the process was killed and wherever the file was cut."""

from __future__ import annotations

import gc
import inspect
import json
import os
import random
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medcl.correction.journal import (
    Journal,
    Unwritable,
    apart,
    beside,
    discard,
    forget_journal,
    known_journals,
    note_journal,
    pending,
    read,
)
from napari_medcl.errors import UserError

ABOUT = {"mask": "labels/a.nii.gz", "layer": "Leber, ü\n"}
DTYPES = ["uint8", "int16", ">u2", "int32", "uint64", "bool"]
Box = tuple[slice, ...]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".a.nii.gz.medcl-journal"


def python(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)


def left(path: Path, strokes: int, shape: tuple[int, ...] = (6, 7)) -> np.ndarray:
    """A journal whose process is gone."""
    mask = np.zeros(shape, np.uint8)
    with closing(Journal.begin(path, mask, ABOUT)) as journal:
        for number in range(strokes):
            mask[0, number] = number + 1
            journal.note(mask)
        journal.close(keep=True)
    return mask


@st.composite
def histories(draw: st.DrawFn) -> tuple[np.ndarray, list[tuple[Box | None, Any]]]:
    """A mask, and what is written into boxes of it; without a box, everywhere."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=5))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    edits = []
    for _ in range(draw(st.integers(0, 4))):
        box = tuple(slice(*sorted((draw(st.integers(0, n)), draw(st.integers(0, n))))) for n in shape)
        values = draw(hnp.arrays(dtype, tuple(part.stop - part.start for part in box)))
        edits.append((box if draw(st.booleans()) else None, (box, values)))
    return draw(hnp.arrays(dtype, shape)), edits


def write(path: Path, history: tuple[np.ndarray, list[tuple[Box | None, Any]]]) -> tuple[list[np.ndarray], list[int]]:
    """Writes a journal; the mask after every record, and where in the file that record ends."""
    first, edits = history
    mask = first.swapaxes(0, 1).copy().swapaxes(0, 1)  # as masks come from files, not in C order
    with closing(Journal.begin(path, mask, ABOUT)) as journal:
        states, ends = [mask.copy()], [path.stat().st_size]
        for box, (where, values) in edits:
            mask[where] = values
            count = journal.note(mask, box)
            assert count == np.count_nonzero(mask != states[-1])
            if count:
                states.append(mask.copy())
                ends.append(path.stat().st_size)
        assert path.stat().st_size == ends[-1], "nothing is written where nothing has changed"
        journal.close(keep=True)
    return states, ends


@settings(max_examples=30, deadline=None)
@given(histories())
def test_what_was_noted_is_read(tmp_path_factory: pytest.TempPathFactory, history: Any) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    states, _ = write(path, history)
    found = read(path)
    assert (found.path, found.about, found.changes) == (path, ABOUT, len(states) - 1)
    assert found.mask.dtype == states[0].dtype
    assert np.array_equal(found.mask, states[-1])
    assert np.array_equal(found.first, states[0])


@settings(max_examples=30, deadline=None)
@given(histories(), st.data())
def test_a_file_cut_anywhere_ends_with_its_last_whole_record(
    tmp_path_factory: pytest.TempPathFactory, history: Any, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    states, ends = write(path, history)
    whole = path.read_bytes()
    for size in data.draw(st.lists(st.integers(0, len(whole)), min_size=1, max_size=8)):
        path.write_bytes(whole[:size])
        if size < ends[0]:
            with pytest.raises(UserError, match="is no journal"):
                read(path)
            continue
        count = sum(end <= size for end in ends) - 1
        assert read(path).changes == count
        assert np.array_equal(read(path).mask, states[count])
        mask = (states[count] ^ 1).astype(states[count].dtype)
        with closing(Journal.resume(path)) as journal:
            assert path.stat().st_size == ends[count]
            assert journal.note(mask) == mask.size
            assert read(path).changes == count + 1
            assert np.array_equal(read(path).mask, mask)


@settings(max_examples=30, deadline=None)
@given(histories(), st.data())
def test_a_damaged_byte_never_gives_a_mask_that_was_not_there(
    tmp_path_factory: pytest.TempPathFactory, history: Any, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    states, ends = write(path, history)
    whole = path.read_bytes()
    for _ in range(8):
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged = bytearray(whole)
        damaged[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(damaged)
        if place < ends[0]:
            with pytest.raises(UserError):
                read(path)
        else:
            count = sum(end <= place for end in ends) - 1
            assert read(path).changes == count
            assert np.array_equal(read(path).mask, states[count])


def test_zeros_at_the_end_as_power_cuts_leave_them_are_no_records(path: Path) -> None:
    mask = left(path, strokes=2)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert read(path).changes == 2
    assert np.array_equal(read(path).mask, mask)
    with closing(Journal.resume(path)):
        assert path.stat().st_size == size


@pytest.mark.parametrize("content", [b"", b"{}", b"MedCL journal 1\n", b"MedCL journal 2\n" + bytes(100)])
def test_another_file_is_no_journal(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    for what in (read, Journal.resume):
        with pytest.raises(UserError, match=f"{path} is no journal"):
            what(path)
    assert path.read_bytes() == content
    assert [*path.parent.iterdir()] == [path], "no lock is left"
    assert pending([path]) == []
    with closing(Journal.begin(path, np.zeros((2, 2), int), {})):
        assert read(path).changes == 0


def test_a_missing_journal_is_said_to_be_missing(path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read(path)


def test_a_box_hides_what_lies_outside_until_all_is_compared(path: Path) -> None:
    mask = np.zeros((3, 4, 5), np.uint8)
    with closing(Journal.begin(path, mask, {})) as journal:
        mask[0, 0, 0] = mask[2, 3, 4] = 1
        assert journal.note(mask, (slice(1, None), slice(-2, None), slice(None))) == 1
        assert journal.note(mask, (slice(1, 1), slice(None), slice(None))) == 0
        assert journal.note(mask) == 1
        assert np.array_equal(read(path).mask, mask)


@pytest.mark.parametrize("other", [np.zeros((4, 3), np.uint8), np.zeros((3, 4), np.int16)])
def test_another_mask_is_refused(other: np.ndarray, path: Path) -> None:
    with (
        closing(Journal.begin(path, np.zeros((3, 4), np.uint8), {})) as journal,
        pytest.raises(ValueError, match="not"),
    ):
        journal.note(other)


HOLD = """
import pathlib, sys, time
import numpy as np
from napari_medcl.correction.journal import Journal
mask = np.zeros((3, 4), np.uint8)
journal = Journal.begin(pathlib.Path(sys.argv[1]), mask, {})
mask[1] = 1
journal.note(mask)
print("holds", flush=True)
time.sleep(600)
"""


def test_a_journal_belongs_to_one_process_until_that_is_gone(path: Path) -> None:
    with python(HOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        for what in (
            lambda: Journal.begin(path, np.zeros((3, 4)), {}),
            lambda: Journal.resume(path),
            lambda: discard(path),
        ):
            with pytest.raises(UserError, match="Another window has the mask"):
                what()
        assert read(path).changes == 1, "reading disturbs nobody"
        assert pending([path]) == []
        holder.kill()
        holder.wait()
    (found,) = pending([path])
    assert found.mask.sum() == 4
    with closing(Journal.resume(path)) as journal:
        with pytest.raises(UserError, match="Another window"):
            Journal.resume(path)
        assert journal.note(np.zeros((3, 4), np.uint8)) == 4
        assert pending([path]) == []
    assert not [*path.parent.iterdir()], "the journal is gone with its lock"


def test_closing_twice_takes_nothing_from_the_next_one(path: Path) -> None:
    mask = np.zeros((2, 2), np.uint8)
    first = Journal.begin(path, mask, {})
    first.close()
    with closing(Journal.begin(path, mask, {})):
        first.close()
        assert path.exists()
        with pytest.raises(UserError, match="Another window"):
            discard(path)


def test_changes_that_nobody_saved_are_not_written_over(path: Path) -> None:
    mask = left(path, strokes=3)
    with pytest.raises(UserError, match=r"never saved\. Take them back or discard them first"):
        Journal.begin(path, mask, {})
    assert read(path).changes == 3
    discard(path)
    assert not [*path.parent.iterdir()]
    left(path, strokes=0)
    Journal.begin(path, mask, {}).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "x.lock").mkdir()
    (tmp_path / "y").mkdir()
    for path in (tmp_path / "file" / "z", tmp_path / "x", tmp_path / "y"):
        with pytest.raises(Unwritable, match=f"The journal {path} cannot be written"):
            Journal.begin(path, np.zeros((2, 2), int), {})
    with pytest.raises(UserError, match="cannot be written"):
        note_journal(tmp_path / "file", tmp_path / "x")


FULL = """
import pathlib, resource, sys
import numpy as np
from napari_medcl.correction.journal import Journal, read
from napari_medcl.errors import UserError

path, mask = pathlib.Path(sys.argv[1]), np.zeros((64, 64), np.uint8)
journal = Journal.begin(path, mask, {})
mask[:2] = 1
assert journal.note(mask) == 128
size, before = path.stat().st_size, mask.copy()
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, limit[1]))
mask[10:20] = np.random.default_rng(0).integers(1, 200, (10, 64))
for box in (None, (slice(10, 20), slice(None))):
    try:
        journal.note(mask, box)
    except UserError as error:
        print(error)
    else:
        sys.exit("there was room")
    assert path.stat().st_size == size + 40, "a part of it was written"
    assert read(path).changes == 1
    assert np.array_equal(read(path).mask, before)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
mask[0, 0] = 5
assert journal.note(mask, (slice(0, 1), slice(0, 1))) == 641
assert read(path).changes == 2
assert np.array_equal(read(path).mask, mask)
mask[0, :2] = 6
assert journal.note(mask, (slice(0, 1), slice(0, 1))) == 1
"""


def test_a_full_disk_is_told_and_the_next_note_makes_up_for_it(path: Path) -> None:
    pytest.importorskip("resource", reason="files can be limited on POSIX only")
    with python(FULL, path) as process:
        told, _ = process.communicate()
    assert process.returncode == 0
    assert told.count("cannot be written: No space left on device. Free some space") == 2


def test_a_disk_that_is_full_at_the_beginning_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unwritable, match=r"cannot be written: No space left on device\. Free some space"):
        Journal.begin(path, np.zeros((2, 2), int), {})
    assert not [*path.parent.iterdir()]


def test_pending_gives_the_newest_first_and_passes_over_the_rest(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("old", "new", "unchanged", "damaged", "missing", "alive")]
    for journal, strokes, written in zip(paths[:4], (1, 2, 0, 1), (10, 20, 30, 40), strict=True):
        left(journal, strokes)
        os.utime(journal, (written, written))
    paths[3].write_bytes(b"x" + paths[3].read_bytes()[1:])
    mask = np.zeros((2, 2), int)
    with closing(Journal.begin(paths[5], mask, {})) as journal:
        journal.note(mask + 1)
        assert [(found.path.name, found.changes) for found in pending([*paths, paths[0]])] == [("new", 2), ("old", 1)]


def test_the_journal_of_a_file_lies_hidden_beside_it() -> None:
    assert beside(Path("a/labels/b.nii.gz")) == Path("a/labels/.b.nii.gz.medcl-journal")


def test_journals_anywhere_are_known_as_long_as_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home, disk = tmp_path / "home" / "journals", tmp_path / "disk"
    assert known_journals(home) == []
    disk.mkdir()
    there, here = disk / "there", apart(home)
    assert here != apart(home)
    left(there, 1)
    note_journal(home, Path("disk/there"))
    note_journal(home, there)
    left(here, 1)  # a crash came before it was noted
    assert known_journals(home) == [here, there]
    note_journal(home, here)
    assert known_journals(home) == [here, there]
    disk.rename(tmp_path / "unplugged")
    assert known_journals(home) == [here]
    (tmp_path / "unplugged").rename(disk)
    assert known_journals(home) == [here, there]
    there.unlink()
    assert known_journals(home) == [here]
    forget_journal(home, here)
    forget_journal(home, here)
    assert [*home.iterdir()] == [here]
    discard(here)
    assert known_journals(home) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"journal": 3}'])
def test_a_note_that_cannot_be_read_is_passed_over(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    left(tmp_path / "journal", 1)
    note_journal(tmp_path, tmp_path / "journal")
    assert known_journals(tmp_path) == [tmp_path / "journal"]


def stroke(mask: Any, number: int) -> tuple[slice, slice, slice]:
    """Changes every voxel of a box."""
    box = slice(number % 8, number % 8 + 2), slice(number % 40, number % 40 + 20), slice(number % 30, number % 30 + 30)
    mask[box] += 1
    return box


DRAW = f"""
import itertools, pathlib, sys
import numpy as np
from napari_medcl.correction.journal import Journal

{inspect.getsource(stroke)}

mask = np.zeros((10, 60, 60), np.uint8)
journal = Journal.begin(pathlib.Path(sys.argv[1]), mask, {{}})
print(0, flush=True)
for number in itertools.count(1):
    journal.note(mask, stroke(mask, number))
    print(number, flush=True)
""".replace(" -> tuple[slice, slice, slice]", "").replace("mask: Any, number: int", "mask, number")


def killed(path: Path, chance: random.Random) -> int | None:
    """Draws until it is killed; how many strokes were said to be noted, None if it had not begun."""
    with python(DRAW, path) as process:
        assert process.stdout is not None
        said = ""
        if chance.random() < 0.8:
            said = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.1))
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.4))
        process.kill()
        lines = (said + process.stdout.read()).splitlines()
    return int(lines[-1]) if lines else None


@pytest.mark.parametrize("times", [4, pytest.param(100, marks=pytest.mark.slow)], ids=["few", "many"])
def test_every_stroke_that_was_noted_survives_a_kill(times: int, tmp_path: Path) -> None:
    chance, strokes = random.Random(times), 0
    for attempt in range(times):
        path = tmp_path / str(attempt)
        noted = killed(path, chance)
        if noted is None and not path.exists():
            continue
        found, mask = read(path), np.zeros((10, 60, 60), np.uint8)
        assert found.changes >= (noted or 0)
        for number in range(1, found.changes + 1):
            stroke(mask, number)
        assert np.array_equal(found.mask, mask)
        assert [one.path for one in pending([path])] == ([path] if found.changes else [])
        strokes += found.changes
    assert strokes > times


def test_entries_are_plain_json(tmp_path: Path) -> None:
    note_journal(tmp_path, tmp_path / "journal")
    (entry,) = tmp_path.iterdir()
    assert json.loads(entry.read_text()) == {"journal": str(tmp_path / "journal")}


def test_a_stroke_in_a_large_volume_takes_milliseconds(path: Path) -> None:
    mask = np.zeros((300, 512, 512), np.uint8)
    box = slice(150, 151), slice(100, 150), slice(100, 140)
    with closing(Journal.begin(path, mask, {})) as journal:
        times = []
        for number in range(1, 20):
            mask[box] = number
            start = time.perf_counter()
            assert journal.note(mask, box) == 2000
            times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1, "most of it is the disk's"


def test_a_journal_that_nobody_holds_any_more_can_be_taken_up(tmp_path: Path) -> None:
    """As when a viewer is closed and its process goes on."""
    path, mask = tmp_path / "journal", np.zeros((4, 4), np.uint8)
    journal = Journal.begin(path, mask, {})
    mask[1, 1] = 1
    journal.note(mask)
    assert not pending([path])
    del journal
    gc.collect()
    (found,) = pending([path])
    assert np.array_equal(found.mask, mask)
