"""Opens scans and masks in the viewer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import napari
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_medcl.data.formats import is_scan, looks_like_labels, open_volume, read_labels, stem
from napari_medcl.errors import UserError
from napari_medcl.gui.layers import image_layers, labels_layer
from napari_medcl.gui.upright import keep_upright

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medcl.gui.layers import LayerData


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData] | list[tuple[None]]] | None:
    """The reader for a file or a folder with one scan, or None for others."""
    return read if is_scan(Path(path if isinstance(path, str) else path[0])) else None


def read(path: str | list[str]) -> list[LayerData] | list[tuple[None]]:
    """The layers of some files; what is wrong with a file is shown, and it adds no layer."""
    if (viewer := napari.current_viewer()) is not None:
        keep_upright(viewer)
    found: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        try:
            found.extend(layers_of(one))
        except UserError as error:
            _say(str(error))
    return found or [(None,)]


def layers_of(path: str) -> list[LayerData]:
    """A mask as a labels layer, anything else as image layers.

    Raises:
        UserError: The file cannot be read.
    """
    volume = open_volume(path)
    if looks_like_labels(volume):
        return [labels_layer(read_labels(path), stem(path))]
    return image_layers(volume, stem(path))


def _say(message: str) -> None:
    """Shows what is wrong; while the viewer is still starting, as soon as it can be seen."""
    if QApplication.instance() is None:
        show_error(message)
    else:
        QTimer.singleShot(0, partial(show_error, message))
