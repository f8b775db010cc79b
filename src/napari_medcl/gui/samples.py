"""Sample data in the File menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medcl.data.sample import load_sample
from napari_medcl.gui.layers import image_layers, labels_layer

if TYPE_CHECKING:
    from napari_medcl.gui.layers import LayerData


def brain() -> list[LayerData]:
    """A T1 template of the brain and its grey and white matter.

    Raises:
        UserError: nilearn is missing; napari shows the message, which says what to install.
    """
    volume, labels = load_sample()
    return [*image_layers(volume, "T1 template"), labels_layer(labels, "tissues")]
