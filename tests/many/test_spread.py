"""Many scans: whatever happens to one of them or to a process, all others are there at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from napari_medcl.data.case import Case
from napari_medcl.errors import UserError
from napari_medcl.many.spread import spread
from napari_medcl.many.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Upper(Work):
    """Writes what a file holds in capitals; some files are trouble."""

    out: Path
    setting: int = 0
    seconds: float = 0.0
    killers: dict[str, int] = field(default_factory=dict)
    """How often a case kills its process, by name."""

    def made_by(self) -> dict[str, Any]:
        return {"setting": self.setting}

    def __call__(self, case: Case) -> list[Path]:
        text = case.images[0].read_text()
        time.sleep(self.seconds)
        with (self.out / "calls.txt").open("a") as file:
            file.write(f"{case.id}\n")
        if self.calls()[case.id] <= self.killers.get(case.id, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "bad":
            raise UserError("It is bad.")
        path = self.out / f"{case.id}.out"
        path.write_text(text.upper())
        return [path]

    def calls(self) -> Counter[str]:
        """How often it was done, by case."""
        path = self.out / "calls.txt"
        return Counter(path.read_text().split()) if path.exists() else Counter()


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"c{index}" for index in range(6)]
    for path in paths:
        path.write_text(f"text of {path.name}")
    return [Case(path.name, (path,)) for path in paths]


def states(work: Upper, cases: list[Case], **how: Any) -> dict[str, str]:
    found = [*spread(work, cases, **how)]
    assert sorted(one.name for one in found) == sorted(case.id for case in cases)
    assert all(one.message for one in found if one.state == "failed")
    return {one.name: one.state for one in found}


@contextmanager
def scheduler(workers: int = 2) -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as cluster:
        yield cluster


@pytest.mark.parametrize("how", ["alone", "processes", "workers"])
def test_every_scan_is_done_and_a_bad_one_ends_no_other(how: str, cases: list[Case], tmp_path: Path) -> None:
    cases[2].images[0].write_text("bad")
    work = Upper(tmp_path / "out" / "deep")
    if how == "workers":
        with scheduler() as cluster:
            found = states(work, cases, scheduler=cluster.scheduler_address)
    else:
        found = states(work, cases, processes=2 if how == "processes" else 1)
    assert found == {case.id: "failed" if case.id == "c2" else "made" for case in cases}
    assert {path.name: path.read_text() for path in work.out.glob("*.out")} == {
        f"{case.id}.out": f"TEXT OF {case.id.upper()}" for case in cases if case.id != "c2"
    }


def test_what_is_done_is_left_out(cases: list[Case], tmp_path: Path) -> None:
    work, truth = Upper(tmp_path / "out"), tmp_path / "truth"
    states(work, cases)
    truth.write_text("a mask that somebody drew")
    assert set(states(work, [replace(case, labels=truth) for case in cases]).values()) == {"done before"}
    assert set(work.calls().values()) == {1}
    cases[0].images[0].write_text("another text")
    (work.out / "c1.out").unlink()
    (work.out / "c2.out").write_text("corrected by hand")
    (work.out / ".medcl-done" / "c3.json").write_text("{broken")
    expected = {
        "c0": "made",
        "c1": "made",
        "c2": "changed since",
        "c3": "made",
        "c4": "done before",
        "c5": "done before",
    }
    assert states(work, cases) == expected
    assert (work.out / "c2.out").read_text() == "corrected by hand"
    assert set(states(replace(work, setting=1), cases).values()) == {"made"}
    assert set(states(replace(work, setting=1), cases, again=True).values()) == {"made"}


def test_a_record_that_leads_out_of_the_folder_is_not_believed(cases: list[Case], tmp_path: Path) -> None:
    work, outside = Upper(tmp_path / "out"), tmp_path / "outside.txt"
    outside.write_text("private")
    states(work, cases[:1])
    path = work.out / ".medcl-done" / "c0.json"
    record = json.loads(path.read_text())
    record["files"] = {"../outside.txt": "", str(outside): ""}
    path.write_text(json.dumps(record))
    assert states(work, cases[:1]) == {"c0": "made"}


def test_a_process_that_is_killed_once_costs_no_scan(cases: list[Case], tmp_path: Path) -> None:
    work = Upper(tmp_path / "out", killers={"c1": 1})
    assert set(states(work, cases, processes=2).values()) <= {"made", "done before"}
    assert len([*work.out.glob("*.out")]) == len(cases)


def test_a_scan_that_kills_every_process_is_found_out(cases: list[Case], tmp_path: Path) -> None:
    work = Upper(tmp_path / "out", killers={"c1": 99})
    found = states(work, cases, processes=2)
    assert found.pop("c1") == "failed"
    assert set(found.values()) <= {"made", "done before"}
    assert len([*work.out.glob("*.out")]) == len(cases) - 1


def test_a_worker_that_is_killed_costs_no_scan(cases: list[Case], tmp_path: Path) -> None:
    work = Upper(tmp_path / "out", seconds=0.3)
    with scheduler() as cluster:
        results = spread(work, cases, scheduler=cluster.scheduler_address)
        found = [next(results)]
        os.kill(next(iter(cluster.workers.values())).process.pid, signal.SIGKILL)
        found += [*results]
    assert sorted(one.name for one in found) == [case.id for case in cases]
    assert {one.state for one in found} <= {"made", "done before"}
    assert len([*work.out.glob("*.out")]) == len(cases)


def test_two_scans_of_one_name_are_refused(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Two scans are called c0"):
        spread(Upper(tmp_path / "out"), [cases[0], *cases])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_said(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made: Not a directory"):
        spread(Upper(tmp_path / "file" / "out"), cases)


def test_a_scheduler_that_is_not_there_is_said(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("napari_medcl.many.spread._CONNECT_S", 0.3)
    for address in ("tcp://127.0.0.1:9", "nonsense://here"):
        with pytest.raises(UserError, match="There is no dask scheduler at"):
            spread(Upper(tmp_path / "out"), cases, scheduler=address)


def test_without_dask_it_says_what_to_install(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"medcl\[cluster\]"):
        spread(Upper(tmp_path / "out"), cases, scheduler="tcp://127.0.0.1:9")


def test_whoever_stops_listening_stops_the_work(cases: list[Case], tmp_path: Path) -> None:
    work, many = Upper(tmp_path / "out", seconds=0.1), [replace(cases[0], id=f"case{n}") for n in range(30)]
    results = spread(work, many, processes=2)
    next(results)
    results.close()
    assert len(work.calls()) < len(many)
