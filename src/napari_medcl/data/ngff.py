"""OME-Zarr (NGFF 0.4 and 0.5): folders with arrays in chunks, of which those are read that are looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medcl.data.geometry import LPS_ZYX, Source
from napari_medcl.data.volume import voxels
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_VERSION = "0.5"
_MARKS = ("zarr.json", ".zgroup")
"""Files that a zarr group has."""
_MILLIMETRES = {
    "angstrom": 1e-7, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "decimeter": 100.0,
    "meter": 1000.0, "inch": 25.4,
}  # fmt: skip
"""Other units, and none, count as millimetres."""
_TOWARDS = {
    "left-to-right": (0, 1.0), "right-to-left": (0, -1.0), "posterior-to-anterior": (1, 1.0),
    "anterior-to-posterior": (1, -1.0), "inferior-to-superior": (2, 1.0), "superior-to-inferior": (2, -1.0),
}  # fmt: skip
"""Which RAS axis an orientation runs along, and whether forwards."""
_USUAL = {"x": "right-to-left", "y": "anterior-to-posterior", "z": "inferior-to-superior"}
"""The orientation of axes that have none: that of the world in the viewer, LPS."""
_CHUNK = (16, 256, 256)
"""Voxels (z, y, x) that are written together."""
_AFFINE_DIFFERS = 1e-4


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group; nothing but the names of its files is looked at."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def read_source(path: Path) -> Source:
    """What the metadata say; of several resolutions the finest counts."""
    return _image(path)[1]


def read_scan(path: Path, channel: int | None, *, lazily: bool = False) -> tuple[NDArray[Any], Source]:
    """Voxels (the file's spatial axes, last one first: x, y[, z][, channel]), and where they lie.

    Args:
        path: The folder.
        channel: The only one that is read.
        lazily: Whether to give a dask array, which reads what is asked for.
    """
    stored, source, axes = _image(path)
    index: list[int | slice] = [slice(None) if name in _USUAL else 0 for name in axes]
    several = [number for number, name in enumerate(axes) if name not in _USUAL and stored.shape[number] > 1]
    if several:
        index[several[0]] = slice(None) if channel is None else channel
    if lazily:
        import dask.array

        stored = dask.array.from_array(stored, chunks=stored.chunks, name=False)
    array = stored[tuple(index)]
    if several and channel is None:
        array = np.moveaxis(array, index[: several[0]].count(slice(None)), 0)
    return array.transpose(), source


def read_mask(path: Path) -> tuple[NDArray[Any], Source]:
    """Values, of the file's axes the last one first."""
    source = read_source(path)
    if source.channels > 1:
        raise UserError(
            f"{path} has {source.channels} channels; a mask has one number per voxel. "
            "Save one mask, with the numbers 1, 2, ... for the classes."
        )
    return read_scan(path, None)


def write(array: NDArray[Any], source: Source, path: Path) -> None:
    """Writes an array (*source.shape[, channel]) into an empty folder, a chunk's slices at a time.

    The axes are those of the source if that is OME-Zarr, else z, y, x of the LPS world. Scale and translation know no
    rotation and no shear: the whole affine stands beside them, and is what MedCL goes by.
    """
    import zarr

    if source.format == "zarr":
        about = json.loads(source.header)
        array = array.transpose()
    else:
        about = _about(source)
        array = source.canonical(array)
    axes, scale, shift = about["axes"], about["scale"], about["translation"]
    if several := array.ndim > len(axes):
        axes = [{"name": "c", "type": "channel"}, *axes]
        scale, shift = [1.0, *scale], [0.0, *shift]
    transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}], "name": path.stem}
    attributes = {"ome": {"version": _VERSION, "multiscales": [image]}, "medcl": {"affine": about["affine"]}}
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=attributes)
    space = array.shape[several:]
    chunks = tuple(min(size, side) for size, side in zip(space, _CHUNK[-len(space) :], strict=True))
    stored = group.create_array(
        "0",
        shape=array.shape,
        chunks=(1, *chunks) if several else chunks,
        dtype=array.dtype,
        dimension_names=[axis["name"] for axis in axes],
    )
    for channel in range(array.shape[0]) if several else [...]:
        for begin in range(0, space[0], chunks[0]):
            here = (channel, slice(begin, begin + chunks[0])) if several else slice(begin, begin + chunks[0])
            stored[here] = np.ascontiguousarray(voxels(array[here]))


def _image(path: Path) -> tuple[Any, Source, list[str]]:
    """The finest array, where it lies, and the names of its axes."""
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    attributes = group.attrs.asdict()
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        raise UserError(
            f"{path} is a zarr folder without an image of its own. If it holds several images, open one of its folders."
        )
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in images[0].get("axes") or ()]
    finest = images[0]["datasets"][0]
    stored = group[str(finest["path"])]
    axes = axes or [{"name": name} for name in "tczyx"[-stored.ndim :]]
    _check(stored, path)
    scale, shift = _placed(stored.ndim, (images[0], finest))
    names = [str(axis["name"]) for axis in axes]
    spatial = [number for number, name in enumerate(names) if name in _USUAL]
    more = [size for size, name in zip(stored.shape, names, strict=True) if name not in _USUAL and size > 1]
    if len(more) > 1:
        raise UserError(f"{path} has the axes {', '.join(names)}: both channels and time points. Export one of them.")
    about = {
        "axes": [axes[number] for number in spatial],
        "scale": [scale[number] for number in spatial],
        "translation": [shift[number] for number in spatial],
    }
    about["affine"] = _affine(about, attributes.get("medcl", {}).get("affine"))
    source = Source(
        shape=tuple(stored.shape[number] for number in reversed(spatial)),
        affine=np.array(about["affine"]),
        path=path,
        format="zarr",
        channels=(more or [1])[0],
        header=json.dumps(about).encode(),
    )
    return stored, source, names


def _check(stored: Any, path: Path) -> None:
    """Refuses what is no array of numbers, or would be unpacked by code that the file brings along."""
    metadata, kind = getattr(stored, "metadata", None), getattr(stored, "dtype", np.dtype(object)).kind
    codecs = repr([getattr(metadata, name, None) for name in ("filters", "compressor", "codecs")])
    if kind not in "biuf" or "pickle" in codecs.lower():
        raise UserError(f"{path} holds no array of numbers. Open an image.")


def _placed(dims: int, said: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Scale and translation after all transformations: the array's own first, then those of all resolutions."""
    scale, shift = np.ones(dims), np.zeros(dims)
    for one in reversed(said):
        for step in one.get("coordinateTransformations") or ():
            if step["type"] == "scale":
                factor = np.array(step["scale"], float)
                scale, shift = scale * factor, shift * factor
            elif step["type"] == "translation":
                shift = shift + np.array(step["translation"], float)
    return scale.tolist(), shift.tolist()


def _affine(about: Mapping[str, Any], kept: Any) -> list[list[float]]:
    """Index (x, y, z) to RAS millimetres; the one that was kept, if it has this scale."""
    affine, missing = np.zeros((4, 4)), {0, 1, 2}
    affine[3, 3] = 1
    for column, (axis, scale, shift) in enumerate(
        reversed([*zip(about["axes"], about["scale"], about["translation"], strict=True)])
    ):
        said = axis.get("orientation") or {}
        value = said.get("value") if isinstance(said, dict) else said
        row, sign = _TOWARDS.get(str(value), _TOWARDS[_USUAL[axis["name"]]])
        factor = sign * _MILLIMETRES.get(str(axis.get("unit")), 1.0)
        affine[row, [column, 3]] = factor * scale, factor * shift
        missing.discard(row)
    dims = len(about["axes"])
    if dims == 2:  # the axis that a picture does not have
        affine[missing.pop(), 2] = 1
    own = np.eye(4) if kept is None else np.array(kept, float)
    length, kept_length = (np.linalg.norm(some[:3, :dims], axis=0) for some in (affine, own))
    if kept is not None and own.shape == (4, 4) and np.allclose(kept_length, length, _AFFINE_DIFFERS, 0):
        affine = own
    rows: list[list[float]] = affine.tolist()
    return rows


def _about(source: Source) -> dict[str, Any]:
    """The metadata of an image on the canonical grid of a source of another format."""
    axes = [
        {
            "name": name,
            "type": "space",
            "unit": "millimeter",
            "orientation": {"type": "anatomical", "value": _USUAL[name]},
        }
        for name in "zyx"
    ]
    affine = (np.linalg.inv(LPS_ZYX) @ source.canonical_affine)[:, [2, 1, 0, 3]]
    return {
        "axes": axes, "scale": [*source.spacing], "translation": [*source.origin], "affine": affine.tolist(),
    }  # fmt: skip
