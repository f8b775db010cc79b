from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from napari_medcl.training.profile import Profile
from tests.commands import SMALL, medcl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Sleeper(nn.Module):
    def __init__(self, seconds: float, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.seconds, self.inner = seconds, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x if self.inner is None else self.inner(x)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that only sleeping takes."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def shares(line: str) -> dict[str, int]:
    return {name: int(share) for name, share in re.findall(r"([a-z ]+) (\d+)%", line)}


def test_parts_inside_others_are_taken_from_them(clock: list[float]) -> None:
    profile, layers = Profile(torch.device("cpu"), epoch=2), Sleeper(1, Sleeper(3))
    profile.watch(layers.modules())
    layers(torch.zeros(1))  # outside of a step: not timed
    for _ in range(5):
        with profile.step():
            with profile.part("waiting"):
                time.sleep(2)
            with profile.part("loss"):
                time.sleep(1)
                layers(torch.zeros(1))
                time.sleep(1)
            with profile.part("backward"):
                time.sleep(8)
            time.sleep(4)
        time.sleep(100)
    first, later = profile.in_words()
    assert first.startswith("First epoch (2 steps of 20000 ms)")
    assert later.startswith("Later epochs (3 steps of 20000 ms)")
    assert later.endswith("1.67 times the network's forward and backward pass.")
    for line in (first, later):
        assert shares(line) == {
            " waiting for crops": 10, " views": 0, " network forward": 20, " losses": 10, " backward": 40,
            " update of the weights": 0, " the rest": 20,
        }  # fmt: skip


def test_an_error_in_a_layer_leaves_the_times_whole(clock: list[float]) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError

    profile, layer = Profile(torch.device("cpu"), epoch=1), Broken()
    profile.watch([layer])
    with profile.step():
        with pytest.raises(RuntimeError), profile.part("loss"):
            layer(torch.zeros(1))
        with profile.part("backward"):
            time.sleep(1)
    assert shares(profile.in_words()[0])[" backward"] == 100


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_says_where_its_time_went(stage: str, blobs: Callable[..., Path], tmp_path: Path) -> None:
    said = medcl(stage, blobs(), "--dims", "2d", "--steps", 6, "--run", tmp_path / "run", "--profile", *SMALL)
    first, later = (shares(line) for line in re.findall(r"(?:First epoch|Later epochs) \(.*?pass", said))
    for parts in (first, later):
        assert 95 <= sum(parts.values()) <= 105
        assert parts[" network forward"] > 5
        assert parts[" backward"] > 5


def test_nothing_is_said_unasked(blobs: Callable[..., Path], tmp_path: Path) -> None:
    assert "epoch" not in medcl("pretrain", blobs(), "--dims", "2d", "--steps", 2, "--run", tmp_path / "run", *SMALL)
