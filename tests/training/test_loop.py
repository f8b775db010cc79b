"""The loop: schedule, averages, a clean stop, and a loss that is no number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from napari_medcl.errors import UserError
from napari_medcl.training import loop
from napari_medcl.training.config import PretrainConfig
from napari_medcl.training.events import Evaluated, Failed
from napari_medcl.training.run import Run, create

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class _Model:
    def __init__(self, value: float) -> None:
        self.value = value

    def save(self, path: Path) -> None:
        path.write_text(str(self.value))


class Falling(loop.Task):
    """Learns that a number is 3."""

    def __init__(self, breaks_at: int = -1, stop: tuple[Run, int] | None = None) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.optimiser = torch.optim.SGD([self.weight], lr=1)
        self.device, self.autocast, self.evaluations = torch.device("cpu"), None, 4
        self.rates: list[float] = []
        self.breaks_at, self.stop, self.count = breaks_at, stop, 0

    def losses(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        self.count += 1
        self.rates.append(self.optimiser.param_groups[0]["lr"])
        if self.stop is not None and self.count == self.stop[1]:
            self.stop[0].ask_stop()
        bad = math.nan if self.count == self.breaks_at else 0.0
        return {"square": (self.weight - 3) ** 2 + bad}, ("case_7",)

    def rate(self, progress: float) -> float:
        return 0.1 * loop.cosine(progress)

    def checkpoint(self, step: int) -> _Model:  # type: ignore[override]
        return _Model(self.weight.item())

    def evaluate(self, step: int) -> Evaluated:
        return Evaluated(step=step, dice={}, mean=-abs(self.weight.item() - 3), best=False)


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(folder=tmp_path, steps=40)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create("pretrain", {}, tmp_path / "run")


def test_a_run_learns_measures_saves_and_ends(run: Run, config: PretrainConfig) -> None:
    task = Falling()
    events = list(loop.train(run, config, task))
    kinds = [event.kind for event in events]
    assert kinds[-1] == "finished"
    assert kinds.count("evaluated") == 4
    assert [event.step for event in events if event.kind == "evaluated"] == [10, 20, 30, 40]
    assert task.count == 40
    assert task.weight.item() == pytest.approx(3, abs=0.1)
    assert float(run.checkpoint.read_text()) == pytest.approx(3, abs=0.1)  # type: ignore[union-attr]
    assert task.rates[0] == pytest.approx(0.1)
    assert task.rates == sorted(task.rates, reverse=True)


def test_a_stop_saves_and_ends_after_the_step(run: Run, config: PretrainConfig) -> None:
    task = Falling(stop=(run, 7))
    events = list(loop.train(run, config, task))
    assert task.count == 7
    assert events[-1].reason == "stopped"  # type: ignore[union-attr]
    assert run.checkpoint is not None


def test_a_loss_that_is_no_number_ends_the_run_before_it_spoils_the_model(run: Run, config: PretrainConfig) -> None:
    task = Falling(breaks_at=15)
    with pytest.raises(UserError, match=r"step 15 .*case_7"):
        list(loop.recorded(run, lambda: loop.train(run, config, task)))
    assert math.isfinite(task.weight.item())
    assert math.isfinite(float((run.folder / "checkpoints" / "best.safetensors").read_text()))
    last = run.last_event()
    assert isinstance(last, Failed)
    assert "case_7" in last.message
    assert run.state == "failed"
    assert not run.is_alive()


def test_time_ends_a_run_too(run: Run, config: PretrainConfig) -> None:
    events = list(loop.train(run, config.model_copy(update={"steps": None, "minutes": 0.01}), Falling()))
    assert events[-1].kind == "finished"
    assert events[-1].step > 0


def test_a_fault_of_the_program_is_written_down(run: Run) -> None:
    def broken() -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        list(loop.recorded(run, broken))  # type: ignore[arg-type]
    assert "oops" in run.message


def test_the_meter_says_means() -> None:
    meter = loop.Meter()
    assert not meter.due()
    for value in (1.0, 3.0):
        meter.add({"a": torch.tensor(value)})
    assert meter.due()
    assert meter.take() == {"a": 2.0}
    assert not meter.due()
