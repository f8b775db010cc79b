"""One scan with its mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medcl.data.formats import open_volume, read_labels, read_source, read_volume
from napari_medcl.data.volume import Labels, Source, Volume
from napari_medcl.errors import UserError
from napari_medcl.files import digests

if TYPE_CHECKING:
    from pathlib import Path

_APART = 0.25
"""Corners of one grid may lie so many voxels apart: headers are rounded."""


@dataclass(frozen=True)
class Case:
    """One scan, with its mask if there is one.

    Attributes:
        id: Name of the scan, without channel and suffix.
        images: One file per channel, or one file with all channels.
        labels: The mask.
        group: Cases of one group (a patient) never stand on two sides of a split.
    """

    id: str
    images: tuple[Path, ...]
    labels: Path | None = None
    group: str = ""

    def volume(self, channel: int | None = None, *, lazily: bool = False) -> Volume:
        """The scan, its channels stacked; or the one channel given.

        Args:
            channel: The one channel that is wanted, if it is one.
            lazily: Whether what can stay on the disk does, see `open_volume`.

        Raises:
            UserError: A file cannot be read, there is no such channel, or the channels do not lie on one grid.
        """
        read = open_volume if lazily else read_volume
        if len(self.images) == 1:
            return read(self.images[0], channel)
        if channel is not None:
            if not 0 <= channel < len(self.images):
                raise UserError(f"{self.id} has no channel {channel}: it has {len(self.images)}, from 0.")
            return read(self.images[channel])
        volumes = [read(path) for path in self.images]
        first = volumes[0]
        for other in volumes[1:]:
            _check_one_grid(other.source, first.source, "Resample the channels of a case to one grid.")
        array = np.concatenate([volume.array for volume in volumes])
        return Volume(array, first.spacing, first.origin, first.source)

    def truth(self) -> Labels:
        """The mask.

        Raises:
            UserError: There is none, it cannot be read, or it does not lie on the scan's grid.
        """
        if self.labels is None:
            raise UserError(f"{self.id} has no mask. Draw one, or leave the case out.")
        labels = read_labels(self.labels)
        _check_one_grid(
            labels.source,
            read_source(self.images[0]),
            "Choose the mask of this scan, or save it again with the scan's grid and header.",
        )
        return labels

    def digest(self) -> str:
        """A hash of what the files of scan and mask hold.

        Raises:
            UserError: One cannot be read.
        """
        total = hashlib.blake2b(digest_size=16)
        for path in filter(None, (*self.images, self.labels)):
            for part in digests(path):
                total.update(part)
        return total.hexdigest()


def _check_one_grid(ours: Source | None, other: Source | None, advice: str) -> None:
    if ours is None or other is None:
        return
    if ours.grid != other.grid:
        raise UserError(f"{ours.path} has the shape {ours.grid} (z, y, x) and {other.path} has {other.grid}. {advice}")
    if "picture" in (ours.format, other.format):
        return
    distance = ours.distance(other)
    if distance > _APART * min(other.spacing):
        raise UserError(f"{ours.path} and {other.path} have one shape but lie up to {distance:.3g} mm apart. {advice}")
