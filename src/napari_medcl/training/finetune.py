"""Fine-tuning: a network learns from masks, from scratch or from a pre-training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from napari_medcl.checkpoint import Checkpoint, transfer
from napari_medcl.data.loader import Item, Loader
from napari_medcl.data.needs import Needs
from napari_medcl.data.views import Appearance, Geometry
from napari_medcl.data.volume import IGNORE
from napari_medcl.device import device_name, precision, resolve_device
from napari_medcl.foreign import load_model
from napari_medcl.inference.predict import Predictor
from napari_medcl.methods.losses.segmentation import segmentation_loss
from napari_medcl.models import build
from napari_medcl.models.layers import over_processes
from napari_medcl.training import dataset
from napari_medcl.training.check import begun
from napari_medcl.training.decided import Decided, decide
from napari_medcl.training.environment import environment
from napari_medcl.training.events import Evaluated, Event
from napari_medcl.training.items import judged_by_slices, labelled_item, prepared
from napari_medcl.training.loop import Loop, Task, started, warmed_up
from napari_medcl.training.processes import Processes, join
from napari_medcl.training.recorded import recorded, taken_up
from napari_medcl.training.run import Run, find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from napari_medcl.data.batch import Batch
    from napari_medcl.models import Network
    from napari_medcl.training.config import FinetuneConfig

_BATCH = {2: 12, 3: 2}
_APPEARANCE = Appearance(p=0.2, brightness=0.3, contrast=0.3, gamma=0.3, noise=0.15, blur=0.8)
_MOVED = 0.9
"""Share of the crops that are turned, scaled or bent, and so interpolated; scans to be segmented are not."""
_ROTATION = {2: 30.0, 3: 20.0}
"""Degrees at most, without a setting."""
_ANY_ANGLE = {2: 0.5, 3: 0.0}
"""Share of the turned crops that turn by any angle, without a setting. A slice may lie turned by a quarter in the next
patient's scan; where all lie alike, the other half keeps what that tells."""
_OVERLAP = 0.25
"""Of the windows in validation; less than in prediction, because it is done often."""
_KEPT = 0.99
"""Share of the averaged weights that a step leaves as they were."""


def finetune(config: FinetuneConfig, folder: Path, *, queue: bool = False) -> Iterator[Event]:
    """Fine-tunes in a run folder.

    Args:
        config: What to do.
        folder: The run folder; made where it is missing.
        queue: Whether to wait until the runs that were started before on the same device have ended.

    Returns:
        The run's events, which also stand in the folder. The run goes on as they are asked for.

    Raises:
        UserError: Something is wrong with the data, a setting or the folder; says what to do. Where the settings alone
            tell, at once, and no folder is made.
    """
    processes = join(config.device)
    run = processes.lead(lambda: begun("finetune", config, folder))
    return finetuning(run, config, processes, queue=queue)


def finetuning(run: Run, config: FinetuneConfig, processes: Processes, *, queue: bool) -> Iterator[Event]:
    """The events of a run that begins, or goes on where its folder holds a state."""
    device = (lambda: device_name(resolve_device(config.device))) if queue else None
    return recorded(run, lambda: _events(run, config, processes), device, processes)


def _events(run: Run, config: FinetuneConfig, processes: Processes) -> Iterator[Event]:
    state = yield from taken_up(run, processes)
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    start = processes.first(lambda: _start(run, config))
    decided = processes.lead(lambda: decide(run, config, device, start, state))
    chosen, sides, plan, classes = decided.chosen, decided.sides, decided.plan, decided.classes
    items, digests = yield from prepared(
        "scan",
        (*chosen, *sides.val),
        lambda case: labelled_item(case, plan, classes, config),
        run.end_asked,
        processes,
    )
    learned, judged = items[: len(chosen)], [item for item in items[len(chosen) :] if len(item.annotated)]
    notes, chooses = list(decided.notes), True
    if not judged:
        learned, judged, chooses, note = judged_by_slices(learned, config.val)
        notes.append(note)
    provenance = environment(config, device, digests, processes.count)
    notes += processes.lead(lambda: dataset.keep(run, chosen, sides, digests, provenance))
    task = _Finetuning(config, decided, (learned, judged), start, device, provenance, processes)
    task.chooses = chooses
    told = f"{len(chosen)} labelled scans, {len(judged)} for validation, {plan.in_words()}{processes.in_words}"
    yield started(run, config, task, len(chosen), ". ".join([f"{told}, {task.origin}", *notes]))
    yield from Loop(run, config, task, state, processes)


def _start(run: Run, config: FinetuneConfig) -> Checkpoint | None:
    """The model to start from; the run keeps it, to go on and to be repeated without the run that it is of."""
    if config.start is None:
        return None
    if (kept := run.start_model).is_file():
        return Checkpoint.load(kept)
    model = load_model(find_checkpoint(config.start))
    model.save(kept)
    return model


class _Finetuning(Task):
    def __init__(
        self,
        config: FinetuneConfig,
        decided: Decided,
        items: tuple[list[Item], list[Item]],
        start: Checkpoint | None,
        device: torch.device,
        provenance: dict[str, Any],
        processes: Processes,
    ) -> None:
        self._config, self._start, self._provenance = config, start, provenance
        self._plan, self._classes, self.spec = decided.plan, decided.classes, decided.spec
        self._judged, self._processes = items[1], processes
        self.evaluations = config.evaluations if items[1] else 0
        self.device, self.autocast = device, precision(device, config.precision)
        dims, classes = decided.plan.spatial_dims, decided.classes
        net = build(decided.spec)
        over_processes(net)
        self._handed_on = transfer(start, net, classes) if start else []
        self._net = net.to(device)
        self._averaged = AveragedModel(self._net, avg_fn=_average, use_buffers=True)
        self._method = None if config.method is None else config.method.finetuning(net).to(device)
        beside = [] if self._method is None else [*self._method.parameters()]
        self.optimiser = torch.optim.AdamW([*self._net.parameters(), *beside], lr=config.rate, weight_decay=0.01)
        rotation, any_angle = (_ROTATION[dims], _ANY_ANGLE[dims]) if config.rotation is None else (config.rotation, 0.0)
        self._loader = Loader(
            items[0],
            decided.plan,
            Needs(fixed=1, labels=True),
            config.batch or _BATCH[dims],
            device,
            config.seed,
            geometry=Geometry(
                p=_MOVED, flip=config.mirror, rotation=rotation, scale=(0.7, 1.4), elastic=0.05, any_angle=any_angle
            ),
            appearance=_APPEARANCE,
            part=processes.part,
            timed=lambda name: self.timed(name),
        )
        self.epoch = self._loader.epoch

    @property
    def origin(self) -> str:
        """Where the weights come from, in words."""
        if self._start is None:
            return "from scratch"
        left = [name for name in self._start.network.uafs if name not in self.spec.uafs]
        without = f", without its UAFS blocks behind {', '.join(left)}" if left else ""
        return f"starting from {self._config.start} ({', '.join(self._handed_on)}){without}"

    def draw(self) -> Batch:
        return self._loader.draw()

    def layers(self) -> Iterator[nn.Module]:
        return (layer for layer in self._net.modules() if layer is not self._net)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.labels is not None
        maps = self._net.encode(batch.fixed[0])
        maps |= self._net.decode(maps)
        logits = self._net.classify(maps, batch.labels.shape[1:]).float()
        terms = segmentation_loss(logits, batch.labels)
        if self._method is not None and self._config.method is not None:
            name = self._config.method.name
            terms |= {f"{name} {term}": value for term, value in self._method(maps, batch.labels).items()}
        return terms

    def rate(self, progress: float) -> float:
        return self._config.rate * warmed_up(progress)

    def stepped(self) -> None:
        self._averaged.update_parameters(self._net)

    def evaluate(self, step: int) -> Evaluated:
        predictor = Predictor(self.checkpoint(step), self._config.device, _OVERLAP, precision=self._config.precision)
        rank, count = self._processes.rank, self._processes.count
        found = self._processes.gather([self._validation_dice(predictor, item) for item in self._judged[rank::count]])
        table = np.array([found[index % count][index // count] for index in range(len(self._judged))])
        with np.errstate(all="ignore"):
            means = [
                float(column[~np.isnan(column)].mean()) if (~np.isnan(column)).any() else float("nan")
                for column in table.T
            ]
        known = [value for value in means if not np.isnan(value)]
        names = list(self._classes.values())[1:]
        return Evaluated(
            step=step,
            dice=dict(zip(names, means, strict=True)),
            mean=float(np.mean(known)) if known else float("nan"),
            best=False,
        )

    def _validation_dice(self, predictor: Predictor, item: Item) -> list[float]:
        """Dice of every class on the annotated voxels; NaN where the truth does not have it."""
        assert item.labels is not None
        slices = item.annotated if self._plan.spatial_dims == 2 else slice(None)
        image, truth = item.image[:, slices], item.labels[slices]
        found = predictor.on_grid(image).argmax(0)
        known = truth != IGNORE
        scores = []
        for index in range(1, self.spec.classes):
            one, other = (found == index) & known, truth == index
            there = int(other.sum())
            scores.append(2 * int((one & other).sum()) / (int(one.sum()) + there) if there else float("nan"))
        return scores

    def checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(
            network=self.spec,
            weights=cast("Network", self._averaged.module).state_dict(),
            plan=self._plan,
            classes=self._classes,
            kind="finetune",
            method=None if self._config.method is None else self._config.method.model_dump(mode="json"),
            start=None if self._start is None else self._start.origin,
            parts=self.spec.map_names,
            provenance={**self._provenance, "step": step},
        )

    def state(self) -> dict[str, Any]:
        return {
            "plan": self._plan.model_dump(mode="json"),
            "network": self.spec.model_dump(mode="json"),
            "classes": dict(self._classes),
            "weights": self._net.state_dict(),
            "averaged": self._averaged.state_dict(),
            "method": None if self._method is None else self._method.state_dict(),
            "loader": self._loader.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._net.load_state_dict(state["weights"])
        self._averaged.load_state_dict(state["averaged"])
        if self._method is not None:
            self._method.load_state_dict(state["method"])
        self._loader.restore(state["loader"])


def _average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Moving average that follows quickly at first."""
    seen = int(count)
    kept = min(_KEPT, (1 + seen) / (10 + seen))
    return averaged * kept + current * (1 - kept) if averaged.is_floating_point() else current
