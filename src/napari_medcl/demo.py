"""The main job on the sample: pre-train without masks, fine-tune on a tenth of the slices, predict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from napari_medcl.data.formats import read_labels, read_volume
from napari_medcl.data.sample import write_sample
from napari_medcl.data.volume import IGNORE
from napari_medcl.data.writing import write_labels, write_volume
from napari_medcl.files import whole
from napari_medcl.inference.metrics import dice
from napari_medcl.inference.predict import Predictor
from napari_medcl.terminal import follow
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.finetune import finetune
from napari_medcl.training.launch import new_folder
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.run import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import Console

    from napari_medcl.data.volume import Labels, Volume
    from napari_medcl.device import Device
    from napari_medcl.inference.prediction import Prediction

    Slices = NDArray[np.intp]

_EVERY = 10
"""One slice in so many is annotated."""
_WIDTH, _BATCH = 16, 8
"""Half of what is published: two CPU cores have to do it while somebody waits."""
_PRETRAIN_STEPS, _FINETUNE_STEPS = 200, 600
_RATE, _ROTATION = 0.003, 30
"""All slices of one brain lie alike."""
_PRETRAIN_SHARE, _FINETUNE_SHARE = 0.35, 0.5
"""Of the minutes; the rest is for superpixels and the prediction."""
_SHOWN = (0.3, 0.45, 0.6)
"""Slices in the picture, from the lowest (0) to the highest (1)."""
_COLOURS = {1: (80, 160, 255), 2: (255, 170, 60)}
_ZOOM = 3


@dataclass(frozen=True)
class Demo:
    """What a demo left, and how good it was on the slices that training never saw."""

    scan: Path
    truth: Path
    prediction: Path
    uncertainty: Path
    picture: Path
    dice: dict[str, float]


def run_demo(folder: Path, console: Console, minutes: float = 5.0, seed: int = 0, device: Device = "auto") -> Demo:
    """Does the main job on the sample and shows how it goes.

    Args:
        folder: Where all files go; made where it is missing. A second demo replaces the results of the
            first and adds its own runs.
        console: Where it is shown.
        minutes: The training ends in time for the demo to take no longer than this.
        seed: The same seed on the same machine gives the same result if time does not end the training.
        device: Where to compute.

    Raises:
        UserError: nilearn is missing, or the folder cannot be written.
    """
    data = folder / "data"
    scan, mask = write_sample(data)
    volume, truth = read_volume(scan), read_labels(mask)
    annotated = np.arange(_EVERY // 2, volume.shape[0], _EVERY)
    write_labels(truth, folder / "truth.nii.gz")
    write_labels(_keep(truth, annotated), mask)
    console.print(f"{len(annotated)} of the {volume.shape[0]} slices are annotated in {mask}.", soft_wrap=True)
    model = _train(folder, data, console, minutes, seed, device)
    prediction = Predictor(model, device=device)(volume, uncertainty=True)
    unused = np.setdiff1d(np.arange(volume.shape[0]), annotated)
    demo = _write_results(folder, scan, volume, truth, prediction, unused)
    _say(demo, console, len(unused), model)
    return demo


def _keep(truth: Labels, slices: Slices) -> Labels:
    """The mask as if nobody had annotated the other slices."""
    array = np.full_like(truth.array, IGNORE)
    array[slices] = truth.array[slices]
    return replace(truth, array=array)


def _train(folder: Path, data: Path, console: Console, minutes: float, seed: int, device: Device) -> Path:
    """Pre-trains, then fine-tunes from that; the model file."""
    shared: dict[str, Any] = {"folder": data, "dims": "2d", "batch": _BATCH, "seed": seed, "device": device}
    first, second = (new_folder(folder / "runs", stage, "demo") for stage in ("pretrain", "finetune"))
    pretraining = PretrainConfig(width=_WIDTH, steps=_PRETRAIN_STEPS, minutes=_PRETRAIN_SHARE * minutes, **shared)
    follow(pretrain(pretraining, first), console)
    finetuning = FinetuneConfig(
        start=first,
        rate=_RATE,
        rotation=_ROTATION,
        steps=_FINETUNE_STEPS,
        minutes=_FINETUNE_SHARE * minutes,
        **shared,
    )
    follow(finetune(finetuning, second), console)
    return find_checkpoint(second)


def _write_results(folder: Path, scan: Path, volume: Volume, truth: Labels, found: Prediction, unused: Slices) -> Demo:
    assert found.uncertainty is not None
    demo = Demo(
        scan=scan,
        truth=folder / "truth.nii.gz",
        prediction=write_labels(found.labels, folder / "prediction.nii.gz"),
        uncertainty=write_volume(found.uncertainty, folder / "uncertainty.nii.gz"),
        picture=folder / "demo.png",
        dice={
            name: dice(found.labels.array[unused] == value, truth.array[unused] == value)
            for value, name in found.labels.names.items()
            if value
        },
    )
    shown = [int(unused[round(place * (len(unused) - 1))]) for place in _SHOWN]
    picture = draw(volume.array[0], truth.array, found.labels.array, found.uncertainty.array[0], shown)
    with whole(demo.picture) as part:
        picture.save(part)
    return demo


def draw(
    scan: NDArray[Any],
    truth: NDArray[Any],
    prediction: NDArray[Any],
    uncertainty: NDArray[Any],
    slices: Sequence[int],
) -> Image.Image:
    """Scan, truth, prediction and uncertainty side by side, one row for each slice.

    Args:
        scan: (Z, Y, X).
        truth: Label values (Z, Y, X).
        prediction: Label values (Z, Y, X).
        uncertainty: (Z, Y, X) from 0 to 1.
        slices: Which of Z to show.
    """
    grey = np.repeat((scan[..., None] / max(scan.max(), 1) * 255).astype(np.uint8), 3, axis=-1)
    heat = np.clip(uncertainty[..., None] * 3 - np.arange(3), 0, 1) * 255  # black, red, yellow, white
    columns = {
        "scan": grey,
        "truth": _coloured(grey, truth),
        "prediction": _coloured(grey, prediction),
        "uncertainty": heat.astype(np.uint8),
    }
    rows = [np.hstack([column[index] for column in columns.values()]) for index in slices]
    picture = Image.fromarray(np.vstack(rows))
    picture = picture.resize((picture.width * _ZOOM, picture.height * _ZOOM), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for number, name in enumerate(columns):
        place = (number * picture.width // len(columns) + 8, 6)
        pen.text(place, name, fill="white", stroke_width=2, stroke_fill="black")
    for number, index in enumerate(slices):
        place = (8, (number + 1) * picture.height // len(slices) - 18)
        pen.text(place, f"slice {index}", fill="white", stroke_width=2, stroke_fill="black")
    return picture


def _coloured(grey: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """The scan with half-transparent labels."""
    mixed = grey.copy()
    for value, colour in _COLOURS.items():
        mixed[labels == value] = grey[labels == value] // 2 + np.array(colour, np.uint8) // 2
    return mixed


def _say(demo: Demo, console: Console, unused: int, model: Path) -> None:
    scores = {**demo.dice, "mean": sum(demo.dice.values()) / len(demo.dice)}
    told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    console.print(f"Dice on the {unused} slices that nobody annotated: {told}", soft_wrap=True)
    files = {"scan": demo.scan, "truth": demo.truth, "prediction": demo.prediction}
    files |= {"uncertainty": demo.uncertainty, "picture": demo.picture, "model": model}
    for name, path in files.items():
        console.print(f"{name + ':':13}{path}", highlight=False, soft_wrap=True)
    console.print(f"See it: napari --plugin medcl {demo.scan} {demo.prediction}", highlight=False, soft_wrap=True)
