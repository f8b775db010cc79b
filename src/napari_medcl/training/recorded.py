"""A run that is written down while it goes on."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from napari_medcl.errors import Elsewhere, Stopped, UserError
from napari_medcl.training.events import Event, Failed, Finished, Paused, Preparing, Resumed, Started
from napari_medcl.training.logs import logs
from napari_medcl.training.memory import ran_out
from napari_medcl.training.processes import ALONE, Processes
from napari_medcl.training.queue import Ticket, wait_for_turn
from napari_medcl.training.run import writing
from napari_medcl.training.state import read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari_medcl.training.run import Run


def recorded(
    run: Run,
    events: Callable[[], Iterator[Event]],
    device: Callable[[], str] | None,
    processes: Processes = ALONE,
) -> Iterator[Event]:
    """Holds the run's lock, waits for its turn, writes every event to its folder and passes it on.

    Of several processes the first one does so; the others pass on what happens.

    Args:
        run: The run.
        events: What happens in it.
        device: Names the device whose queue it waits in; None: it goes on beside whatever runs there, as do processes
            that train together.
        processes: Those that train together.

    Raises:
        UserError: What went wrong, after it was written as `Failed`.
    """
    with ExitStack() as held:
        processes.lead(lambda: _begin(run, held))
        try:
            with _journal(run, processes) as write:
                for event in _in_turn(run, events, device if processes is ALONE else None):
                    write(event)
                    yield event
        except Elsewhere:
            raise
        except UserError as error:
            _fail(run, processes, str(error))
            raise
        except Stopped:
            yield _ended_early(run, processes)
        except OSError as error:
            told = f"The run cannot go on: {error}. Free some space or mend the rights, then resume it."
            _fail(run, processes, told)
            raise UserError(told) from error
        except Exception as error:
            if (cause := processes.cause(error)) is not None:
                _fail(run, processes, str(cause))
                raise cause from error
            if ran_out(error):
                told = f"The memory of the device does not suffice: {error}. Set a smaller patch, batch or width."
                _fail(run, processes, told)
                raise UserError(told) from error
            hint = f"This is a fault of the program; {run.folder / 'log.txt'} may tell more."
            _fail(run, processes, f"{type(error).__name__}: {error}", hint)
            raise


def taken_up(run: Run, processes: Processes = ALONE) -> Generator[Event, None, dict[str, Any] | None]:
    """The first word of a run: that it begins, or from where it goes on.

    Returns:
        The state of the loop to go on from, None to begin with the first step.

    Raises:
        UserError: No state that was saved is whole, or the processes do not read the same.
    """
    state, notes = processes.first(lambda: read_state(run.checkpoints))
    steps = processes.gather(-1 if state is None else state["clock"]["step"])
    with processes.agreeing():
        if len(set(steps)) > 1:
            raise UserError(
                f"The processes do not find the same saved state in {run.checkpoints}. Put the run folder where all "
                "hosts see it."
            )
    if not any(isinstance(event, Started) for event in run.events()[0]):
        yield Preparing(progress=0, message="reading the data folder")
        return state
    step = 0 if state is None else state["clock"]["step"]
    told = f"Goes on after step {step}." if step else "Begins anew: no state was saved before it was interrupted."
    yield Resumed(step=step, message=" ".join([told, *notes]))
    return state


def _in_turn(run: Run, events: Callable[[], Iterator[Event]], device: Callable[[], str] | None) -> Iterator[Event]:
    if device is None:
        yield from events()
        return
    ticket = Ticket(device(), run.name)
    try:
        yield from wait_for_turn(ticket, run.end_asked)
        yield from events()
    finally:
        ticket.leave()


def _begin(run: Run, held: ExitStack) -> None:
    """Takes the lock, and makes the folder ready for what is to be written."""
    with run.answering():
        held.enter_context(run.locked())
    with writing(run.folder):
        run.answer()
        run.mend()


@contextmanager
def _journal(run: Run, processes: Processes) -> Iterator[Callable[[Event], None]]:
    """Gives what writes an event; the first process does."""
    if not processes.leads:
        yield lambda event: None
        return
    with logs(run) as tell:

        def write(event: Event) -> None:
            run.append(event)
            tell(event)

        yield write


def _ended_early(run: Run, processes: Processes) -> Event:
    """What it is called when somebody asked for an end before the first step."""
    step = _last_step(run)
    event: Event = Finished(step=step, reason="stopped", message="Stopped before it began to train.")
    if run.asked() == "pause":
        event = Paused(step=step, message="Paused before it began to train.")
    if processes.leads:
        run.append(event)
    return event


def _fail(run: Run, processes: Processes, message: str, hint: str = "") -> None:
    processes.tell(message)
    if not processes.leads:
        return
    try:
        run.append(Failed(step=_last_step(run), message=message, hint=hint))
    except UserError:  # on a full disk not even that can be written; whoever asked for the run is told anyhow
        return


def _last_step(run: Run) -> int:
    last = run.last_event()
    return getattr(last, "step", 0)
