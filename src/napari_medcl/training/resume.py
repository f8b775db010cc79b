"""Going on with a run, further than was asked for, or from the beginning in another folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_medcl.errors import UserError, explain
from napari_medcl.files import write_json
from napari_medcl.training.check import check
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Finished
from napari_medcl.training.finetune import finetuning
from napari_medcl.training.pretrain import pretraining
from napari_medcl.training.processes import join
from napari_medcl.training.run import Run, create, writing
from napari_medcl.training.state import has_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_medcl.training.events import Event

_INPUTS = "inputs"


def resume(folder: Path, *, queue: bool = False) -> Iterator[Event]:
    """Goes on with a run that was paused, stopped, killed or has failed.

    On the same machine the numbers are those of a run that was never interrupted, unless it is timed: the schedule
    of such a run follows the clock.

    Args:
        folder: The run folder.
        queue: Whether to wait until the runs that were started before on the same device have ended.

    Returns:
        The run's events, which also stand in the folder. The run goes on as they are asked for.

    Raises:
        UserError: There is no run, it goes on already, or it has done all that was asked for.
    """
    run = Run(folder)

    def ready() -> None:
        _refuse(run)
        if _is_done(run):
            raise UserError(f"{run.name} has finished. To train on, extend it: {run.to_extend}")

    return _go(run, run, ready, queue)


def extend(
    folder: Path, *, steps: int | None = None, minutes: float | None = None, queue: bool = False
) -> Iterator[Event]:
    """Trains on beyond what was asked for.

    The learning rate becomes that of a run which was meant to be so long from the beginning, after a short rise.

    Args:
        folder: The run folder.
        steps: Gradient steps more, for a run that is counted in steps.
        minutes: Minutes more, for one that is timed.
        queue: As for `resume`.

    Returns:
        The run's events, as `resume` does.

    Raises:
        UserError: There is no run, it goes on, or it is counted otherwise.
    """
    run = Run(folder)

    def ready() -> None:
        _refuse(run)
        longer = _longer(run, _config(run), steps, minutes)
        _check(run, longer)
        with run.locked(), writing(folder):
            write_json(folder / "config.json", {"stage": run.stage, **longer.to_json()})

    return _go(run, run, ready, queue)


def repeat(folder: Path, new: Path, *, queue: bool = False) -> Iterator[Event]:
    """Does again what a run did, from what stands in its folder: settings, patients, start, scans that were open.

    Args:
        folder: The run folder.
        new: The folder of the new run.
        queue: As for `resume`.

    Returns:
        The new run's events, as `resume` does. They say which scans have changed since.

    Raises:
        UserError: There is no run, or the new folder is taken.
    """
    run = Run(folder)

    def ready() -> None:
        config = _config(run)
        if config.folder == folder.absolute() / _INPUTS:
            config = config.model_copy(update={"folder": new.absolute() / _INPUTS})
        create(run.stage, config.to_json(), new)
        with writing(new):
            for name in ("split.json", "data.json", run.start_model.name):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, new / name)
            if (folder / _INPUTS).is_dir():
                shutil.copytree(folder / _INPUTS, new / _INPUTS, dirs_exist_ok=True)

    return _go(run, Run(new), ready, queue)


def _go(source: Run, run: Run, ready: Callable[[], None], queue: bool) -> Iterator[Event]:
    """The events of a run with the settings of another one or its own, which the first process makes ready."""
    with run.answering():
        processes = join(_config(source).device)
        config = processes.lead(lambda: _called(run, ready))
    if isinstance(config, PretrainConfig):
        return pretraining(run, config, processes, queue=queue)
    return finetuning(run, config, processes, queue=queue)


def _called(run: Run, ready: Callable[[], None]) -> PretrainConfig | FinetuneConfig:
    ready()
    config = _config(run)
    _check(run, config)
    run.call()
    return config


def _check(run: Run, config: PretrainConfig | FinetuneConfig) -> None:
    """Refuses settings that make no run; the model to start from is the one that the run has kept."""
    check(config.model_copy(update={"start": run.start_model} if run.start_model.is_file() else {}))


def _config(run: Run) -> PretrainConfig | FinetuneConfig:
    """The settings of a run; scans that were open lie in its folder, wherever that is now."""
    kind: type[PretrainConfig | FinetuneConfig] = PretrainConfig if run.stage == "pretrain" else FinetuneConfig
    given = {name: value for name, value in run.config.items() if name != "stage"}
    try:
        config = kind.model_validate(given)
    except ValidationError as error:
        raise UserError(
            f"{run.folder / 'config.json'} holds no settings of a run:\n{explain(error, '.'.join)}"
        ) from error
    own = run.folder.absolute() / _INPUTS
    if config.folder.name == _INPUTS and not config.folder.exists() and own.is_dir():
        config = config.model_copy(update={"folder": own})
    return config


def _refuse(run: Run) -> None:
    """Refuses a run that goes on, and one whose models would be overwritten by beginning anew."""
    if run.is_alive():
        raise UserError(f"{run.name} goes on already. Pause or stop it first: medcl runs pause {run.folder}")
    if run.checkpoint is not None and isinstance(run.last_event(), Finished) and not has_state(run.checkpoints):
        raise UserError(
            f"{run.name} has kept its models, but no state to go on from. Start a new run from its model: "
            f"medcl finetune {run.config.get('folder', 'DATA')} --start {run.folder}"
        )


def _is_done(run: Run) -> bool:
    """Whether it has done all that was asked for; an extension may have been interrupted before it said a word."""
    last, config = run.last_event(), _config(run)
    if not isinstance(last, Finished) or last.reason != "done":
        return False
    return config.minutes is not None or config.total_steps is None or last.step >= config.total_steps


def _longer(
    run: Run, config: PretrainConfig | FinetuneConfig, steps: int | None, minutes: float | None
) -> PretrainConfig | FinetuneConfig:
    """The settings with more to do."""
    if not (steps or minutes) or (steps or 1) < 1 or (minutes or 1) <= 0:
        raise UserError("Say how much further: --steps 1000 or --minutes 10.")
    if steps and config.total_steps is None:
        raise UserError(f"{run.name} is timed, {config.minutes:g} min. Extend it by --minutes.")
    if minutes and config.minutes is None:
        raise UserError(f"{run.name} is counted in steps, {config.total_steps} of them. Extend it by --steps.")
    if config.steps and config.minutes and not (steps and minutes):
        raise UserError(f"{run.name} has two limits, and either ends it. Extend both: {run.to_extend}")
    more: dict[str, Any] = {}
    if steps and config.total_steps is not None:
        more["steps"] = config.total_steps + steps
    if minutes and config.minutes is not None:
        more["minutes"] = config.minutes + minutes
    return config.model_copy(update=more)
