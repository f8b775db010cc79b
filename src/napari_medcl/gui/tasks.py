"""Work in a thread of the viewer's process, of which only the last answer counts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal
from superqt.utils import FunctionWorker

from napari_medcl.errors import Stopped, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)


class Task(QObject):  # type: ignore[misc]
    """Runs one function at a time away from the screen.

    The function is called with `progress`, to be called with numbers from 0 to 1, and `stop`, which says
    whether to give up. A new start, `stop()` and the end of the widget or the viewer ask it to; what it
    answers after that is dropped.

    Attributes:
        progressed: How much is done, 0 to 1.
        done: What the function gave back.
        failed: What went wrong, in words for the user.
        ended: Nothing runs any more, however that came about; follows `done` and `failed`.
    """

    progressed = Signal(float)
    done = Signal(object)
    failed = Signal(str)
    ended = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._workers: list[FunctionWorker] = []
        self._generation = 0

    @property
    def running(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._workers)

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Calls the function in a thread; an answer still awaited is dropped."""
        self._drop()
        relay = _Relay()
        relay.told.connect(self._hear)
        worker = FunctionWorker(_call, function, args, kwargs, relay, self._generation)
        relay.stop = lambda: worker.abort_requested or not isalive(self)
        worker.returned.connect(self._take)
        self._workers.append(worker)
        worker.start()

    def stop(self) -> None:
        """Asks the function to give up."""
        if self.running:
            self._drop()
            self.ended.emit()

    def _drop(self) -> None:
        self._generation += 1
        for worker in self._workers:
            worker.quit()
        self._workers.clear()

    def _hear(self, generation: int, fraction: float) -> None:
        if generation == self._generation:
            self.progressed.emit(fraction)

    def _take(self, answer: _Answer) -> None:
        if answer.generation != self._generation:
            return
        self._workers.clear()
        if answer.message:
            self.failed.emit(answer.message)
        elif not answer.stopped:
            self.done.emit(answer.value)
        if not self.running:  # whoever got the answer may have started the next one
            self.ended.emit()


class _Relay(QObject):  # type: ignore[misc]
    """Brings word from the thread; outlives the widget that asked."""

    told = Signal(int, float)
    stop: Callable[[], bool]


@dataclass(frozen=True)
class _Answer:
    generation: int
    value: Any = None
    message: str = ""
    stopped: bool = False


def _call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], relay: _Relay, generation: int
) -> _Answer:
    """Calls the function and turns what it raises into words."""
    try:
        value = function(
            *args,
            **kwargs,
            progress=lambda fraction: relay.told.emit(generation, float(fraction)),
            stop=relay.stop,
        )
    except Stopped:
        return _Answer(generation, stopped=True)
    except Exception as error:
        return _Answer(generation, message=in_words(error))
    return _Answer(generation, value)


def in_words(error: Exception) -> str:
    """What to tell the user about an error; one that is not the user's is also written to the log."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this. Close other programs, or use a smaller scan."
    _log.error("An unexpected error", exc_info=error)
    return f"Something went wrong that should not: {type(error).__name__}: {error}. The log has the details."
