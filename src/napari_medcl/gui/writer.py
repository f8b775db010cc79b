"""Saves masks and maps where their scan lies."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import napari

from napari_medcl.correction.save import back_up
from napari_medcl.data.formats import stem
from napari_medcl.data.writing import mask_suffix, write_labels, write_volume
from napari_medcl.errors import UserError
from napari_medcl.gui.layers import source_of, sources, to_labels, to_volume

MASKS = "Masks (*.nii.gz *.nii *.nrrd *.mha *.ome.zarr *.png)"
"""What a dialog offers."""
_SCANS_ONLY = ("imagesTr", "imagesTs", "images", "unlabelled")
"""Folders where a mask would be taken for another scan to train on."""


def write_mask(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Saves a labels layer, also one made with New Labels, with the geometry of the scan that it lies on.

    Of a file that is there already a copy is kept in `.medcl-backups` beside it.

    Raises:
        OSError: It cannot be saved; napari shows why.
    """
    viewer = napari.current_viewer()
    try:
        labels = to_labels(data, meta, sources(viewer.layers) if viewer else ())
        if Path(path).exists():
            back_up(Path(path), datetime.now())
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


def suggested(layer: Any) -> Path:
    """A name for a mask: beside its scan's file, or beside a folder that holds nothing but scans."""
    source = source_of(layer.metadata)
    if source is None or source.path is None:
        return Path.home() / f"{layer.name}.nii.gz"
    folder = source.path.parent
    return (folder.parent if folder.name in _SCANS_ONLY else folder) / f"{stem(source.path)}_mask{mask_suffix(source)}"
