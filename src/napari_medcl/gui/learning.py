"""What training on from a corrected mask does away from the screen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_medcl.correction.training_set import TrainingSet
from napari_medcl.data.names import stem
from napari_medcl.errors import UserError
from napari_medcl.gui.inputs import case_ids
from napari_medcl.gui.layers import source_of
from napari_medcl.training.launch import start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medcl.correction.record import Record
    from napari_medcl.data.volume import Labels, Volume
    from napari_medcl.training.run import Run

_CHANNELLED = ("imagesTr", "imagesTs")
"""Folders in which the number at the end of a name is that of the channel."""


def case_name(scan: Any) -> str:
    """What the case of a scan is called: its file's name, by which the training set knows it, else the layer's."""
    source = source_of(scan.metadata)
    if source is None or source.path is None:
        return case_ids([scan.name])[0]
    return re.sub(r"_\d{4}$", "", stem(source.path)) if source.path.parent.name in _CHANNELLED else stem(source.path)


def add_corrected(
    folder: Path,
    run: Run,
    name: str,
    volume: Volume,
    labels: Labels,
    record: Record,
    *,
    everything: bool,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> str:
    """Stores a case, see `TrainingSet`; called in a thread."""
    del progress, stop
    return TrainingSet.begin(folder, run).add(name, volume, labels, record, everything=everything)


def start_improving(folder: Path, run: Run, target: Path, minutes: float, **_: Any) -> Run:
    """Starts the run that learns on; called in a thread.

    Raises:
        UserError: There is no training set yet, or the settings make no run.
    """
    from napari_medcl.training.check import check, check_data

    made = TrainingSet(folder)
    if not made.split.is_file():
        raise UserError(f"{folder} is no training set yet. Add a corrected case first.")
    config = made.config(run, minutes=minutes)
    check(config)
    check_data(config)
    return start("finetune", config.to_json(), target)


def state_of(run: Run, **_: Any) -> str:
    """Whether a run goes on; called in a thread."""
    return run.state
