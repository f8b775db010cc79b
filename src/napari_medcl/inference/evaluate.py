"""How good a model, or a folder of masks, is on cases whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medcl.data.formats import is_scan
from napari_medcl.data.names import mask_of, stem
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.metrics import Scores, score
from napari_medcl.inference.table import Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from napari_medcl.data.cases import Case, Cases
    from napari_medcl.data.volume import Labels
    from napari_medcl.inference.predict import Predictor

    Progress = Callable[[float], None]
    Stop = Callable[[], bool]
    Answer = Callable[[Case, Progress], Labels | None]


def evaluate(
    predictions: Predictor | Path | str,
    cases: Cases,
    ids: Iterable[str] | None = None,
    *,
    channel: int | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Table:
    """Compares predictions with the truth, case by case on the scan's own grid.

    Args:
        predictions: A model, or a folder with masks that are named like the cases.
        cases: The data folder.
        ids: Which cases; all that have a mask if None.
        channel: The channel that the model was trained on, for scans with several.
        progress: Is told how far it is, from 0 to 1.
        stop: Is asked whether to stop.

    Raises:
        UserError: A case has no mask, a predicted mask does not lie on its scan, or no file of the folder
            belongs to a case.
        Stopped: `stop` said so.
    """
    chosen = _with_truth(cases, ids)
    if isinstance(predictions, (str, Path)):
        names = dict(cases.names)
        answer = _from_folder(Path(predictions), chosen)
    else:
        names = cases.names | predictions.checkpoint.classes
        answer = _from_model(predictions, channel, stop)
    names.pop(0, None)
    rows: list[Row] = []
    for index, case in enumerate(chosen):
        report = _part(progress, index, len(chosen))
        if stop is not None and stop():
            raise Stopped("The evaluation was stopped.")
        report(0)
        truth = case.truth()
        rows += _rows(case, truth, answer(case, report), dict(sorted(names.items())))
    _part(progress, len(chosen), len(chosen))(0)
    return Table(tuple(rows))


def _with_truth(cases: Cases, ids: Iterable[str] | None) -> tuple[Case, ...]:
    if ids is None:
        return cases.require_labelled()
    chosen = cases.select(ids)
    if bare := [case.id for case in chosen if case.labels is None]:
        raise UserError(
            f"{', '.join(bare)} in {cases.folder} cannot be evaluated: there is no mask. "
            "Leave them out, or add their masks."
        )
    return tuple(chosen)


def _from_model(predictor: Predictor, channel: int | None, stop: Stop | None) -> Answer:
    return lambda case, report: predictor(case.volume(channel), progress=report, stop=stop).labels


def _from_folder(folder: Path, cases: Sequence[Case]) -> Answer:
    files = _masks(folder, {case.id for case in cases})
    if not files:
        raise UserError(
            f"No mask in {folder} is named like a case. Name them as the scans are named, such as {cases[0].id}.nii.gz."
        )

    def answer(case: Case, report: Progress) -> Labels | None:
        # Read as the truth is: it must lie on the scan's grid.
        return replace(case, labels=files[case.id]).truth() if case.id in files else None

    return answer


def _masks(folder: Path, ids: Container[str]) -> dict[str, Path]:
    """The masks in a folder by the case they are of: NAME.nii.gz, NAME_seg.nii.gz and the like."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give the folder with the predicted masks, or a model.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        names = (stem(path), mask_of(stem(path)))
        name = next((name for name in names if name is not None and name in ids), None)
        if name is None or not is_scan(path):
            continue
        if name in found:
            raise UserError(f"{found[name]} and {path.name} are both a prediction for {name}. Keep one of them.")
        found[name] = path
    return found


def _rows(case: Case, truth: Labels, found: Labels | None, names: dict[int, str]) -> list[Row]:
    if found is not None:
        scores = score(found.array, truth.array, truth.spacing, names)
    else:
        voxel_ml = math.prod(truth.spacing) / 1000
        scores = {
            value: Scores("no prediction", truth_ml=np.count_nonzero(truth.array == value) * voxel_ml)
            for value in names
        }
    return [Row(case.id, case.group, value, names[value], scores[value]) for value in names]


def _part(progress: Progress | None, index: int, count: int) -> Progress:
    """The progress of one case as that of all."""
    return lambda done: None if progress is None else progress((index + done) / count)
