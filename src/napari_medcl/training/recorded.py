"""A run that is written down while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medcl.errors import Stopped, UserError
from napari_medcl.training.events import Event, Failed, Finished, Paused, Preparing, Resumed, Started
from napari_medcl.training.logs import logs
from napari_medcl.training.memory import ran_out
from napari_medcl.training.queue import Ticket, wait_for_turn
from napari_medcl.training.state import read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari_medcl.training.run import Run


def recorded(run: Run, events: Callable[[], Iterator[Event]], device: Callable[[], str] | None) -> Iterator[Event]:
    """Holds the run's lock, waits for its turn, writes every event to its folder and passes it on.

    Args:
        run: The run.
        events: What happens in it.
        device: Names the device whose queue it waits in; None: it goes on beside whatever runs there.

    Raises:
        UserError: What went wrong, after it was written as `Failed`.
    """
    with run.locked():
        run.answer()
        run.mend()
        try:
            with logs(run) as tell:
                for event in _in_turn(run, events, device):
                    run.append(event)
                    tell(event)
                    yield event
        except UserError as error:
            _fail(run, str(error))
            raise
        except Stopped:
            yield _ended_early(run)
        except OSError as error:
            told = f"The run cannot go on: {error}. Free some space or mend the rights, then resume it."
            _fail(run, told)
            raise UserError(told) from error
        except Exception as error:
            if ran_out(error):
                told = f"The memory of the device does not suffice: {error}. Set a smaller patch, batch or width."
                _fail(run, told)
                raise UserError(told) from error
            hint = f"This is a fault of the program; {run.folder / 'log.txt'} may tell more."
            _fail(run, f"{type(error).__name__}: {error}", hint)
            raise


def taken_up(run: Run) -> Generator[Event, None, dict[str, Any] | None]:
    """The first word of a run: that it begins, or from where it goes on.

    Returns:
        The state of the loop to go on from, None to begin with the first step.

    Raises:
        UserError: No state that was saved is whole.
    """
    state, notes = read_state(run.checkpoints)
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


def _ended_early(run: Run) -> Event:
    """What it is called when somebody asked for an end before the first step."""
    step = _last_step(run)
    event: Event = Finished(step=step, reason="stopped", message="Stopped before it began to train.")
    if run.asked() == "pause":
        event = Paused(step=step, message="Paused before it began to train.")
    run.append(event)
    return event


def _fail(run: Run, message: str, hint: str = "") -> None:
    try:
        run.append(Failed(step=_last_step(run), message=message, hint=hint))
    except UserError:  # on a full disk not even that can be written; whoever asked for the run is told anyhow
        return


def _last_step(run: Run) -> int:
    last = run.last_event()
    return getattr(last, "step", 0)
