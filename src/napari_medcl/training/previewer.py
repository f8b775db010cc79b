"""Shows, while a run goes on, what its model makes of a case that somebody wants to see."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medcl.data.cases import find_cases
from napari_medcl.data.volume import Source
from napari_medcl.data.writing import write_labels
from napari_medcl.errors import Stopped, UserError
from napari_medcl.files import whole
from napari_medcl.inference.features import features
from napari_medcl.inference.predict import Predictor
from napari_medcl.training.events import Event, Noted, Previewed
from napari_medcl.training.memory import ran_out
from napari_medcl.training.preview import Preview, asked_preview, preview_folder, request_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.cases import Case
    from napari_medcl.data.volume import Labels, Volume
    from napari_medcl.inference.features import Features
    from napari_medcl.training.config import FinetuneConfig, PretrainConfig
    from napari_medcl.training.loop import Task
    from napari_medcl.training.preview import Stamp
    from napari_medcl.training.run import Run

_TIMES = 20
"""In a run without evaluations, at least so many previews are made;"""
_SHARE = 0.02
"""more as long as they take no more than this part of the time,"""
_SHORTEST_S = 5.0
"""and not faster than anybody would look."""
_OVERLAP = 0.25
"""Of the windows; as in validation, it is done often."""
_ROUNDING = 1e-9


@dataclass
class _Subject:
    """What somebody wants to see: while a preview of it cannot be had, nothing is tried."""

    stamp: Stamp
    case: Case | None = None
    volume: Volume | None = None
    before: Features | None = None
    failed: bool = False


class Previewer:
    """Makes previews: labels of a fine-tuned model, colours of a pre-trained one's bottleneck.

    The training takes no notice: a model is built from the task's checkpoint, and no random number is drawn.
    """

    def __init__(self, run: Run, config: PretrainConfig | FinetuneConfig, task: Task) -> None:
        self._run, self._config, self._task = run, config, task
        self._subject: _Subject | None = None
        self._made = 0
        self._next_s = 0.0

    def when_due(self, step: int, progress: float) -> Iterator[Event]:
        """A preview if it is time: at once after it was asked for, then with every evaluation, and now and then.

        Args:
            step: How many steps were made.
            progress: Of the run, from 0 to 1.
        """
        if (stamp := request_stamp(self._run)) is None:
            self._subject = None
            return
        subject, due = self._subject, int(progress * (self._task.evaluations or _TIMES) + _ROUNDING)
        if subject is None or subject.stamp != stamp:
            subject = self._subject = _Subject(stamp)
        elif subject.failed or (due <= self._made and time.monotonic() < self._next_s):
            return
        self._made = due
        began = time.monotonic()
        event = self._tried(subject, step)
        ended = time.monotonic()
        self._next_s = ended + max(_SHORTEST_S, (ended - began) / _SHARE)
        if event is not None:
            yield event

    def _tried(self, subject: _Subject, step: int) -> Event | None:
        """Whatever is wrong with a preview is no reason to end the run."""
        try:
            return self._made_of(subject, step)
        except Stopped:
            return None
        except Exception as error:
            subject.failed = True
            return Noted(step=step, message=f"No preview: {_in_words(error)} The training goes on without it.")

    def _made_of(self, subject: _Subject, step: int) -> Previewed:
        """Makes the preview; its file is complete before what is said about it, and that before the event."""
        (case, volume), model = self._scan_of(subject), self._task.checkpoint(step)
        if model.classes:
            file, place = f"{case.id}.nii.gz", volume
            write_labels(self._labels(model, subject, volume), preview_folder(self._run) / file)
        else:
            file, place = f"{case.id}.npy", self._colours(model, subject, volume)
            with whole(preview_folder(self._run) / file) as part:
                np.save(part, place.array)
        source = volume.source or Source.of_grid(volume.shape, volume.spacing, volume.origin)
        made = Preview(
            case=case.id,
            step=step,
            file=file,
            images=case.images,
            source=source.to_dict(),
            names=model.classes or None,
            spacing=place.spacing,
            origin=place.origin,
        )
        path = made.write(self._run)
        return Previewed(step=step, case=case.id, path=path.relative_to(self._run.folder).as_posix())

    def _scan_of(self, subject: _Subject) -> tuple[Case, Volume]:
        """Read once."""
        if subject.case is None or subject.volume is None:
            if (name := asked_preview(self._run)) is None:
                raise Stopped
            (subject.case,) = find_cases(self._config.folder).select([name])
            subject.volume = subject.case.volume(self._config.channel)
        return subject.case, subject.volume

    def _labels(self, model: Checkpoint, subject: _Subject, volume: Volume) -> Labels:
        predictor = Predictor(model, self._config.device, _OVERLAP, precision=self._config.precision)
        return predictor(volume, stop=lambda: self._unwanted(subject)).labels

    def _colours(self, model: Checkpoint, subject: _Subject, volume: Volume) -> Volume:
        """In the colours of the picture before."""
        subject.before = features(
            model,
            volume,
            self._config.device,
            self._config.precision,
            like=subject.before,
            stop=lambda: self._unwanted(subject),
        )
        return subject.before.picture

    def _unwanted(self, subject: _Subject) -> bool:
        return self._run.end_asked() or request_stamp(self._run) != subject.stamp


def _in_words(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if ran_out(error):
        return "The memory does not suffice for it."
    return f"{type(error).__name__}: {error}."
