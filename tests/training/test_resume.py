"""Runs that are interrupted and go on."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.training import loop
from napari_medcl.training.events import Evaluated, Finished, Resumed, Started
from napari_medcl.training.finetune import _Finetuning
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run, create
from napari_medcl.training.state import read_state, write_state
from tests.training.runs import CONFIGS, begin, end_at, numbers, same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def data(blobs: Callable[..., Path]) -> Path:
    return blobs()


@pytest.fixture
def paused(data: Path, tmp_path: Path) -> Run:
    """A fine-tuning run that rests after a third of its steps."""
    run = Run(tmp_path / "paused")
    end_at(begin(CONFIGS["plain"](data), run.folder), run, 4, "pause")
    return run


def uninterrupted(data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    list(begin(CONFIGS["plain"](data), folder))
    return folder


@pytest.mark.parametrize("how", ["pause", "stop", "kill"])
@pytest.mark.parametrize("what", CONFIGS)
def test_a_run_that_was_interrupted_twice_ends_with_the_numbers_of_one_that_was_not(
    what: str, how: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIGS[what](data)
    whole = list(begin(config, tmp_path / "whole"))
    if how == "kill":
        monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)  # a state after every step, of which the last is then missing
    run = Run(tmp_path / "run")
    end_at(begin(config, run.folder), run, 4, how)
    assert run.state == {"pause": "paused", "stop": "stopped", "kill": "dead"}[how]
    torch.manual_seed(99)
    end_at(resume(run.folder), run, 9, how)
    torch.manual_seed(98)
    last = list(resume(run.folder))
    assert isinstance(last[0], Resumed)
    assert 8 <= last[0].step < 12
    assert run.state == "finished"
    assert same(run.folder, tmp_path / "whole")
    interrupted = numbers(run.events()[0])
    assert {key: interrupted[key] for key in numbers(whole)} == numbers(whole)


def test_a_run_that_never_saved_begins_anew(data: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    end_at(begin(CONFIGS["plain"](data), run.folder), run, 4, "kill")
    assert not [*run.checkpoints.glob("state-*")]
    events = list(resume(run.folder))
    assert events[0] == Resumed(
        step=0, message="Begins anew: no state was saved before it was interrupted.", time=events[0].time
    )
    assert same(run.folder, uninterrupted(data, tmp_path))


def test_a_run_that_has_not_begun_begins(data: Path, tmp_path: Path) -> None:
    """As after a kill while the process started."""
    create("finetune", CONFIGS["plain"](data).to_json(), tmp_path / "run")
    events = list(resume(tmp_path / "run"))
    assert [event.kind for event in events][:2] == ["preparing", "started"]
    assert same(tmp_path / "run", uninterrupted(data, tmp_path))


def test_one_that_has_finished_is_not_resumed(data: Path, tmp_path: Path) -> None:
    folder = uninterrupted(data, tmp_path)
    before = (folder / "events.jsonl").read_bytes()
    Run(folder).call()  # as the one that starts the process does
    with pytest.raises(UserError, match=f"whole has finished.*medcl runs extend {folder}"):
        resume(folder)
    assert (folder / "events.jsonl").read_bytes() == before
    assert Run(folder).state == "finished"


def test_a_run_that_is_refused_does_not_start(paused: Run, data: Path, tmp_path: Path) -> None:
    config = CONFIGS["plain"](data).model_copy(update={"start": tmp_path / "nothing"})
    for run, refused in (
        (paused, lambda: resume(paused.folder)),
        (create("finetune", config.to_json(), tmp_path / "new"), lambda: begin(config, tmp_path / "new")),
    ):
        write_json(run.folder / "config.json", {"stage": "finetune", **config.to_json()})
        run.call()
        assert run.state == "starting"
        with pytest.raises(UserError, match="nothing"):
            refused()
        assert run.state == ("paused" if run == paused else "dead")


def test_one_that_goes_on_is_not_resumed(paused: Run) -> None:
    with paused.locked(), pytest.raises(UserError, match=f"paused goes on already.*medcl runs pause {paused.folder}"):
        resume(paused.folder)


def test_data_that_were_removed_are_named_and_may_be_put_back(paused: Run, data: Path, tmp_path: Path) -> None:
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=str(data)):
        list(resume(paused.folder))
    assert paused.state == "failed"
    assert str(data) in paused.message
    (tmp_path / "elsewhere").rename(data)
    list(resume(paused.folder))
    assert same(paused.folder, uninterrupted(data, tmp_path))


def test_a_scan_that_was_removed_is_named(paused: Run, data: Path, tmp_path: Path) -> None:
    learned = json.loads((paused.folder / "split.json").read_text())["learned"]
    files = [path for case in learned[:2] for path in data.rglob(f"{case}.nii.gz")]
    for path in files:
        path.rename(tmp_path / f"{path.parent.name}-{path.name}")
    with pytest.raises(UserError, match=rf"does not hold {learned[0]}.*{learned[1]} any more.*Put them back"):
        list(resume(paused.folder))
    for path in files:
        (tmp_path / f"{path.parent.name}-{path.name}").rename(path)
    list(resume(paused.folder))
    assert same(paused.folder, uninterrupted(data, tmp_path))


def test_test_scans_that_are_away_for_a_while_stay_on_their_side(data: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = CONFIGS["plain"](data).model_copy(update={"test": 0.25})
    end_at(begin(config, run.folder), run, 4, "pause")
    sides = json.loads((run.folder / "split.json").read_text())
    scan = data / "imagesTr" / f"{sides['test'][0]}.nii.gz"
    scan.rename(tmp_path / scan.name)
    (data / "labelsTr" / scan.name).rename(tmp_path / f"mask-{scan.name}")
    list(resume(run.folder))
    assert json.loads((run.folder / "split.json").read_text()) == sides


def test_a_model_that_was_measured_at_a_stop_gives_way_to_better_ones_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dice = Run(tmp_path / "run"), iter([0.5, 0.8, 0.6, 0.7, 0.6])
    monkeypatch.setattr(_Finetuning, "_validation_dice", lambda self, predictor, item: [next(dice)] * 2)
    end_at(begin(CONFIGS["plain"](data), run.folder), run, 5, "stop")
    best = (run.checkpoints / "best.safetensors").read_bytes()
    list(resume(run.folder))
    assert [event.best for event in run.events()[0] if isinstance(event, Evaluated)] == [True, True, False, False]
    assert (run.checkpoints / "best.safetensors").read_bytes() == best


def test_a_state_of_another_kind_of_device_goes_on(data: Path, tmp_path: Path) -> None:
    """The numbers that its source of random numbers would have given are not to be had here."""
    run = Run(tmp_path / "run")
    end_at(begin(CONFIGS["plain"](data), run.folder), run, 4, "pause")
    state, _ = read_state(run.checkpoints)
    assert state is not None
    state["task"]["loader"]["views"] = torch.zeros(16, dtype=torch.uint8)
    for path in run.checkpoints.glob("state-*"):
        path.unlink()
    write_state(run.checkpoints, 4, state)
    events = list(resume(run.folder))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "done"


def test_scans_that_were_added_change_nothing(paused: Run, data: Path, tmp_path: Path) -> None:
    whole = uninterrupted(data, tmp_path)
    split = (paused.folder / "split.json").read_text()
    for side in ("imagesTr", "labelsTr"):
        for name in ("case_00", "case_9"):
            shutil.copyfile(data / side / "case_1.nii.gz", data / side / f"{name}.nii.gz")
    list(resume(paused.folder))
    assert (paused.folder / "split.json").read_text() == split
    assert same(paused.folder, whole)


def test_a_scan_that_changed_is_named(paused: Run, data: Path) -> None:
    case = json.loads((paused.folder / "split.json").read_text())["learned"][0]
    path = data / "imagesTr" / f"{case}.nii.gz"
    file = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(file.dataobj) * 2, file.affine), path)
    (started,) = [event for event in resume(paused.folder) if isinstance(event, Started)]
    assert f"The files of {case} have changed since the run began" in started.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"stage": "finetune", "folder"', r"config\.json cannot be read"),
        ("[1, 2]", "holds no settings by name"),
        ('{"stage": "finetune"}', r"(?s)config\.json holds no settings of a run:.*folder: Field required"),
        (
            '{"stage": "finetune", "folder": "x", "width": -3, "colour": 1}',
            r"(?s)width: Input should be greater.*colour: Extra inputs",
        ),
    ],
)
def test_settings_that_are_broken_are_said(text: str, told: str, paused: Run) -> None:
    (paused.folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=told) as error:
        resume(paused.folder)
    assert str(paused.folder) in str(error.value)
    assert paused.state == "paused"


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path / 'nothing'} is not a run folder"):
        resume(tmp_path / "nothing")
