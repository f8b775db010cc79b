"""Scans and masks as napari layers and back; world coordinates are LPS millimetres, z y x."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pint

from napari_medcl.data.volume import Labels, Source, Volume, matching_source, voxels
from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

LayerData = tuple[Any, dict[str, Any], str]
_KEY = "medcl"
_MOST_LAYERS = 8
"""A file with more channels than this is taken for a time series: one layer with a slider."""
_SAMPLES = 200_000
_SLICES = 8
"""As many of a scan that stays on the disk are looked at for its brightness."""


def image_layers(volume: Volume, name: str, **how: Any) -> list[LayerData]:
    """A scan as image layers: one for each channel, one for a colour picture, one with a slider for a time series."""
    flat = _is_flat(volume)
    array = volume.array[:, 0] if flat else volume.array
    if volume.rgb:
        return [(np.moveaxis(array, 0, -1), {**_place(volume, flat=flat), "name": name, "rgb": True, **how}, "image")]
    if volume.channels > _MOST_LAYERS:
        meta = {**_place(volume, flat=flat, series=True), "name": name, "contrast_limits": _limits(array)}
        return [(array, {**meta, **how}, "image")]
    layers: list[LayerData] = []
    for index, channel in enumerate(array):
        meta = {**_place(volume, flat=flat, channel=index), "contrast_limits": _limits(channel)}
        meta["name"] = name if volume.channels == 1 else f"{name} [{index}]"
        layers.append((channel, {**meta, **how}, "image"))
    return layers


def labels_layer(labels: Labels, name: str, **how: Any) -> LayerData:
    """A mask as a labels layer; the status bar tells the class under the mouse."""
    flat = _is_flat(labels)
    meta = {**_place(labels, flat=flat), "name": name}
    if labels.names:
        meta["metadata"][_KEY]["names"] = {str(value): text for value, text in labels.names.items()}
        classes = {0: "background", **labels.names}
        meta["features"] = {"index": [*classes], "class": [*classes.values()]}
    return np.ascontiguousarray(labels.array[0] if flat else labels.array), {**meta, **how}, "labels"


def source_of(metadata: Mapping[str, Any]) -> Source | None:
    """What a layer's metadata say about the file of its scan."""
    kept = metadata.get(_KEY, {})
    return Source.from_dict(kept["source"]) if kept.get("source") else None


def sources(layers: Iterable[Any]) -> list[Source]:
    """The sources of all scans that are open."""
    return [source for layer in layers if (source := source_of(layer.metadata)) is not None]


def to_labels(data: Any, meta: Mapping[str, Any], candidates: Iterable[Source] = ()) -> Labels:
    """The mask that a labels layer shows.

    Args:
        data: The layer's array, (Z, Y, X) or (Y, X).
        meta: The layer's `scale`, `translate`, `units`, `metadata`.
        candidates: Sources of other open scans. The mask gets the one whose grid it lies on, its own first.

    Raises:
        UserError: The layer has another number of dimensions.
    """
    array = np.asarray(data)
    if array.ndim not in (2, 3):
        raise UserError(
            f"The mask “{meta.get('name', '')}” has {array.ndim} dimensions. A mask belongs to one volume: "
            "select one 2D or 3D image layer and use New Labels again."
        )
    spacing, origin, source = _found(array.shape, meta, candidates)
    names = {int(value): text for value, text in meta["metadata"].get(_KEY, {}).get("names", {}).items()}
    return Labels(array.reshape((1, *array.shape)[-3:]), spacing, origin, source, names)


def to_volume(layers: Sequence[Any], step: int = 0) -> Volume:
    """The scan that image layers show, a channel for each layer.

    Args:
        layers: The layers of one scan; usually one.
        step: Which one to take of a time series.

    Raises:
        UserError: The layers have different shapes, or more dimensions than a scan.
    """
    parts = [_channels(layer, step) for layer in layers]
    if len({part.shape[1:] for part in parts}) > 1:
        raise UserError(
            f"The layers {_names(layers)} have different shapes: {', '.join(str(p.shape[1:]) for p in parts)}."
        )
    first = layers[0]
    meta = {"scale": first.scale[-3:], "translate": first.translate[-3:], "units": first.units[-3:]}
    shape = parts[0].shape[1:] if first.ndim > 2 else parts[0].shape[2:]
    spacing, origin, source = _found(shape, {**meta, "metadata": first.metadata})
    rgb = bool(getattr(first, "rgb", False))
    return Volume(np.concatenate(parts) if len(parts) > 1 else parts[0], spacing, origin, source, rgb)


def same_scan(layer: Any, layers: Iterable[Any]) -> list[Any]:
    """The image layers of the scan that a layer shows a channel of, in the order of the channels."""
    own = layer.metadata.get(_KEY, {})
    if own.get("channel") is None or not (own.get("source") or {}).get("path"):
        return [layer]
    found: dict[int, Any] = {}
    for other in layers:
        kept = other.metadata.get(_KEY, {})
        if kept.get("channel") is not None and kept.get("source") == own["source"]:
            found.setdefault(kept["channel"], other)
    found[own["channel"]] = layer
    return [found[channel] for channel in sorted(found)]


def _is_flat(scan: Volume | Labels) -> bool:
    """Pictures and 2D files are 2D layers; a volume of one slice keeps its place in the patient."""
    return scan.planar and (scan.source is None or len(scan.source.shape) == 2)


def _place(scan: Volume | Labels, *, flat: bool, series: bool = False, channel: int | None = None) -> dict[str, Any]:
    axes = "yx" if flat else "zyx"
    scale, translate = list(scan.spacing)[-len(axes) :], list(scan.origin)[-len(axes) :]
    if series:
        axes, scale, translate = "t" + axes, [1.0, *scale], [0.0, *translate]
    kept: dict[str, Any] = {"source": scan.source.to_dict() if scan.source else None}
    if channel is not None:
        kept["channel"] = channel
    return {
        "scale": scale,
        "translate": translate,
        "units": ["mm"] * len(scale),
        "axis_labels": tuple(axes),
        "metadata": {_KEY: kept},
    }


def _found(
    shape: Sequence[int], meta: Mapping[str, Any], candidates: Iterable[Source] = ()
) -> tuple[tuple[float, float, float], tuple[float, float, float], Source | None]:
    """Spacing and origin (z, y, x) in mm, and the source of which a layer has the grid."""
    factors = np.array([_millimetres(unit) for unit in meta.get("units") or [None] * len(shape)])
    scale, translate = np.asarray(meta["scale"]) * factors, np.asarray(meta["translate"]) * factors
    own = source_of(meta["metadata"])
    source = matching_source(shape, scale, translate, [*([own] if own else []), *candidates])
    lead = 3 - len(shape)
    z, y, x = [1.0] * lead + [abs(float(value)) for value in scale]
    oz, oy, ox = [0.0] * lead + [float(value) for value in translate]
    return (z, y, x), (oz, oy, ox), source


def _millimetres(unit: Any) -> float:
    """Millimetres in a layer's unit; pixels count as millimetres."""
    with suppress(AttributeError, pint.DimensionalityError):
        return float((1 * unit).to("mm").magnitude)
    return 1.0


def _channels(layer: Any, step: int) -> NDArray[Any]:
    """A layer's data as (C, Z, Y, X); what stays on the disk stays there."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    array = data[step] if layer.ndim == 4 else data
    array = array if hasattr(array, "compute") else np.asarray(array)
    if layer.ndim not in (2, 3, 4):
        raise UserError(f"The layer “{layer.name}” has {layer.ndim} dimensions; a scan has two or three, and time.")
    array = np.moveaxis(array, -1, 0)[:3] if getattr(layer, "rgb", False) else array[None]
    return array[:, None] if array.ndim == 3 else array


def _names(layers: Iterable[Any]) -> str:
    return ", ".join(f"“{layer.name}”" for layer in layers)


def _limits(array: Any) -> tuple[float, float]:
    """Brightness that shows all but the outermost values."""
    if not isinstance(array, np.ndarray):  # on the disk: what is between the slices is not read
        array = voxels(array[..., :: max(1, array.shape[-3] // _SLICES), :, :])
    sample = array.ravel()[:: max(1, array.size // _SAMPLES)]
    low, high = (float(value) for value in np.percentile(sample[np.isfinite(sample)], [0.5, 99.5]))
    return (low, high) if low < high else (low, low + 1)
