"""Previews while a run goes on: what they show, when they come, and that the training takes no notice."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.cases import find_cases
from napari_medcl.data.volume import Labels, Volume
from napari_medcl.errors import UserError
from napari_medcl.inference.features import features
from napari_medcl.inference.predict import Predictor
from napari_medcl.methods import SuperCL
from napari_medcl.training import previewer
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Evaluated, Noted, Previewed, Stepped
from napari_medcl.training.preview import (
    Preview,
    ask_preview,
    asked_preview,
    cases_of,
    preview_stamp,
    request_stamp,
)
from napari_medcl.training.run import Run, create
from tests.training.runs import SMALL, begin, numbers, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_medcl.training.events import Event

CONFIGS = {
    "pretrain 2d": lambda folder: PretrainConfig(folder=folder, dims="2d", method=SuperCL(), **SMALL),
    "pretrain 3d": lambda folder: PretrainConfig(folder=folder, dims="3d", method=SuperCL(), **SMALL),
    "finetune 2d": lambda folder: FinetuneConfig(folder=folder, dims="2d", val=0.25, evaluations=3, **SMALL),
    "finetune 3d": lambda folder: FinetuneConfig(folder=folder, dims="3d", uafs=True, evaluations=3, **SMALL),
}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as there are steps."""
    monkeypatch.setattr(previewer, "_SHORTEST_S", 0.0)
    monkeypatch.setattr(previewer, "_SHARE", math.inf)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more often than it must be."""
    monkeypatch.setattr(previewer, "_SHORTEST_S", math.inf)


def asking(events: Iterator[Event], run: Run, wishes: dict[int, str | None]) -> list[Event]:
    """Lets a run go, and asks for previews after its steps."""
    said = []
    for event in events:
        said.append(event)
        if isinstance(event, Stepped) and event.step in wishes:
            ask_preview(run, wishes[event.step])
    return said


def previews(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.step, event.case) for event in events if isinstance(event, Previewed)]


@pytest.mark.parametrize("what", CONFIGS)
@pytest.mark.usefixtures("often")
def test_the_training_takes_no_notice(what: str, blobs: Callable[..., Path], tmp_path: Path) -> None:
    config = CONFIGS[what](blobs(masks=3))
    without = list(begin(config, tmp_path / "without"))
    run = Run(tmp_path / "with")
    events = asking(begin(config, run.folder), run, {3: "case_3", 7: "case_0", 10: None})
    assert previews(events) == [*((step, "case_3") for step in range(3, 7)), *((step, "case_0") for step in (7, 8, 9))]
    assert not previews(without)
    assert same(run.folder, tmp_path / "without")
    assert numbers(events) == numbers(without)


@pytest.mark.usefixtures("seldom")
def test_it_comes_at_once_and_with_every_evaluation(blobs: Callable[..., Path], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    events = asking(begin(CONFIGS["finetune 2d"](blobs()), run.folder), run, {2: "case_0"})
    assert previews(events) == [(2, "case_0"), (4, "case_0"), (8, "case_0"), (12, "case_0")]
    kinds = [event.kind for event in events if isinstance(event, Evaluated | Previewed)]
    assert kinds == ["previewed", *["evaluated", "previewed"] * 3]  # of the model that was measured


class Untouched:
    """A task that has no evaluations, and that nobody may look at."""

    evaluations = 0


def made(self: Any, subject: Any, step: int) -> Previewed:
    return Previewed(step=step, case="case_0", path="")


@pytest.mark.usefixtures("seldom")
def test_pretraining_shows_it_twenty_times_at_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create("pretrain", {}, tmp_path / "run")
    monkeypatch.setattr(previewer.Previewer, "_made_of", made)
    looks = previewer.Previewer(run, PretrainConfig(folder=tmp_path), Untouched())  # type: ignore[arg-type]
    assert not list(looks.when_due(1, 0.001))
    ask_preview(run, "case_0")
    found = [event for step in range(1001) for event in looks.when_due(step, step / 1000)]
    assert [step for step, _ in previews(found)] == [0, *range(50, 1001, 50)]


def test_it_takes_two_hundredths_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, now, taken = create("pretrain", {}, tmp_path / "run"), 0.0, 0.0

    def slow(self: Any, subject: Any, step: int) -> Previewed:
        nonlocal now, taken
        now, taken = now + 3, taken + 3
        return made(self, subject, step)

    monkeypatch.setattr(previewer.Previewer, "_made_of", slow)
    monkeypatch.setattr(previewer.time, "monotonic", lambda: now)
    looks = previewer.Previewer(run, PretrainConfig(folder=tmp_path), Untouched())  # type: ignore[arg-type]
    ask_preview(run, "case_0")
    for step in range(20_000):
        now += 0.1
        list(looks.when_due(step, 0.01))
    assert 0.015 * now < taken < 0.021 * now


def test_labels_are_those_of_the_model_on_the_scans_own_grid(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder, run = blobs(spacing=2.0), Run(tmp_path / "run")
    config = CONFIGS["finetune 3d"](folder)
    events = asking(begin(config, run.folder), run, {12: "case_2"})
    (path,) = [event.path for event in events if isinstance(event, Previewed)]
    found = Preview.last(run, "case_2")
    assert found is not None
    assert (found.case, found.step) == ("case_2", 12)
    labels = found.read(run)
    assert isinstance(labels, Labels)
    model = Checkpoint.load(run.folder / "checkpoints" / "last.safetensors")
    scan = find_cases(folder).select(["case_2"])[0].volume()
    told = Predictor(model, "cpu", 0.25, precision="float32")(scan).labels
    np.testing.assert_array_equal(labels.array, told.array)
    assert (labels.spacing, labels.origin) == (scan.spacing, scan.origin)
    assert labels.names == {0: "background", 1: "class 1", 2: "class 2"}
    file, image = (nib.load(path) for path in (run.folder / path, scan.source.path))  # type: ignore[union-attr]
    np.testing.assert_array_equal(file.affine, image.affine)
    assert file.shape == image.shape


def test_colours_are_those_of_the_bottleneck(blobs: Callable[..., Path], tmp_path: Path) -> None:
    folder, run = blobs(masks=0), Run(tmp_path / "run")
    asking(begin(CONFIGS["pretrain 2d"](folder), run.folder), run, {12: "case_1"})
    found = Preview.last(run, "case_1")
    assert found is not None
    picture = found.read(run)
    assert isinstance(picture, Volume)
    scan = find_cases(folder).select(["case_1"])[0].volume()
    model = Checkpoint.load(run.folder / "checkpoints" / "last.safetensors")
    told = features(model, scan, "cpu", "float32").picture
    assert picture.rgb
    assert (picture.spacing, picture.origin) == (told.spacing, told.origin)
    np.testing.assert_array_equal(picture.array, told.array)


def test_pictures_stay_flat(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for side in ("images", "masks"):
        (tmp_path / "data" / side).mkdir(parents=True)
    for number in range(3):
        colours = random.integers(0, 255, (30, 44, 3), np.uint8)
        Image.fromarray(colours).save(tmp_path / "data" / "images" / f"p{number}.png")
        Image.fromarray((colours[..., 0] > 128).astype(np.uint8)).save(tmp_path / "data" / "masks" / f"p{number}.png")
    pre, fine = Run(tmp_path / "pre"), Run(tmp_path / "fine")
    for run, config in (
        (pre, PretrainConfig(folder=tmp_path / "data", **SMALL)),
        (fine, FinetuneConfig(folder=tmp_path / "data", **SMALL)),
    ):
        asking(begin(config, run.folder), run, {12: "p1"})
        found = Preview.last(run, "p1")
        assert found is not None
        shown = found.read(run)
        assert shown.source is not None
        assert shown.source.shape == (30, 44)
        assert shown.shape[0] == 1
        if isinstance(shown, Labels):
            assert shown.shape == (1, 30, 44)


def test_what_cannot_be_shown_is_said_once(blobs: Callable[..., Path], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    events = asking(begin(CONFIGS["finetune 2d"](blobs()), run.folder), run, {2: "case_9"})
    (note,) = [event for event in events if isinstance(event, Noted)]
    assert "case_9" in note.message
    assert "goes on without it" in note.message
    assert run.state == "finished"
    assert not previews(events)


@pytest.mark.usefixtures("often")
def test_a_request_that_is_no_json_is_said_once(blobs: Callable[..., Path], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    events = []
    for event in begin(CONFIGS["finetune 2d"](blobs()), run.folder):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 2:
            (run.folder / "preview").write_text("case_1", "utf-8")
    (note,) = [event for event in events if isinstance(event, Noted)]
    assert '{"case": "NAME"}' in note.message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("no"), "memory"),
        (MemoryError(), "memory"),
        (OSError("no space left"), "no space left"),
        (ZeroDivisionError("oops"), "oops"),
    ],
)
@pytest.mark.usefixtures("often")
def test_nothing_that_goes_wrong_ends_the_run(
    error: Exception, words: str, blobs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(previewer, "write_labels", broken)
    run = Run(tmp_path / "run")
    events = asking(begin(CONFIGS["finetune 2d"](blobs()), run.folder), run, {2: "case_0", 5: "case_1"})
    notes = [event for event in events if isinstance(event, Noted)]
    assert [note.step for note in notes] == [2, 5]
    assert all(words in note.message for note in notes)
    assert run.state == "finished"


def test_a_request_that_is_withdrawn_meanwhile_is_given_up(
    blobs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = Run(tmp_path / "run"), []

    def withdrawn(*args: Any, **how: Any) -> Any:
        asked.append(asked_preview(run))
        ask_preview(run, None)
        return features(*args, **how)

    monkeypatch.setattr(previewer, "features", withdrawn)
    events = asking(begin(CONFIGS["pretrain 2d"](blobs(masks=0)), run.folder), run, {2: "case_0"})
    assert asked == ["case_0"]
    assert not previews(events)
    assert run.state == "finished"


def test_requests_are_files(tmp_path: Path) -> None:
    run = create("finetune", {}, tmp_path / "run")
    assert asked_preview(run) is None
    assert request_stamp(run) is None
    ask_preview(run, "case_3")
    first = request_stamp(run)
    assert json.loads((run.folder / "preview").read_text("utf-8")) == {"case": "case_3"}
    assert asked_preview(run) == "case_3"
    ask_preview(run, "case_3")
    assert request_stamp(run) not in (None, first)
    ask_preview(run, None)
    ask_preview(run, None)
    assert asked_preview(run) is None
    for text in ("[]", "3", '{"other": 1}', "case", "\0"):
        (run.folder / "preview").write_text(text, "utf-8")
        with pytest.raises(UserError, match="preview"):
            asked_preview(run)


def test_cases_are_listed_with_their_side(tmp_path: Path) -> None:
    run = create("finetune", {}, tmp_path / "run")
    assert cases_of(run) == {}
    sides = {"learned": ["a", "b"], "train": ["a", "b", "c"], "val": ["d"], "test": ["e"], "unlabelled": ["f"]}
    (run.folder / "split.json").write_text(json.dumps(sides), "utf-8")
    told = {"a": "learned", "b": "learned", "c": "not used", "d": "validation", "e": "test", "f": "no mask"}
    assert cases_of(run) == told
    assert next(iter(cases_of(run))) == "d"


def test_previews_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    run = create("finetune", {}, tmp_path / "run")
    assert Preview.last(run, "a") is None
    assert preview_stamp(run, "a") is None
    (run.folder / "previews").mkdir()
    (run.folder / "previews" / "a.json").write_text("{}", "utf-8")
    assert preview_stamp(run, "a") is not None
    with pytest.raises(UserError, match=r"a\.json"):
        Preview.last(run, "a")
