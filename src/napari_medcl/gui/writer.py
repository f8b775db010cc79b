"""Saves masks and maps where their scan lies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import napari

from napari_medcl.data.formats import write_labels, write_volume
from napari_medcl.errors import UserError
from napari_medcl.gui.layers import sources, to_labels, to_volume


def write_mask(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Saves a labels layer, also one made with New Labels, with the geometry of the scan that it lies on.

    Raises:
        OSError: It cannot be saved; napari shows why.
    """
    viewer = napari.current_viewer()
    try:
        labels = to_labels(data, meta, sources(viewer.layers) if viewer else ())
        return [str(write_labels(labels, path))]
    except UserError as error:  # napari takes a ValueError for "no writer fits"
        raise OSError(str(error)) from None


def write_map(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Saves an image layer with the geometry of the scan that it lies on.

    Raises:
        OSError: It cannot be saved; napari shows why.
    """
    layer = SimpleNamespace(data=data, ndim=len(meta["scale"]), **meta)
    try:
        return [str(write_volume(to_volume([layer]), path))]
    except UserError as error:
        raise OSError(str(error)) from None
