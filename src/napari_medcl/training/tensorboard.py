"""The numbers of a run for TensorBoard."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from napari_medcl.training.events import Evaluated, Resumed, Saved, Started, Stepped
from napari_medcl.training.metrics import numbers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from napari_medcl.training.events import Event
    from napari_medcl.training.run import Run


class Board:
    """Writes the folder `tensorboard` of a run: every number by step, and the settings as text."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writer: SummaryWriter | None = None
        self._gone_on_from: int | None = None

    def add(self, event: Event) -> None:
        """Writes the numbers of an event.

        Raises:
            OSError: They cannot be written.
        """
        if isinstance(event, Resumed):
            self._gone_on_from = event.step
        elif isinstance(event, Started):
            self._writer = self._open()
        elif self._writer is not None and isinstance(event, Stepped | Evaluated):
            for name, value in numbers(event).items():
                if not math.isnan(value):
                    self._writer.add_scalar(name, value, event.step, event.time)
        elif self._writer is not None and isinstance(event, Saved):
            self._writer.flush()

    def close(self) -> None:
        """Writes what is still to be written.

        Raises:
            OSError: That cannot be done.
        """
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> SummaryWriter:
        """A new file in the folder; TensorBoard leaves out what older ones hold of the steps to come."""
        from torch.utils.tensorboard import SummaryWriter

        after = None if self._gone_on_from is None else self._gone_on_from + 1
        writer = SummaryWriter(str(self._run.folder / "tensorboard"), purge_step=after)
        told = json.dumps(self._run.config, indent=2, ensure_ascii=False)
        writer.add_text("settings", "\n".join(f"    {line}" for line in told.splitlines()), after or 0)
        return writer
