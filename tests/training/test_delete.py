from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from napari_medcl.errors import UserError
from napari_medcl.training.delete import delete, size_of
from napari_medcl.training.events import Finished
from napari_medcl.training.run import Run, create

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = create("finetune", {"folder": "x"}, tmp_path / "runs" / "one")
    run.answer()
    run.append(Finished(step=1, reason="done", message="Done."))
    return run


def test_folder_is_gone_and_what_its_links_lead_to_is_not(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii").write_text("scan")
    (run.folder / "inputs").symlink_to(tmp_path / "scans", target_is_directory=True)
    (run.folder / "file").symlink_to(tmp_path / "scans" / "a.nii")
    other = create("finetune", {"folder": "x"}, run.folder.parent / "two")
    delete(run, run.folder.parent)
    assert list(other.folder.parent.iterdir()) == [other.folder]
    assert (tmp_path / "scans" / "a.nii").read_text() == "scan"


def test_run_that_goes_on_is_kept(run: Run) -> None:
    with run.locked(), pytest.raises(UserError, match="goes on"):
        delete(run, run.folder.parent)
    run.call()
    with pytest.raises(UserError, match="goes on"):
        delete(run, run.folder.parent)
    assert (run.folder / "events.jsonl").is_file()


@pytest.mark.parametrize("where", ["link", "below", "plain", "root"])
def test_nothing_but_a_run_folder_in_the_root_is_deleted(run: Run, tmp_path: Path, where: str) -> None:
    root = run.folder.parent
    (root / "link").symlink_to(run.folder, target_is_directory=True)
    (root / "below" / "deep").mkdir(parents=True)
    shutil.copy(run.folder / "config.json", root / "below" / "deep")
    (root / "plain").mkdir()
    folder = {"link": root / "link", "below": root / "below" / "deep", "plain": root / "plain", "root": root}[where]
    with pytest.raises(UserError, match="not a run folder"):
        delete(Run(folder), root)
    assert folder.exists()
    assert (run.folder / "events.jsonl").is_file()


def test_what_cannot_be_deleted_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError("busy")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(UserError, match=r"one-deleted cannot be deleted: busy"):
        delete(run, run.folder.parent)


def test_size_is_that_of_its_files(run: Run, tmp_path: Path) -> None:
    before = size_of(run)
    (tmp_path / "large").write_bytes(b"x" * 5000)
    (run.folder / "link").symlink_to(tmp_path / "large")
    (run.folder / "checkpoints" / "last.safetensors").write_bytes(b"x" * 1000)
    assert size_of(run) == before + 1000
