"""The dock that starts pre-training and fine-tuning."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QTabWidget, QVBoxLayout, QWidget

from napari_medcl.errors import Stopped, UserError
from napari_medcl.gui.docks import Dock, Message, Progress, Scroll
from napari_medcl.gui.editors import tip
from napari_medcl.gui.form import Form
from napari_medcl.gui.inputs import Pair, write_inputs
from napari_medcl.gui.method import MethodEdit
from napari_medcl.gui.models import ModelChoice
from napari_medcl.gui.settings import settings
from napari_medcl.gui.source import DataSource
from napari_medcl.gui.tasks import Task
from napari_medcl.gui.watch import Watch
from napari_medcl.methods.choices import offers
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.launch import new_folder, start
from napari_medcl.training.run import ALIVE, list_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_medcl.training.events import Stage
    from napari_medcl.training.run import Run

_TITLES: dict[Stage, str] = {"pretrain": "Pre-train", "finetune": "Fine-tune"}
_START: dict[Stage, str] = {"pretrain": "Start pre-training", "finetune": "Start fine-tuning"}
_RUNS = "Show runs"
_COUNT_EVERY_MS = 5000
_CONFIGS: dict[Stage, type[PretrainConfig | FinetuneConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


def start_run(
    stage: Stage,
    config: Any,
    folder: Path,
    pairs: list[Pair] | None,
    *,
    now: bool,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
) -> Run:
    """Starts a run; scans that are open are written into its folder first.

    Args:
        stage: Pre-training or fine-tuning.
        config: Its settings.
        folder: The run folder.
        pairs: The scans that are open, if it learns from them.
        now: Whether to run beside others on the device; else it waits for its turn.
        progress: Is told how much of the scans is written.
        stop: Says whether to give up.

    Raises:
        UserError: There is nothing to train on, the settings make no run, or the folder cannot be written.
        Stopped: `stop` said so.
    """
    from napari_medcl.training.check import check, check_data

    check(config)
    try:
        if pairs is not None:
            write_inputs(pairs, config.folder, progress, stop)
        check_data(config)
    except (UserError, Stopped):
        if pairs is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return start(stage, config.to_json(), folder, now=now)


def count_alive(root: Path, **_: Callable[..., Any]) -> int:
    """How many runs of a folder go on."""
    return sum(run.state in ALIVE for run in list_runs(root))


class TrainDock(Dock):
    """Tabs for the two stages, and the way to the runs."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)

        # widgets
        self.stages: dict[Stage, StagePane] = {stage: StagePane(self, stage) for stage in _TITLES}
        self.tabs = QTabWidget()
        self.runs = QPushButton(_RUNS)
        self.runs.setToolTip(tip("Opens the dock Runs: the runs that go on or have ended, and what became of them."))

        # layout
        self.outer.setContentsMargins(0, 6, 0, 0)
        for stage, pane in self.stages.items():
            self.tabs.addTab(Scroll(pane), _TITLES[stage])
        for widget in (self.tabs, self.message, self.runs):
            self.outer.addWidget(widget)

        # connections
        for pane in self.stages.values():
            pane.started.connect(self._started)
        self.runs.clicked.connect(lambda: self.open_dock("Runs"))
        self._watch = Watch(self, _COUNT_EVERY_MS, lambda: partial(count_alive, settings().runs))
        self._watch.looked.connect(self._show_count)

    def _started(self, run: Run) -> None:
        self.open_dock("Runs").show_run(run)

    def _show_count(self, alive: int) -> None:
        self.runs.setText(f"{_RUNS} ({alive} going on)" if alive else _RUNS)


class StagePane(QWidget):  # type: ignore[misc]
    """What to train on, the settings of a stage, and the button that starts it."""

    started = Signal(object)

    def __init__(self, dock: Dock, stage: Stage) -> None:
        super().__init__()
        self._stage: Stage = stage
        self._task = Task(self)

        # widgets
        self.source = DataSource(dock, masks=stage == "finetune")
        editors: dict[str, QWidget] = {"method": MethodEdit(offers(stage))}
        if stage == "finetune":
            editors["start"] = ModelChoice("pretrain", "finetune", none="from scratch")
        self.form = Form(_CONFIGS[stage], without={"folder"}, editors=editors)
        self.form.setValue({"device": settings().device})
        self.start = QPushButton(_START[stage])
        self.start.setToolTip(tip("Trains in a process of its own, which goes on when the viewer is closed."))
        self.at_once = QCheckBox("Start at once, beside other runs")
        self.at_once.setToolTip(tip("Without this, the run waits until those started before it have left the device."))
        self.progress = Progress()
        self.message = Message()

        # layout
        column = QVBoxLayout(self)
        for widget in (self.source, self.form, self.at_once, self.start, self.progress, self.message):
            column.addWidget(widget)
        column.addStretch()

        # connections
        self.start.clicked.connect(self._start)
        self.source.valueChanged.connect(self._follow_source)
        self._task.progressed.connect(self.progress.setValue)
        self._task.done.connect(self._done)
        self._task.failed.connect(self.message.warn)
        self._task.ended.connect(self._ended)
        self.progress.stopped.connect(self._task.stop)
        dock.closed.connect(self._task.stop)
        self._follow_source()

    def _follow_source(self) -> None:
        """In a mask that is being drawn, a slice without a label is one that nobody has come to yet."""
        if "annotated" in self.form.editors:
            self.form.setValue({"annotated": "nonempty" if self.source.drawn else "all"})

    def _start(self) -> None:
        self.message.say("")
        try:
            asked = self.source.value()
            name = asked.name if isinstance(asked, Path) else asked[0].name
            folder = new_folder(settings().runs, self._stage, name)
            data = asked if isinstance(asked, Path) else folder / "inputs"
            config = self.form.value(folder=data)
        except UserError as error:
            self.message.warn(str(error))
            return
        self.start.setEnabled(False)
        pairs = None if isinstance(asked, Path) else asked
        if pairs is not None:
            self.progress.begin()
        self._task.start(start_run, self._stage, config, folder, pairs, now=self.at_once.isChecked())

    def _done(self, run: Run) -> None:
        self.message.say(f"{run.name} has started; see the dock Runs.")
        self.started.emit(run)

    def _ended(self) -> None:
        self.start.setEnabled(True)
        self.progress.hide()
