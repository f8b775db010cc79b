"""Where a file's voxels lie in the patient, and the way between its axes and ours."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from nibabel.orientations import io_orientation

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Format = Literal["nifti", "picture", "itk", "zarr", "grid"]
Grid = tuple[int, int, int]
"""Number of voxels along z, y, x."""
Millimetres = tuple[float, float, float]
"""Along z, y, x of the LPS world."""

LPS_ZYX = np.array([[0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
"""Takes a RAS point (x, y, z, 1) to the LPS point (z, y, x, 1)."""
_FLATTEST = 1e-3
"""An affine whose voxel is flatter than this part of its box is taken for singular."""


@dataclass(frozen=True, eq=False)
class Source:
    """How a file stores a scan: all that is needed to write a mask of it exactly.

    Attributes:
        shape: Voxels along the file's own spatial axes, two or three; (height, width) for a picture.
        affine: (4, 4) file index -> RAS position, exactly as the file says (for NIfTI: as nibabel gives it).
        path: The file, or the folder of a DICOM series.
        format: Who understands `header`; "grid" is a bare array.
        channels: Channels, time points or colours that the file holds.
        rgb: Whether the channels are the three colours of a picture.
        header: For NIfTI the file's header block, for ITK the packed origin, spacing and direction, for OME-Zarr its
            axes with their scale and translation as JSON.
        unit: Millimetres per unit of the affine (NIfTI headers may count in metres or micrometres).
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    path: Path | None = None
    format: Format = "grid"
    channels: int = 1
    rgb: bool = False
    header: bytes = b""
    unit: float = 1.0

    def __post_init__(self) -> None:
        where = self.path or "The array"
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise UserError(f"{where} has the shape {self.shape}; a scan has two or three axes with voxels.")
        edges = np.asarray(self.affine, dtype=np.float64)[:3, :3]
        lengths = np.linalg.norm(edges, axis=0)
        if not (np.isfinite(self.affine).all() and lengths.all()) or (abs(np.linalg.det(edges / lengths)) < _FLATTEST):
            raise UserError(
                f"{where} does not say where its voxels lie: its affine is not finite or not invertible "
                f"({np.asarray(self.affine).tolist()}). Set a valid sform or qform, or convert it again."
            )

    @classmethod
    def of_grid(cls, shape: Grid, spacing: Millimetres, origin: Millimetres) -> Source:
        """The plainest source of an array (Z, Y, X) that came from no file: axes x, y, z along L, P, S."""
        affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
        affine[:3, 3] = -origin[2], -origin[1], origin[0]
        return cls(shape=shape[::-1], affine=affine)

    @cached_property
    def _axes(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """For each of z, y, x: the file's axis that runs along it, and whether it runs backwards."""
        orientation = io_orientation(LPS_ZYX @ self.affine)
        order = np.argsort(orientation[:, 0])
        return tuple(order.tolist()), tuple((orientation[order, 1] < 0).tolist())

    @property
    def grid(self) -> Grid:
        """Voxels along z, y, x."""
        whole = (*self.shape, 1)[:3]
        z, y, x = (whole[axis] for axis in self._axes[0])
        return z, y, x

    @cached_property
    def canonical_affine(self) -> NDArray[np.float64]:
        """(4, 4) index (z, y, x) -> LPS millimetres (z, y, x), rotation and shear included."""
        order, flips = self._axes
        affine = np.eye(4)
        affine[:3] = self.unit * (LPS_ZYX @ self.affine)[:3]
        affine[:3, :3] = affine[:3, list(order)]
        for axis, flip in enumerate(flips):
            if flip:
                affine[:3, 3] += affine[:3, axis] * (self.grid[axis] - 1)
                affine[:3, axis] *= -1
        return affine

    @property
    def spacing(self) -> Millimetres:
        """Length of a voxel's edges along z, y, x."""
        z, y, x = np.linalg.norm(self.canonical_affine[:3, :3], axis=0).tolist()
        return z, y, x

    @property
    def origin(self) -> Millimetres:
        """Position of voxel (0, 0, 0) without rotation or shear; the volume's centre keeps its place."""
        affine = self.canonical_affine
        start = affine[:3, 3]
        if np.any(affine[:3, :3] != np.diag(np.diag(affine[:3, :3]))):
            middle = (np.array(self.grid) - 1) / 2
            start = affine[:3, :3] @ middle + start - np.array(self.spacing) * middle
        z, y, x = start.tolist()
        return z, y, x

    def canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of the file's array (*shape, ...) as (..., Z, Y, X)."""
        order, flips = self._axes
        if len(self.shape) == 2:
            array = np.expand_dims(array, 2)
        return _flipped(array.transpose(*range(3, array.ndim), *order), flips)

    def stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of an array (..., Z, Y, X) as the file stores it: (*shape, ...).

        Raises:
            UserError: If the array has another shape than the scan.
        """
        if array.shape[-3:] != self.grid:
            raise UserError(
                f"An array of shape {array.shape[-3:]} (z, y, x) does not fit {self.path or 'the scan'}, "
                f"which has {self.grid}."
            )
        order, flips = self._axes
        extra = array.ndim - 3
        turned = _flipped(array, flips).transpose(*(extra + order.index(axis) for axis in range(3)), *range(extra))
        return turned[:, :, 0] if len(self.shape) == 2 else turned

    def distance(self, other: Source) -> float:
        """How far apart, in millimetres, the corners of two sources of one grid lie at most."""
        corners = np.array(np.meshgrid(*((0, n - 1) for n in self.grid), (1,))).reshape(4, -1)
        apart = (self.canonical_affine - other.canonical_affine) @ corners
        return float(np.linalg.norm(apart[:3], axis=0).max())

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; numbers survive to the last bit."""
        return {
            "path": str(self.path) if self.path else None,
            "shape": list(self.shape),
            "affine": np.asarray(self.affine).tolist(),
            "format": self.format,
            "channels": self.channels,
            "rgb": self.rgb,
            "header": base64.b64encode(self.header).decode("ascii"),
            "unit": self.unit,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Source:
        """The source that `to_dict` described."""
        return cls(
            path=Path(fields["path"]) if fields["path"] else None,
            shape=tuple(fields["shape"]),
            affine=np.array(fields["affine"], dtype=np.float64),
            format=fields["format"],
            channels=fields["channels"],
            rgb=fields["rgb"],
            header=base64.b64decode(fields["header"]),
            unit=fields["unit"],
        )


def _flipped(array: NDArray[Any], flips: Sequence[bool]) -> NDArray[Any]:
    return np.flip(array, tuple(axis for axis, flip in enumerate(flips, start=array.ndim - 3) if flip))


def matching_source(
    shape: Sequence[int], scale: Sequence[float], translate: Sequence[float], candidates: Iterable[Source]
) -> Source | None:
    """The first candidate with a layer's grid; for mask layers that do not say what scan they are of.

    Args:
        shape: Of the layer's array, (Z, Y, X) or (Y, X).
        scale: Millimetres per voxel along the same axes.
        translate: Position of the first voxel, in millimetres, along the same axes.
        candidates: Sources of the scans that are open.
    """
    first = 3 - len(shape)
    for source in candidates:
        spacing, origin = np.array(source.spacing)[first:], np.array(source.origin)[first:]
        if (
            [1, 1, 1][:first] + list(shape) == list(source.grid)
            and np.allclose(scale, spacing, rtol=1e-4, atol=0)
            and np.all(np.abs(np.asarray(translate) - origin) < 0.01 * spacing)
        ):
            return source
    return None
