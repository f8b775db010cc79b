"""A data folder that grows with every corrected scan, and holds what the model has learned from before."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.correction.save import save_mask
from napari_medcl.data.cases import find_cases
from napari_medcl.data.dataset import read_json, some
from napari_medcl.data.names import suffix
from napari_medcl.data.volume import IGNORE, Labels
from napari_medcl.data.writing import write_volume
from napari_medcl.errors import UserError
from napari_medcl.files import write_json
from napari_medcl.training.config import FinetuneConfig
from napari_medcl.training.dataset import read_cases, read_sides

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medcl.correction.record import Record
    from napari_medcl.data.cases import Case, Cases
    from napari_medcl.data.volume import Volume
    from napari_medcl.training.run import Run

_IMAGES, _MASKS, _SPLIT = "imagesTr", "labelsTr", "split.json"
_SIDES = ("train", "val", "test")
_OF_THE_DATA = {"folder", "split", "groups", "start", "labelled", "labelled_by", "steps", "minutes", "annotated"}
"""Settings of a run that do not hold for the next one."""


@dataclass(frozen=True)
class TrainingSet:
    """A data folder with `imagesTr`, `labelsTr`, `dataset.json` and `split.json`.

    The cases that the model's run learned from, chose by and was measured on are links; their files are never written
    to. Those that are added are files of the folder's own, and teach.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @classmethod
    def begin(cls, folder: Path, run: Run) -> TrainingSet:
        """The training set in a folder; a new one takes over the cases of a run.

        Raises:
            UserError: The folder holds something else, cannot be written, or the run's cases are gone.
        """
        if (folder / _SPLIT).is_file():
            return cls(folder)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and no training set: {_SPLIT} is missing. Choose a new folder.")
        cases = read_cases(run, FinetuneConfig.model_validate(_settings(run)))
        if (sides := read_sides(run, cases)) is None:
            raise UserError(f"{run.name} has not begun to learn, so there is nothing to add to. Choose another run.")
        learned, others = sides
        made = cls(folder)
        with _writing(folder):
            for part in (_IMAGES, _MASKS):
                (folder / part).mkdir(parents=True, exist_ok=True)
            for case in dict.fromkeys((*learned, *others.val, *others.test)):
                made._link(case)
            made._declare(cases)
            named = {"train": learned, "val": others.val, "test": others.test}
            write_json(folder / _SPLIT, {side: [case.id for case in found] for side, found in named.items()})
        return made

    def cases(self) -> Cases:
        """All cases.

        Raises:
            UserError: The folder cannot be read.
        """
        return find_cases(self.folder)

    @property
    def split(self) -> Path:
        """The file that says who is on which side."""
        return self.folder / _SPLIT

    def add(self, name: str, volume: Volume, labels: Labels, record: Record, *, everything: bool = False) -> str:
        """Stores a corrected scan as a case that teaches.

        Slices that nobody has looked at are stored as not annotated, and are not learned from.

        Args:
            name: What to call the case.
            volume: The scan.
            labels: Its mask, on the same grid.
            record: Which slices were reviewed, where the mask came from.
            everything: Whether all slices are right, whatever was marked.

        Returns:
            The name of the case.

        Raises:
            UserError: No slice was reviewed, the case chooses or judges the model, the mask has a class that the model
                does not know, or the folder cannot be written.
        """
        if not everything and not record.reviewed:
            raise UserError("No slice is marked as reviewed. Mark those that are right, or say that all of them are.")
        sides = read_json(self.split)
        for side, what in (("val", "chooses"), ("test", "judges")):
            if name in sides[side]:
                raise UserError(
                    f"{name} {what} the model, so it must not teach it: scores would be too good. Add another scan."
                )
        self._check_classes(labels)
        mask = labels if everything else replace(labels, array=only_reviewed(labels.array, record))
        with _writing(self.folder):
            if not any(case.id == name for case in self.cases()):
                self._write(name, volume)
        save_mask(mask, self._mask_of(name), record)
        if name not in sides["train"]:
            with _writing(self.folder):
                write_json(self.split, {**sides, "train": [*sides["train"], name]})
        return name

    def config(self, run: Run, *, steps: int | None = None, minutes: float | None = None) -> FinetuneConfig:
        """The settings with which the model of a run learns on from these cases: its own but for the data.

        Raises:
            UserError: The run's settings cannot be read.
        """
        kept = {name: value for name, value in _settings(run).items() if name not in _OF_THE_DATA}
        return FinetuneConfig.model_validate(
            {
                **kept,
                "folder": self.folder,
                "split": self.split,
                "start": run.folder,
                "steps": steps,
                "minutes": minutes,
            }
        )

    def _mask_of(self, name: str) -> Path:
        found = next((case.labels for case in self.cases() if case.id == name and case.labels), None)
        return found or self.folder / _MASKS / f"{name}.nii.gz"

    def _write(self, name: str, volume: Volume) -> None:
        """Stores a scan, its channels in files of their own where those of the others are."""
        images = self.folder / _IMAGES
        if all(len(case.images) == 1 for case in self.cases()):
            write_volume(volume, images / f"{name}.nii.gz")
            return
        for number, channel in enumerate(volume.array):
            write_volume(replace(volume, array=channel[None]), images / f"{name}_{number:04d}.nii.gz")

    def _link(self, case: Case) -> None:
        channels = len(case.images) > 1
        for number, path in enumerate(case.images):
            end = f"_{number:04d}{suffix(path)}" if channels else suffix(path)
            link(path, self.folder / _IMAGES / f"{case.id}{end}")
        if case.labels is not None:
            link(case.labels, self.folder / _MASKS / f"{case.id}{suffix(case.labels)}")

    def _declare(self, cases: Cases) -> None:
        """What the classes are called, as in the folder that the cases are from."""
        names = {name: value for value, name in cases.names.items()}
        write_json(self.folder / "dataset.json", {"name": self.folder.name, "labels": {"background": 0, **names}})

    def _check_classes(self, labels: Labels) -> None:
        known = self.cases().names
        if unknown := sorted({int(value) for value in np.unique(labels.array)} - {0, IGNORE, *known}):
            raise UserError(
                f"The mask has the label {some([str(value) for value in unknown])}, which the model does not know: it "
                f"has {', '.join(f'{value} ({name})' for value, name in known.items())}. Merge it into one of these, "
                "or erase it."
            )


def only_reviewed(array: NDArray[Any], record: Record) -> NDArray[Any]:
    """A mask (Z, Y, X) with `IGNORE` where nobody has looked."""
    kind = np.promote_types(array.dtype, np.uint8)
    return np.where(record.reviewed_voxels(array.shape), array, IGNORE).astype(kind)


def link(source: Path, target: Path) -> None:
    """A link to a file or folder; a copy where the system makes no links."""
    with contextlib.suppress(OSError):
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
        return
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _settings(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.config.items() if name != "stage"}


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The training set {folder} cannot be written: {error.strerror}. Choose a folder that has space and may be "
            "written to."
        ) from error
