"""What goes wrong in a loop: numbers that are none, and a lack of memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from napari_medcl.errors import UserError
from napari_medcl.training import finetune, loop, pretrain
from napari_medcl.training.config import PretrainConfig
from napari_medcl.training.events import Failed, Noted, Stepped
from napari_medcl.training.memory import ran_out
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run, create
from tests.training.runs import CONFIGS, begin, end_at, same
from tests.training.tasks import Falling, going_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from napari_medcl.data.batch import Batch

LACKS = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "python": lambda: MemoryError("9 bytes"),
}


class Breaking(Falling):
    """At one step, its loss or only its gradient is no number."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__()
        self._at, self._what = at, what

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().losses(batch)
        if len(self.rates) == self._at:
            terms["other"] = self.weight * math.nan if self._what == "loss" else (0 * self.weight).sqrt()
        return terms


class Tight(Falling):
    """More than so many crops do not fit into its memory."""

    def __init__(self, fits: int, lack: Callable[[], Exception], crops: int = 8, late: bool = False) -> None:
        super().__init__(crops)
        self._fits, self._lack, self._late = fits, lack, late

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().losses(batch)
        if len(batch.cases) > self._fits:
            if not self._late:
                raise self._lack()
            terms["square"].register_hook(self._fail)
        return terms

    def _fail(self, _: Tensor) -> None:
        raise self._lack()


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(folder=tmp_path, steps=40)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create("pretrain", {}, tmp_path / "run")


@pytest.fixture
def whole(config: PretrainConfig, tmp_path: Path) -> float:
    """What is learned where nothing goes wrong."""
    task = Falling()
    list(going_on(create("pretrain", {}, tmp_path / "whole"), config, task))
    return task.weight.item()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_no_number_ends_the_run_before_it_spoils_the_model(
    what: str, run: Run, config: PretrainConfig, whole: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    task = Breaking(15, what)
    with pytest.raises(UserError, match=rf"The {what} is not finite at step 15 \(square .*\), on case_15\. Lower the"):
        list(going_on(run, config, task))
    assert math.isfinite(task.weight.item())
    for name in ("best", "last"):
        assert math.isfinite(float((run.checkpoints / f"{name}.safetensors").read_text()))
    last = run.last_event()
    assert isinstance(last, Failed)
    assert (last.step, run.state) == (14, "failed")
    assert "case_15" in run.message
    again = Falling()
    list(going_on(run, config, again))
    assert again.weight.item() == whole
    assert run.state == "finished"


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("lack", LACKS)
def test_a_batch_that_does_not_fit_is_taken_in_parts_of_the_same_gradient(
    lack: str, late: bool, run: Run, config: PretrainConfig, whole: float
) -> None:
    task = Tight(2, LACKS[lack], late=late)
    events = list(going_on(run, config, task))
    assert [event.message for event in events if isinstance(event, Noted)] == [
        f"A batch of 8 crops does not fit into the memory of cpu: it goes on in {parts} parts of {size}, whose "
        "gradients are added up. Crops are compared inside their part."
        for parts, size in ((2, 4), (4, 2))
    ]
    assert task.sizes == [8, 4, 2, 2, 2, 2, *[2] * (39 * 4)]
    assert task.weight.item() == pytest.approx(whole, rel=1e-5)
    losses = {event.step: event.terms["square"] for event in events if isinstance(event, Stepped)}
    assert [*losses] == [*range(1, 41)]
    assert run.state == "finished"


@pytest.mark.parametrize("crops", [3, 5, 7])
def test_parts_that_differ_in_size_count_by_their_crops(
    crops: int, run: Run, config: PretrainConfig, tmp_path: Path
) -> None:
    one, parts = Falling(crops), Tight(2, LACKS["gpu"], crops)
    list(going_on(run, config, one))
    list(going_on(create("pretrain", {}, tmp_path / "parts"), config, parts))
    assert parts.weight.item() == pytest.approx(one.weight.item(), rel=1e-5)


def test_the_parts_are_kept_when_the_run_goes_on(run: Run, config: PretrainConfig, whole: float) -> None:
    end_at(going_on(run, config, Tight(2, LACKS["gpu"])), run, 20, "pause")
    run.call()
    task = Tight(2, LACKS["gpu"])
    events = list(going_on(run, config, task))
    assert not [event for event in events if isinstance(event, Noted)]
    assert set(task.sizes) == {2}
    assert task.weight.item() == pytest.approx(whole, rel=1e-5)


def test_where_no_batch_fits_that_is_said(run: Run, config: PretrainConfig) -> None:
    task = Tight(1, LACKS["gpu"])
    task.smallest = 2
    with pytest.raises(UserError, match="2 crops at a time do not fit into the memory of cpu, and fewer make no batch"):
        list(going_on(run, config, task))
    assert task.sizes == [8, 4, 2]
    assert run.state == "failed"
    assert task.weight.item() == 0


def test_another_error_is_no_lack_of_memory(run: Run, config: PretrainConfig) -> None:
    task = Tight(2, lambda: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(going_on(run, config, task))
    assert task.sizes == [8]


def test_torchs_own_words_are_understood() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.uint8)
    assert ran_out(error.value)


@pytest.mark.parametrize("what", ["plain", "supercl"])
def test_a_real_run_goes_on_in_parts(
    what: str, blobs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = Run(tmp_path / "run"), CONFIGS[what](blobs())
    name = "_Finetuning" if what == "plain" else "_Pretraining"
    kind = getattr(finetune if what == "plain" else pretrain, name)
    losses = kind.losses

    def tight(self: object, batch: Batch) -> dict[str, Tensor]:
        if len(batch.cases) > 2:
            raise LACKS["gpu"]()
        return losses(self, batch)

    monkeypatch.setattr(kind, "losses", tight)
    said = end_at(begin(config, run.folder), run, 6, "pause")
    assert [event.step for event in said if isinstance(event, Noted)] == [0]
    list(resume(run.folder))
    assert run.state == "finished"
    list(begin(config, tmp_path / "whole"))
    assert same(run.folder, tmp_path / "whole")
