"""What is to be done with every scan: segment it, or divide it into superpixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from napari_medcl.correction.save import back_up
from napari_medcl.data.formats import read_source
from napari_medcl.data.superpixels import SuperpixelSettings, cached_superpixels
from napari_medcl.data.volume import Labels
from napari_medcl.data.writing import map_suffix, mask_suffix, write_labels, write_volume
from napari_medcl.files import digest

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.data.case import Case
    from napari_medcl.device import Device
    from napari_medcl.inference.predict import Predictor


class Work(ABC):
    """What is done with a scan. It goes to other processes, and says nothing there.

    Attributes:
        out: Folder for the results; all processes see it under this path.
    """

    out: Path

    @abstractmethod
    def made_by(self) -> dict[str, Any]:
        """JSON values: a result that was made by the same from the same scan need not be made again."""

    @abstractmethod
    def __call__(self, case: Case) -> list[Path]:
        """Does it.

        Returns:
            The files that were written, that of the labels first.

        Raises:
            UserError: The scan cannot be read, does not fit, or a file cannot be written.
        """


@dataclass(frozen=True)
class Segment(Work):
    """A model is applied; `NAME.nii.gz` is the mask; `NAME.png` of a picture, and all is .ome.zarr of OME-Zarr.

    Attributes:
        model: The model file.
        out: See `Work`.
        channel: Which channel of 4D scans; None for that of the model's training.
        probabilities: Whether to write `NAME-probabilities.nii.gz`.
        eight_bits: Whether it holds 8 bits for each, not 32.
        uncertainty: Whether to write `NAME-uncertainty.nii.gz`.
        uafs: Whether to write `NAME-uafs-MAP.nii.gz` for every UAFS block.
        device: Where to compute.
        overlap: See `Predictor`.
        flips: See `Predictor`.
        compile: See `Predictor`.
    """

    model: Path
    out: Path
    channel: int | None = None
    probabilities: bool = False
    eight_bits: bool = False
    uncertainty: bool = False
    uafs: bool = False
    device: Device = "auto"
    overlap: float = 0.5
    flips: bool = False
    compile: bool = False

    def check(self) -> None:
        """Whether the model is there and can do what is asked for.

        Raises:
            UserError: It cannot.
        """
        predictor = _predictor(self)
        if self.uafs:
            predictor.blocks()

    def made_by(self) -> dict[str, Any]:
        """The model by what it holds, and what changes the result."""
        settings = {name: value for name, value in asdict(self).items() if name not in ("out", "device", "model")}
        return {"work": "segment", "model": digest(self.model), **settings}

    def __call__(self, case: Case) -> list[Path]:
        """Segments a scan."""
        from napari_medcl.inference.prediction import EIGHT_BITS

        predictor = _predictor(self)
        trained = predictor.checkpoint.provenance.get("config", {}).get("channel")
        volume = case.volume(trained if self.channel is None else self.channel, lazily=True)
        made = predictor(
            volume, probabilities=self.probabilities, eight_bits=self.eight_bits, uncertainty=self.uncertainty,
            scratch=self.out,
        )  # fmt: skip
        more, end = [], map_suffix(volume.source)
        if made.probabilities is not None:
            step = EIGHT_BITS if self.eight_bits else None
            more.append(write_volume(made.probabilities, self.out / f"{case.id}-probabilities{end}", step))
        if made.uncertainty is not None:
            more.append(write_volume(made.uncertainty, self.out / f"{case.id}-uncertainty{end}"))
        for block, found in predictor.block_uncertainty(volume).items() if self.uafs else ():
            more.append(write_volume(found, self.out / f"{case.id}-uafs-{block}{end}"))
        return [_write(case.id, self.out, made.labels), *more]


@dataclass(frozen=True)
class Divide(Work):
    """Superpixels; `NAME-superpixels.nii.gz` holds their ids.

    Attributes:
        settings: How.
        out: See `Work`.
        channel: Which channel of 4D scans; None for all.
    """

    settings: SuperpixelSettings
    out: Path
    channel: int | None = None

    def made_by(self) -> dict[str, Any]:
        """All settings."""
        return {"work": "superpixels", "channel": self.channel, **self.settings.model_dump(mode="json")}

    def __call__(self, case: Case) -> list[Path]:
        """Divides a scan."""
        path = self.out / f"{case.id}-superpixels{map_suffix(read_source(case.images[0]))}"
        divide(case, self.settings, self.channel, path)
        return [path]


def divide(case: Case, settings: SuperpixelSettings, channel: int | None, path: Path) -> int:
    """Writes the superpixels of one scan.

    Returns:
        How many there are, per slice at most how many.

    Raises:
        UserError: The scan cannot be read, or the file not written.
    """
    volume = case.volume(channel, lazily=True)
    found = cached_superpixels(volume.array, settings, volume.spacing)
    write_labels(Labels(found, volume.spacing, volume.origin, volume.source), path)
    return int(found.max())


@lru_cache(maxsize=1)
def _predictor(work: Segment) -> Predictor:
    """The model of this process, which is read once."""
    from napari_medcl.inference.predict import Predictor

    return Predictor(work.model, work.device, work.overlap, flips=work.flips, compile=work.compile)


def _write(name: str, out: Path, labels: Labels) -> Path:
    """Writes the mask; one that was there is kept, as somebody may have corrected it."""
    path = out / f"{name}{mask_suffix(labels.source)}"
    if path.exists():
        back_up(path, datetime.now())
    return write_labels(labels, path)
