"""How a mask would change, as a layer and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medcl.gui.docks import Dock
    from napari_medcl.gui.work import Part

ADDED, REMOVED, OTHER = 1, 2, 3
"""Values of a map of differences."""
_COLOURS = {None: "transparent", 0: "transparent", ADDED: "#2ec4b6", REMOVED: "#e71d36", OTHER: "#ff9f1c"}
_WORDS = ("added", "removed", "given to another label")


def differences(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.uint8]:
    """What is added, removed and given to another label between two masks (*S)."""
    found = np.zeros(before.shape, np.uint8)
    found[(before != after) & (before != 0) & (after != 0)] = OTHER
    found[(before == 0) & (after != 0)] = ADDED
    found[(before != 0) & (after == 0)] = REMOVED
    return found


def show_differences(dock: Dock, kept: Any, part: Part, after: NDArray[Any], name: str) -> tuple[Any, str]:
    """Lays over a part of a mask what would change, green added, red removed, orange another label.

    Args:
        dock: Where.
        kept: The layer that shows such differences already, if there is one.
        part: The part, as it is.
        after: What it would become.
        name: Of the layer.

    Returns:
        The layer, and what would change in words.
    """
    found = differences(part.labels, after)
    how: dict[str, Any] = {"opacity": 0.8, "colormap": DirectLabelColormap(color_dict=_COLOURS)}
    layer = dock.show_overlay(kept, part.over(found, [0] * found.ndim), name, **how)
    counts = np.bincount(found.ravel(), minlength=4)[1:].tolist()
    said = [
        f"{count} voxels ({count * part.voxel_ml:.3g} ml) {what}"
        for what, count in zip(_WORDS, counts, strict=True)
        if count
    ]
    return layer, ", ".join(said) or "nothing"
