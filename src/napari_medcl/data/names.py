"""What the names of files tell."""

from __future__ import annotations

import re
from pathlib import Path

MASK_FOLDERS = ("labelsTr", "labelsTs", "labels", "masks")
"""Folders that hold masks."""
ZARR = (".zarr", ".ome.zarr")
"""What the names of OME-Zarr folders end with."""
_DOUBLE = (".nii.gz", ".ome.zarr")
_MASK = re.compile(
    r"(?P<scan>.+?)[-_. ]+(?:[a-z]{2})?(?:labels?|masks?|seg|segmentation|gt|groundtruth)(?:[-_. ]?manual)?",
    re.IGNORECASE,
)


def suffix(path: Path | str) -> str:
    """The end of a file's name that tells its format, in lower case; .nii.gz and .ome.zarr are one suffix each."""
    name = Path(path).name.lower()
    return next((double for double in _DOUBLE if name.endswith(double)), Path(name).suffix)


def stem(path: Path | str) -> str:
    """A file's name without its suffix."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def mask_of(name: str) -> str | None:
    """The scan that a mask's name (a stem) speaks of: "t2" for "t2_seg-manual"; None for other names."""
    match = _MASK.fullmatch(name)
    return match["scan"] if match else None


def named_like_a_mask(path: Path) -> bool:
    """Whether a file's name or folder says that it is a mask."""
    return path.parent.name in MASK_FOLDERS or mask_of(stem(path)) is not None
