"""The cases of a data folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from napari_medcl.data.case import Case
from napari_medcl.data.dataset import class_names, groups_of, some
from napari_medcl.data.formats import READABLE, is_scan, read_source
from napari_medcl.data.names import mask_of, stem, suffix
from napari_medcl.data.ngff import is_zarr
from napari_medcl.data.splits import Split, read_split, split_by_group
from napari_medcl.data.volume import IGNORE
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Case", "Cases", "Split", "find_cases", "read_split", "split_by_group"]

_IMAGES = ("imagesTr", "images")
_MASKS = ("labelsTr", "labels", "masks")
_UNLABELLED = ("imagesTs", "unlabelled", "unlabeled")
_CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class Cases(Sequence[Case]):
    """The cases of a folder, in order of their names.

    Attributes:
        folder: Where they were found.
        cases: All of them.
        declared: Names of the foreground classes in dataset.json.
    """

    folder: Path
    cases: tuple[Case, ...]
    declared: dict[int, str] = field(default_factory=dict, compare=False)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...
    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        return self.cases[index]

    def __len__(self) -> int:
        return len(self.cases)

    @cached_property
    def names(self) -> dict[int, str]:
        """Names of the foreground classes: as declared, else "class 1", ... for all labels in the masks.

        Without a declaration all masks are read, once.
        """
        if self.declared:
            return self.declared
        found = set()
        for case in self.labelled:
            found.update(np.unique(case.truth().array).tolist())
        return {label: f"class {label}" for label in sorted(found - {0, IGNORE})}

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Cases with a mask."""
        return tuple(case for case in self.cases if case.labels)

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """Cases without a mask."""
        return tuple(case for case in self.cases if not case.labels)

    def require_labelled(self) -> tuple[Case, ...]:
        """Cases with a mask.

        Raises:
            UserError: There are none; the message says where they were looked for.
        """
        if not self.labelled:
            raise UserError(
                f"None of the {len(self)} scans in {self.folder} has a mask. Masks are looked for in the "
                f"subfolders {', '.join(_MASKS)}, named like their scans, and beside the scans as NAME_mask or "
                "NAME_seg."
            )
        return self.labelled

    def channels(self, channel: int | None = None) -> int:
        """The number of channels that all cases share; only headers are read.

        Args:
            channel: The one channel that is wanted, if it is one.

        Raises:
            UserError: Two cases differ, or one lacks the wanted channel.
        """
        counts = {case: sum(read_source(path).channels for path in case.images) for case in self.cases}
        if channel is not None:
            for case, count in counts.items():
                if channel >= count:
                    raise UserError(f"{case.images[0]} has no channel {channel}: it has {count}, from 0.")
            return 1
        first = self.cases[0]
        for case, count in counts.items():
            if count != counts[first]:
                raise UserError(
                    f"{first.images[0]} has {counts[first]} channel(s) and {case.images[0]} has {count}. "
                    "Choose one channel, or put scans of one kind into a folder of their own."
                )
        return counts[first]

    def select(self, ids: Iterable[str]) -> Cases:
        """The cases with these ids, in this order.

        Raises:
            UserError: A case is not in the folder.
        """
        known = {case.id: case for case in self.cases}
        ids = list(ids)
        missing = [case for case in ids if case not in known]
        if missing:
            raise UserError(f"There are no cases {some(missing)} in {self.folder}. Check the names.")
        return replace(self, cases=tuple(known[case] for case in ids))


def find_cases(folder: Path | str, groups: str | None = None) -> Cases:
    """The cases in a folder.

    Scans are in `imagesTr` (nnU-Net and Decathlon; there NAME_0000, NAME_0001, ... are channels) or
    `images`, or in the folder itself. Masks are in `labelsTr`, `labels` or `masks` under the scan's name,
    or NAME_mask, NAME_seg and the like, or lie beside the scans under such names. `imagesTs` and
    `unlabelled` hold scans without masks. A subfolder with OME-Zarr or DICOM files (.dcm)
    is a scan.

    Args:
        folder: The data folder.
        groups: Which cases are of one patient, see `groups_of`; None: every case is its own.

    Raises:
        UserError: There is no such folder, no scan in it, or its names contradict each other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Check the name.")
    home = next((folder / name for name in _IMAGES if (folder / name).is_dir()), folder)
    scans, masks = _divide(_files(home))
    for name in _MASKS:
        masks |= _by_scan(_files(folder / name))
    channelled = _are_channels(home, scans, masks)
    images = _channels(scans, home) if channelled else {name: (path,) for name, path in scans.items()}
    for name in _UNLABELLED:
        more = _files(folder / name)
        extra = _channels(more, folder / name) if channelled and more else {name: (p,) for name, p in more.items()}
        if both := sorted(images.keys() & extra.keys()):
            raise UserError(f"{images[both[0]][0]} and {extra[both[0]][0]} have one name. Rename one of them.")
        images |= extra
        masks = {name: path for name, path in masks.items() if name not in extra}
    if not images:
        raise UserError(
            f"There are no scans in {folder}. They are looked for in the subfolders {', '.join(_IMAGES)} and in the "
            f"folder itself; known are {', '.join(READABLE)} and folders with OME-Zarr or DICOM files (.dcm)."
        )
    group = groups_of(sorted(images), groups)
    cases = tuple(Case(name, images[name], masks.get(name), group[name]) for name in sorted(images))
    pictures = all(suffix(path) not in (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd") for path in masks.values())
    return Cases(folder, cases, class_names(folder, pictures))


def _files(folder: Path) -> dict[str, Path]:
    """Scans or masks in a folder by name; {} if it is not there."""
    if is_zarr(folder):
        return {stem(folder): folder}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or not is_scan(path):
            continue
        name = stem(path) if path.suffix == ".zarr" or not path.is_dir() else path.name
        if name in found:
            raise UserError(f"{found[name]} and {path} have one name. Keep one of them, or rename it.")
        found[name] = path
    if not found and any(folder.glob("*.dcm")):
        return {folder.name: folder}
    return found


def _divide(files: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Scans, and masks that lie beside them, by the scan's name."""
    beside = {name for name in files if mask_of(name) in files}
    scans = {name: path for name, path in files.items() if name not in beside}
    return scans, _by_scan({name: files[name] for name in beside})


def _by_scan(masks: dict[str, Path]) -> dict[str, Path]:
    """Masks by the name of their scan, which is their own or their own without "_mask"."""
    spoken_of = {scan: path for name, path in masks.items() if (scan := mask_of(name))}
    return spoken_of | masks


def _are_channels(home: Path, scans: dict[str, Path], masks: dict[str, Path]) -> bool:
    numbered = [match for name in scans if (match := _CHANNEL.fullmatch(name))]
    return (
        home.name in ("imagesTr", "imagesTs")
        and 0 < len(numbered) == len(scans)
        and any(match["channel"] == "0000" for match in numbered)
        and not any(name in masks for name in scans)
    )


def _channels(files: dict[str, Path], folder: Path) -> dict[str, tuple[Path, ...]]:
    found: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        match = _CHANNEL.fullmatch(name)
        if not match:
            raise UserError(f"{path} has no channel in its name, as the others have. Call it {name}_0000.")
        found.setdefault(match["id"], {})[int(match["channel"])] = path
    count = max(len(channels) for channels in found.values())
    for name, channels in found.items():
        missing = [number for number in range(count) if number not in channels]
        if missing:
            raise UserError(f"{folder / name}_{missing[0]:04d} is not there, but other cases have that channel.")
    return {name: tuple(channels[number] for number in range(count)) for name, channels in found.items()}
