"""What a run writes for others to read, beside its events."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from napari_medcl.training.events import Evaluated, Saved
from napari_medcl.training.metrics import Metrics
from napari_medcl.training.tensorboard import Board

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_medcl.training.events import Event
    from napari_medcl.training.run import Run


class _Table:
    """Keeps `metrics.csv` in the run folder."""

    def __init__(self, run: Run) -> None:
        self._path, self._metrics = run.folder / "metrics.csv", Metrics(run.events()[0])

    def add(self, event: Event) -> None:
        self._metrics.add(event)
        if isinstance(event, Evaluated | Saved):
            self.close()

    def close(self) -> None:
        if self._metrics.step:
            self._metrics.write(self._path)


@contextlib.contextmanager
def logs(run: Run) -> Iterator[Callable[[Event], None]]:
    """Gives a function that takes every event of a run: it keeps `metrics.csv`, and `tensorboard` where asked for.

    Raises:
        OSError: From that function: something cannot be written.
    """
    kept: list[_Table | Board] = [_Table(run), *([Board(run)] if run.config.get("tensorboard") else [])]

    def tell(event: Event) -> None:
        for log in kept:
            log.add(event)

    try:
        yield tell
    finally:
        for log in kept:
            with contextlib.suppress(OSError):  # it ends in any case; the events have all that is missing
                log.close()
