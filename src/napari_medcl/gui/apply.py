"""The dock that applies a trained model to a scan that is open."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QFormLayout, QPushButton

from napari_medcl.errors import UserError
from napari_medcl.gui.blocks import BlockMaps
from napari_medcl.gui.docks import HELPER, Dock, LayerChoice, Message, Progress, images_of
from napari_medcl.gui.editors import BoolEdit, Choice, tip
from napari_medcl.gui.layers import image_layers, labels_layer, same_scan, to_volume
from napari_medcl.gui.models import ModelChoice, look_at
from napari_medcl.gui.settings import settings
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.view import shown_step
from napari_medcl.gui.writer import MASKS, suggested, write_mask
from napari_medcl.training.run import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari

    from napari_medcl.data.volume import Volume
    from napari_medcl.gui.models import Facts
    from napari_medcl.inference.predict import Predictor
    from napari_medcl.inference.prediction import Prediction

_DEVICES = ("auto", "cpu", "cuda", "mps")


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
    with _ready(path, scans, device) as (predictor, scan):
        return predictor(scan, probabilities=probabilities, uncertainty=uncertainty, progress=progress, stop=stop)


def look_inside(
    path: Path,
    scans: dict[int, Volume],
    device: str,
    at: tuple[int, int] | None,
    *,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> dict[str, Volume]:
    """What a model's UAFS blocks are unsure of, in a slice (its axis and number) or the scan; see `predict`."""
    with _ready(path, scans, device) as (predictor, scan):
        return predictor.block_uncertainty(scan, at, progress=progress, stop=stop)


@contextmanager
def _ready(path: Path, scans: dict[int, Volume], device: str) -> Iterator[tuple[Predictor, Volume]]:
    """The model on the device, and the scan with as many channels as it takes; the viewer's memory is its own again."""
    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.device import release_memory
    from napari_medcl.inference.predict import Predictor

    model = Checkpoint.load(find_checkpoint(path))
    scan = scans.get(model.plan.channels) or next(iter(scans.values()))
    try:
        yield Predictor(model, device), scan  # type: ignore[arg-type]
    finally:
        release_memory()


class ApplyDock(Dock):
    """Chooses a model and a scan, and lays what the model finds over the scan."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._look, self._task, self._inside = Task(self), Task(self), Task(self)
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
        self.blocks = BlockMaps(self)
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
        inside = QFormLayout()
        inside.addRow("UAFS blocks", self.blocks)
        for widget in (self.run, self.progress, self.save):
            column.addWidget(widget)
        column.addLayout(inside)
        column.addWidget(self.message)
        column.addStretch()

        # connections
        self.model.valueChanged.connect(self._look_at)
        self._look.done.connect(self._looked)
        self._look.failed.connect(self.about.warn)
        self.run.clicked.connect(self._start)
        self.blocks.asked.connect(self._start_inside)
        self._task.done.connect(self._show)
        self._inside.done.connect(self._show_inside)
        for task in (self._task, self._inside):
            task.progressed.connect(self.progress.setValue)
            task.failed.connect(self.message.warn)
            task.ended.connect(self._ended)
            self.progress.stopped.connect(task.stop)
            self.closed.connect(task.stop)
        self.save.clicked.connect(self._save)
        self._look_at(self.model.value())

    def use(self, model: Path) -> None:
        """Chooses a run or model file."""
        self.model.setValue(model)

    def _look_at(self, model: Path | None) -> None:
        self.blocks.offer(())
        if model is None:
            self._look.stop()
            self.about.say("Fine-tune a model in the dock Train, or choose a model file.")
        else:
            self._look.start(look_at, model)

    def _looked(self, found: Facts) -> None:
        self.about.say(found.text)
        self.blocks.offer(found.blocks)

    def _start(self) -> None:
        more = {"probabilities": self.probabilities.value(), "uncertainty": self.uncertainty.value()}
        try:
            self._scan, *asked = self._asked()
        except UserError as error:
            self.message.warn(str(error))
        else:
            self._begin(self._task, predict, *asked, **more)

    def _start_inside(self) -> None:
        try:
            layer, *asked = self._asked()
            at = self.blocks.ask(layer)
        except UserError as error:
            self.message.warn(str(error))
        else:
            self._begin(self._inside, look_inside, *asked, at)

    def _asked(self) -> tuple[Any, Path, dict[int, Volume], str]:
        """The layer of the scan; model, scan by its number of channels, and device."""
        model, layer = self.model.value(), self.scan.value()
        if model is None:
            raise UserError("Choose a model: a fine-tuning run, or a model file.")
        if layer is None:
            raise UserError("There is no scan open. Open one with File ▸ Open.")
        step = shown_step(layer, self.viewer.dims)
        whole = same_scan(layer, images_of(self.viewer))
        scans = {scan.channels: scan for scan in (to_volume([layer], step), to_volume(whole, step))}
        return layer, model, scans, self.device.value()

    def _begin(self, task: Task, function: Callable[..., Any], *args: Any, **more: Any) -> None:
        self.message.say("")
        for widget in (self.run, self.blocks.show_maps):
            widget.setEnabled(False)
        self.progress.begin()
        task.start(function, *args, **more)

    def _show_inside(self, found: dict[str, Volume]) -> None:
        self.blocks.show_found(found)
        self.message.say(f"Layers over the scan say what the UAFS blocks behind {', '.join(found)} are unsure of.")

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
        for widget in (self.run, self.blocks.show_maps):
            widget.setEnabled(True)
        self.progress.hide()

    def _save(self) -> None:
        if self._mask not in self.viewer.layers:
            self.message.warn("The mask has been removed from the viewer. Segment the scan again.")
            return
        asked, _ = QFileDialog.getSaveFileName(self, "Save the mask", str(suggested(self._mask)), MASKS)
        if asked:
            self.save_to(Path(asked))

    def save_to(self, path: Path) -> None:
        """Saves the mask as it is now, corrections included."""
        data, meta, _ = self._mask.as_layer_data_tuple()
        try:
            written = write_mask(str(path), data, meta)
        except OSError as error:
            self.message.warn(str(error))
        else:
            self.message.say(f"Saved as {written[0]}.")
