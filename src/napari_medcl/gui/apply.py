"""The dock that applies a trained model to a scan that is open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QFormLayout, QPushButton

from napari_medcl.data.formats import stem
from napari_medcl.errors import UserError
from napari_medcl.gui.docks import HELPER, Dock, LayerChoice, Message, Progress, images_of
from napari_medcl.gui.editors import BoolEdit, Choice, tip
from napari_medcl.gui.history import MEAN, History
from napari_medcl.gui.layers import image_layers, labels_layer, same_scan, source_of, to_volume
from napari_medcl.gui.models import ModelChoice
from napari_medcl.gui.settings import settings
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import shown_step
from napari_medcl.gui.writer import write_mask
from napari_medcl.training.run import Run, find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.volume import Volume
    from napari_medcl.inference.predict import Prediction

_MASKS = "Masks (*.nii.gz *.nii *.nrrd *.mha *.png)"
_SCANS_ONLY = ("imagesTr", "imagesTs", "images", "unlabelled")
"""Folders where a mask would be taken for another scan to train on."""
_DEVICES = ("auto", "cpu", "cuda", "mps")


def look_at(path: Path, **_: Callable[..., Any]) -> str:
    """What a model is, in words.

    Raises:
        UserError: It cannot be read.
    """
    from napari_medcl.checkpoint import Checkpoint

    return describe(Checkpoint.load(find_checkpoint(path)), best_dice(path))


def describe(model: Checkpoint, dice: float | None) -> str:
    """What a model was trained for, and how well it did."""
    plan = model.plan
    sizes = " × ".join("any" if size is None else f"{size:.3g}" for size in plan.spacing)
    classes = ", ".join(name for value, name in sorted(model.classes.items()) if value)
    channels = "1 channel" if plan.channels == 1 else f"{plan.channels} channels"
    finds = f"Finds {classes}" if classes else "Finds nothing yet: it was only pre-trained"
    score = "" if dice is None else f" Dice on its validation cases: {dice:.3f}."
    return f"{finds}. {plan.spatial_dims}D, {channels}, voxels of {sizes} mm (z, y, x).{score}"


def best_dice(path: Path) -> float | None:
    """The best mean validation Dice of the run that a model is of."""
    history = History()
    history.add(Run(path if path.is_dir() else path.parent.parent).events()[0])
    return max(history.dice[MEAN].values) if history.dice else None


def predict(
    path: Path,
    scans: dict[int, Volume],
    device: str,
    *,
    probabilities: bool,
    uncertainty: bool,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> Prediction:
    """Applies a model.

    Args:
        path: The run folder or model file.
        scans: The scan, by its number of channels: as it is, and with the other channels of its file.
        device: Where to compute.
        probabilities: Whether to give the probability of every class.
        uncertainty: Whether to give the uncertainty.
        progress: Is told how far it is.
        stop: Says whether to give up.

    Raises:
        UserError: The model cannot be read or does not fit the scan.
        Stopped: `stop` said so.
    """
    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.inference.predict import Predictor

    model = Checkpoint.load(find_checkpoint(path))
    predictor = Predictor(model, device)  # type: ignore[arg-type]
    scan = scans.get(model.plan.channels) or next(iter(scans.values()))
    return predictor(scan, probabilities=probabilities, uncertainty=uncertainty, progress=progress, stop=stop)


class ApplyDock(Dock):
    """Chooses a model and a scan, and lays what the model finds over the scan."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._look, self._task = Task(self), Task(self)
        self._scan: Any = None
        self._mask: Any = None

        # widgets
        self.model = ModelChoice("finetune")
        self.model.setToolTip(tip("A fine-tuning run that has a checkpoint, or a model file."))
        self.about = Message()
        self.scan = LayerChoice(self)
        self.scan.setToolTip("The image layer to segment")
        self.uncertainty = BoolEdit("Uncertainty")
        self.uncertainty.setToolTip(tip("A map from 0 (sure) to 1 (every class equally likely)."))
        self.probabilities = BoolEdit("Probabilities")
        self.probabilities.setToolTip("A map from 0 to 1 for every class")
        self.device = Choice((name, name) for name in _DEVICES)
        self.device.setToolTip(tip("Where to compute; auto takes the graphics card if there is one that can be used."))
        self.device.setValue(settings().device)
        self.run = QPushButton("Segment")
        self.run.setToolTip(tip("Applies the model to the scan; the mask becomes a labels layer over it."))
        self.progress = Progress()
        self.save = QPushButton("Save mask…")
        self.save.setToolTip(tip("Saves the mask with exactly the geometry of the scan; corrections included."))
        self.save.setEnabled(False)

        # layout
        column = self.add_column()
        rows = QFormLayout()
        rows.addRow("Model", self.model)
        rows.addRow(self.about)
        rows.addRow("Scan", self.scan)
        rows.addRow("Also show", self.uncertainty)
        rows.addRow("", self.probabilities)
        rows.addRow("Device", self.device)
        column.addLayout(rows)
        for widget in (self.run, self.progress, self.save, self.message):
            column.addWidget(widget)
        column.addStretch()

        # connections
        self.model.valueChanged.connect(self._look_at)
        self._look.done.connect(self.about.say)
        self._look.failed.connect(self.about.warn)
        self.run.clicked.connect(self._start)
        self._task.progressed.connect(self.progress.setValue)
        self._task.done.connect(self._show)
        self._task.failed.connect(self.message.warn)
        self._task.ended.connect(self._ended)
        self.progress.stopped.connect(self._task.stop)
        self.save.clicked.connect(self._save)
        self.closed.connect(self._task.stop)
        self._look_at(self.model.value())

    def use(self, model: Path) -> None:
        """Chooses a run or model file."""
        self.model.setValue(model)

    def _look_at(self, model: Path | None) -> None:
        if model is None:
            self._look.stop()
            self.about.say("Fine-tune a model in the dock Train, or choose a model file.")
        else:
            self._look.start(look_at, model)

    def _start(self) -> None:
        self.message.say("")
        try:
            model, layer = self.model.value(), self.scan.value()
            if model is None:
                raise UserError("Choose a model: a fine-tuning run, or a model file.")
            if layer is None:
                raise UserError("There is no scan open. Open one with File ▸ Open.")
            step = shown_step(layer, self.viewer.dims)
            whole = same_scan(layer, images_of(self.viewer))
            scans = {scan.channels: scan for scan in (to_volume([layer], step), to_volume(whole, step))}
        except UserError as error:
            self.message.warn(str(error))
            return
        self._scan = layer
        self.run.setEnabled(False)
        self.progress.begin()
        more = {"probabilities": self.probabilities.value(), "uncertainty": self.uncertainty.value()}
        self._task.start(predict, model, scans, self.device.value(), **more)

    def _show(self, found: Prediction) -> None:
        if found.probabilities is not None:
            for channel, (_, text) in zip(found.probabilities.array, sorted(found.labels.names.items()), strict=True):
                self._add_map(
                    replace(found.probabilities, array=channel[None]), text, visible=False, colormap="viridis"
                )
        if found.uncertainty is not None:
            self._add_map(found.uncertainty, "uncertainty", colormap="inferno", opacity=0.6)
        data, meta, _ = labels_layer(found.labels, f"{self._scan.name} mask")
        self._mask = self.viewer.add_labels(data, **meta)
        self.save.setEnabled(True)
        self.message.say(f"The mask is the layer “{self._mask.name}”. Correct it with the brush, then save it.")

    def _add_map(self, volume: Volume, what: str, **how: Any) -> None:
        """Adds a map from 0 to 1 that is no scan itself."""
        ((data, meta, _),) = image_layers(volume, f"{self._scan.name} {what}")
        meta["metadata"]["medcl"][HELPER] = True
        self.viewer.add_image(data, **{**meta, "contrast_limits": (0, 1), "blending": "additive", **how})

    def _ended(self) -> None:
        self.run.setEnabled(True)
        self.progress.hide()

    def _save(self) -> None:
        if self._mask not in self.viewer.layers:
            self.message.warn("The mask has been removed from the viewer. Segment the scan again.")
            return
        asked, _ = QFileDialog.getSaveFileName(self, "Save the mask", str(self.suggested()), _MASKS)
        if asked:
            self.save_to(Path(asked))

    def suggested(self) -> Path:
        """A name for the mask: beside the scan's file, or beside a folder that holds nothing but scans."""
        source = source_of(self._mask.metadata)
        if source is None or source.path is None:
            return Path.home() / f"{self._mask.name}.nii.gz"
        suffix = ".png" if source.format == "picture" else ".nii.gz"
        folder = source.path.parent
        return (folder.parent if folder.name in _SCANS_ONLY else folder) / f"{stem(source.path)}_mask{suffix}"

    def save_to(self, path: Path) -> None:
        """Saves the mask as it is now, corrections included."""
        data, meta, _ = self._mask.as_layer_data_tuple()
        try:
            written = write_mask(str(path), data, meta)
        except OSError as error:
            self.message.warn(str(error))
        else:
            self.message.say(f"Saved as {written[0]}.")
