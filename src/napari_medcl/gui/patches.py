"""Which patches of a slice or volume PDCR takes for alike: by the classes that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QFormLayout

from napari_medcl.data.volume import IGNORE
from napari_medcl.gui.docks import Dock, MaskChoice, Progress, masks_of
from napari_medcl.gui.editors import Choice, IntEdit, tip
from napari_medcl.gui.inputs import Pair
from napari_medcl.gui.layers import sources, to_labels
from napari_medcl.gui.picking import Picker
from napari_medcl.gui.source import fitting_mask
from napari_medcl.gui.superpixels import scan_map, slice_map
from napari_medcl.gui.tab import PairsTab
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import cut, outline

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_medcl.data.volume import Labels
    from napari_medcl.gui.subject import Asked, Subject
    from napari_medcl.inference.patches import Patches

_DEPTH = 4
_MAPS = [f"enc{level}" for level in range(1, _DEPTH + 1)] + [f"dec{level}" for level in range(_DEPTH, 0, -1)]
_FIRST = "enc2"
_CYAN = "#00f5ff"
_MOST_CLASSES = 5
_LEAST = 0.005
"""Of a patch; less is not worth a word."""


def find_patches(
    asked: Asked,
    mask: Labels | None,
    name: str,
    side: int | None,
    *,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> Patches:
    """The patches of the slice in view or of the volume.

    Args:
        asked: What is looked at.
        mask: Gives the classes; without it superpixels do.
        name: Map of the network.
        side: Side of a patch; None for what a pixel of the map sees.
        progress: Is told how far it is.
        stop: Says whether to give up.

    Raises:
        UserError: A patch is larger than the image, or nothing is annotated.
        Stopped: `stop` said so.
    """
    from napari_medcl.inference.patches import patches

    flat = asked.dims == 2
    if mask is not None:
        labels = cut(mask.array[None], asked.shown)[0] if flat else mask.array
    elif flat:
        labels = slice_map(asked.volume, asked.shown, asked.how, progress=progress, stop=stop)
    else:
        labels = scan_map(asked.volume, 0, asked.how, progress=progress, stop=stop)
    return patches(labels, name, _DEPTH, side, None if mask is None else IGNORE)


class PatchesTab(PairsTab):
    """The affinity of a patch that is picked to all others, and what the patch is made of."""

    def __init__(self, dock: Dock, subject: Subject) -> None:
        super().__init__(dock, subject, "PDCR takes patches for alike that are made of the same classes.")
        self._task = Task(self)
        self._asked: Asked | None = None
        self._mask: Labels | None = None
        self._which: tuple[str, int | None] | None = None
        self._patches: Patches | None = None
        self._heat_layer: Any = None
        self._window_layer: Any = None
        self._picker = Picker(dock)

        # widgets
        self.classes = MaskChoice(dock, "superpixels (pre-training)")
        self.classes.setToolTip(
            tip(
                "What the patches are made of: the classes of a mask, as in fine-tuning, or an image's own "
                "superpixels, as in pre-training (MedCL's own addition to PDCR)."
            )
        )
        if (layer := subject.scan.value()) is not None:
            self.classes.setValue(fitting_mask(layer, masks_of(dock.viewer)))
        self.map = Choice([(name, name) for name in _MAPS])
        self.map.setValue(_FIRST)
        self.map.setToolTip(tip("The map of the network; by itself PDCR compares enc2, enc3 and dec2."))
        self.side = IntEdit(1, 999, optional=True, unit="voxels")
        self.side.setValue(None)
        self.side.setToolTip(tip("Side of a patch; not set, it is what a pixel of the map sees (receptive field)."))
        self.progress = Progress()

        # layout
        rows = QFormLayout()
        rows.addRow("Classes", self.classes)
        rows.addRow("Map", self.map)
        rows.addRow("Patch", self.side)
        self.column.addLayout(rows)
        for widget in (self.progress, self.message):
            self.column.addWidget(widget)
        self.column.addStretch()

        # connections
        for changed in (self.classes.valueChanged, self.map.valueChanged, self.side.valueChanged):
            changed.connect(self.soon)
        self._picker.picked.connect(self._show_affinity)
        self._picker.missed.connect(self.message.say)
        self.progress.stopped.connect(self._stop)
        self._task.progressed.connect(self.progress.setValue)
        self._task.done.connect(self._take)
        self._task.failed.connect(self._fail)
        self._task.ended.connect(self.progress.hide)

    def show_what(self, asked: Asked) -> None:
        """The patches of the slice in view or of the volume."""
        mask, which = self._chosen_mask(asked), (str(self.map.value()), self.side.value())
        before, same = self._asked, (mask is self._mask is None) and which == self._which
        if asked.dims == 3 and same and before is not None and asked.same_volume(before):
            self._asked = asked  # superpixels of a volume take long; they are the same for all its slices
            self._show_affinity()
            return
        self._asked, self._mask, self._which, self._patches = asked, mask, which, None
        if asked.dims == 3:
            self.progress.begin()
        self._task.start(find_patches, asked, mask, *which)

    def clear(self) -> None:
        """Removes what it shows."""
        self._task.stop()
        self._picker.follow(None)
        self.dock.drop_layer(self._heat_layer)
        self.dock.drop_layer(self._window_layer)
        self._asked = self._patches = self._heat_layer = self._window_layer = None
        self.message.say("")

    def _chosen_mask(self, asked: Asked) -> Labels | None:
        """The mask that is chosen.

        Raises:
            UserError: It does not fit the scan.
        """
        layer = self.classes.value()
        if layer is None:
            return None
        meta = {name: getattr(layer, name) for name in ("name", "scale", "translate", "units", "metadata")}
        mask = to_labels(layer.data, meta, sources([asked.layer]))
        return Pair(asked.layer.name, asked.volume, mask).labels

    def _take(self, found: Patches) -> None:
        self._patches = found
        self._picker.follow(self._asked)
        self._show_affinity()

    def _stop(self) -> None:
        self._task.stop()
        self.message.say("Stopped. Change a setting to compute again.")

    def _fail(self, why: str) -> None:
        self.clear()
        self.message.warn(why)

    def _show_affinity(self) -> None:
        asked, found = self._asked, self._patches
        if asked is None or found is None:
            return
        patch = found.nearest(self._picker.voxel(asked))
        alike = found.affinity_to(patch)
        self._heat_layer = self.dock.show_overlay(
            self._heat_layer,
            asked.over(alike, cell=found.cell),
            "affinity",
            image=True,
            colormap="inferno",
            contrast_limits=(0, 1),
            interpolation3d="nearest",
            opacity=0.7,
        )
        if (bar := getattr(self._heat_layer, "colorbar", None)) is not None:  # since napari 0.9
            bar.visible = True
        window = found.window(patch)
        begin, size = zip(*((low, high - low) for low, high in window), strict=True)
        self._window_layer = self.dock.show_overlay(
            self._window_layer,
            asked.over(outline(size), begin),
            "patch",
            opacity=1,
            colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: _CYAN}),
        )
        classes = {} if self._mask is None else {0: "background", **self._mask.names}
        self.message.say(described(found, patch, alike, "superpixel" if self._mask is None else "class", classes))


def described(
    found: Patches, patch: tuple[int, ...], alike: NDArray[np.float32], kind: str, names: dict[int, str]
) -> str:
    """What a patch is made of, and how alike the others are.

    Args:
        found: All patches.
        patch: The one.
        alike: Affinity of all to it.
        kind: What to call a value that has no name.
        names: Of the values.
    """
    size = " × ".join(str(high - low) for low, high in found.window(patch))
    shares = found.composition[patch]
    order = [index for index in np.argsort(-shares, kind="stable")[:_MOST_CLASSES] if shares[index] >= _LEAST]
    if not order:
        return f"The patch (cyan, {size} voxels) is not annotated, and compared with nothing. Click elsewhere."
    parts = [f"{names.get(value, f'{kind} {value}')}: {shares[i]:.0%}" for i in order for value in [found.values[i]]]
    if (rest := float(shares.sum() - shares[order].sum())) >= _LEAST:
        parts.append(f"others: {rest:.0%}")
    others = np.delete(alike.ravel(), np.ravel_multi_index(patch, found.grid))
    grid = " × ".join(map(str, found.grid))
    place = f" about slice {found.places[0][patch[0]]}" if len(patch) == 3 else ""
    return (
        f"Patch (cyan) of {size} voxels{place}, one of {grid}. It is made of {', '.join(parts)}. Affinity to the "
        f"others from {np.nanmin(others):.2f} to {np.nanmax(others):.2f}: bright is alike. Click into the scan to pick "
        "another."
    )
