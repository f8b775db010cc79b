"""What was done to a mask, kept beside it: where it came from, who looked at what, how long it took."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from napari_medcl.data.names import MASK_FOLDERS, stem
from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import UserError
from napari_medcl.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_SUFFIX = ".medcl.json"


def _in_order(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(set(pairs)))


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Version(_Model):
    """A mask as it was saved once."""

    time: str = Field(description="When, as ISO 8601.")
    seconds: float = Field(description="Time worked until then, in all.")
    edits: int = Field(description="Edits until then, in all.")
    volumes_ml: dict[int, float] = Field(description="Millilitres by label; only labels that it has.")
    dice: dict[int, float] = Field({}, description="Dice to the version before by label; empty for the first.")


class Record(_Model):
    """What was done to a mask. Nothing changes in place: every method gives a new record."""

    origin: str = Field(description="Where the mask came from: a run, a model, a file, or empty.")
    scan: str | None = Field(None, description="The file of the scan.")
    reviewed: Annotated[tuple[tuple[int, int], ...], AfterValidator(_in_order)] = Field(
        (), description="Slices that a person has looked at, as (axis, index)."
    )
    seconds: float = Field(0.0, description="Time worked.")
    edits: int = Field(0, description="How many.")
    versions: tuple[Version, ...] = Field((), description="What was saved, the oldest first.")

    @classmethod
    def load(cls, mask: Path) -> Self:
        """The record of a mask's file; a fresh one if there is none.

        Raises:
            UserError: It cannot be read.
        """
        path = _beside(mask)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls(origin=mask.name if mask.exists() else "empty")
        except (OSError, ValidationError) as error:
            raise UserError(
                f"{path} cannot be read: it is damaged, or no record of a mask. It only tells what was done to "
                f"{mask.name}; delete it to go on without."
            ) from error

    def store(self, mask: Path) -> None:
        """Writes the record beside a mask's file.

        Raises:
            UserError: It cannot be written; one that was there is as it was.
        """
        with self.storing(mask):
            pass

    @contextlib.contextmanager
    def storing(self, mask: Path) -> Iterator[None]:
        """As `store`, round a block that writes the mask: it takes its name after that, and not if that fails.

        Raises:
            UserError: It cannot be written; on a full disk that is told before the block begins.
        """
        path = _beside(mask)
        try:
            with whole(path) as part:
                part.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
                yield
        except OSError as error:
            raise UserError(
                f"{path}, which tells what was done to {mask.name}, cannot be written: {error.strerror}. Choose a "
                "folder that is there, has space and may be written to."
            ) from error

    def with_edit(self) -> Self:
        """One edit more."""
        return self.model_copy(update={"edits": self.edits + 1})

    def worked(self, seconds: float) -> Self:
        """So much more time."""
        return self.model_copy(update={"seconds": self.seconds + seconds})

    def review(self, axis: int, index: int, done: bool = True) -> Self:
        """A slice that was looked at, or is to be looked at again."""
        slices = {*self.reviewed, (axis, index)} if done else {*self.reviewed} - {(axis, index)}
        return self.model_copy(update={"reviewed": _in_order(tuple(slices))})

    def with_version(self, before: NDArray[Any] | None, after: NDArray[Any], voxel_ml: float, time: str) -> Self:
        """One version more.

        Args:
            before: (Z, Y, X), the version before; None for the first.
            after: (Z, Y, X), what is saved.
            voxel_ml: Volume of a voxel in millilitres.
            time: When, as ISO 8601.
        """
        volumes = {label: size * voxel_ml for label, size in _sizes(after).items()}
        dice = {} if before is None else _dice(before, after)
        version = Version(time=time, seconds=self.seconds, edits=self.edits, volumes_ml=volumes, dice=dice)
        return self.model_copy(update={"versions": (*self.versions, version)})

    def reviewed_voxels(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Where the reviewed slices lie in a mask of this shape; slices that it does not have are left out."""
        voxels = np.zeros(shape, bool)
        for axis, index in self.reviewed:
            if 0 <= axis < len(shape) and 0 <= index < shape[axis]:
                np.moveaxis(voxels, axis, 0)[index] = True
        return voxels

    def reviewed_along(self, axis: int) -> list[int]:
        """The reviewed slices of an axis, in order."""
        return [index for along, index in self.reviewed if along == axis]


def find_records(folder: Path) -> dict[str, Record]:
    """The records of the masks in a folder, and in its subfolders for masks, by the masks' names without suffix.

    Raises:
        UserError: One cannot be read.
    """
    found = {}
    for home in (folder, *(folder / name for name in MASK_FOLDERS)):
        for path in sorted(home.glob(f".*{_SUFFIX}")):
            mask = path.with_name(path.name[1:].removesuffix(_SUFFIX))
            found[stem(mask)] = Record.load(mask)
    return found


def rows(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """The table of some cases: a row for every label in every version, and one for a version without labels."""
    return [
        {
            "case": case,
            "version": number,
            "time": version.time,
            "minutes": round(version.seconds / 60, 2),
            "edits": version.edits,
            **sizes,
            "reviewed_slices": len(record.reviewed),
        }
        for case, record in records.items()
        for number, version in enumerate(record.versions, 1)
        for sizes in _by_label(version)
    ]


def _by_label(version: Version) -> list[dict[str, Any]]:
    nothing = {"label": None, "volume_ml": None, "dice": None}
    return [
        {"label": label, "volume_ml": round(version.volumes_ml.get(label, 0.0), 6), "dice": version.dice.get(label)}
        for label in sorted(version.volumes_ml.keys() | version.dice.keys())
    ] or [nothing]


def _beside(mask: Path) -> Path:
    return mask.with_name(f".{mask.name}{_SUFFIX}")


def _sizes(array: NDArray[Any]) -> dict[int, int]:
    """Voxels by label, without background and what nobody annotated."""
    labels, sizes = np.unique(array[(array != 0) & (array != IGNORE)], return_counts=True)
    return dict(zip(labels.tolist(), sizes.tolist(), strict=True))


def _dice(before: NDArray[Any], after: NDArray[Any]) -> dict[int, float]:
    """2|A∩B| / (|A| + |B|) of every label that either has, all in one pass."""
    old, new, common = _sizes(before), _sizes(after), _sizes(after[after == before])
    return {
        label: 2 * common.get(label, 0) / (old.get(label, 0) + new.get(label, 0))
        for label in sorted(old.keys() | new.keys())
    }
