"""Where the time of a run's steps goes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

PARTS = {
    "waiting": "waiting for crops",
    "views": "views",
    "forward": "network forward",
    "loss": "losses",
    "backward": "backward",
    "update": "update of the weights",
}
_NETWORK = ("forward", "backward")


class Profile:
    """Times the parts of steps; what begins inside another part is taken from that.

    Args:
        device: Where the steps are made; what was started there is waited for at every border.
        epoch: Steps in which every scan is drawn once.
    """

    def __init__(self, device: torch.device, epoch: int) -> None:
        self._device, self._epoch = device, epoch
        self._steps = 0
        self._open: list[str] = []
        self._since = 0.0
        self._seconds: dict[bool, dict[str, float]] = {first: {} for first in (True, False)}
        self._count = {True: 0, False: 0}
        self._depth = 0

    def watch(self, modules: Iterable[nn.Module]) -> None:
        """Takes the calls of modules, and all that they call, for the network's forward pass."""
        for module in {id(module): module for module in modules}.values():
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave, always_call=True)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a step, whose parts stand inside."""
        first = self._steps < self._epoch
        with self.part("rest"):
            yield
        self._steps += 1
        self._count[first] += 1

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around a part of a step."""
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def in_words(self) -> list[str]:
        """Shares of the time in the first epoch, in which scans come from the disk, and in all later ones."""
        return [
            f"{which} ({self._count[first]} steps of {1000 * sum(parts.values()) / self._count[first]:.0f} ms): "
            + ", ".join(f"{said} {share:.0%}" for said, share in self._shares(parts))
            + f". A step takes {sum(parts.values()) / sum(parts.get(name, 0) for name in _NETWORK):.2f} times the "
            "network's forward and backward pass."
            for first, which in ((True, "First epoch"), (False, "Later epochs"))
            if self._count[first] and (parts := self._seconds[first])
        ]

    def _shares(self, parts: dict[str, float]) -> list[tuple[str, float]]:
        total = sum(parts.values())
        return [(said, parts.get(name, 0) / total) for name, said in {**PARTS, "rest": "the rest"}.items()]

    def _begin(self, name: str) -> None:
        self._add()
        self._open.append(name)

    def _end(self) -> None:
        self._add()
        self._open.pop()

    def _add(self) -> None:
        """Gives the time since the last border to the part that was open."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._open:
            parts = self._seconds[self._steps < self._epoch]
            parts[self._open[-1]] = parts.get(self._open[-1], 0) + now - self._since
        self._since = now

    def _enter(self, *_: Any) -> None:
        """Outside of a step, such as in validation, nothing is timed."""
        if self._open:
            self._depth += 1
            if self._depth == 1:
                self._begin("forward")

    def _leave(self, *_: Any) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth:
                self._end()
