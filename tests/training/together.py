"""Runs of one process and of several, for `test_processes`; torchrun starts it: DATA RUNS NAME…"""

from __future__ import annotations

import json
import shutil
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from torch import distributed, nn

from napari_medcl import cli
from napari_medcl.methods import JCL, PDCR, SuperCL
from napari_medcl.methods.losses import contrast, supercl
from napari_medcl.models.layers import over_processes
from napari_medcl.training import loop
from napari_medcl.training import pretrain as stage
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.events import Stepped
from napari_medcl.training.finetune import finetune
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.processes import join
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run
from napari_medcl.training.step import Stepper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_medcl.training.events import Event

WHOLE = 4
"""Crops of a step, in all processes together."""


def configs(data: Path, batch: int) -> dict[str, PretrainConfig | FinetuneConfig]:
    """The runs whose numbers are compared."""
    same: dict[str, Any] = {"folder": data, "width": 4, "batch": batch, "precision": "float32", "device": "cpu"}
    both: dict[str, Any] = {"dims": "2d", "steps": 6, **same}
    masks: dict[str, Any] = {"dims": "3d", "steps": 6, "val": 0.5, "evaluations": 2, **same}
    return {
        "supercl": PretrainConfig(method=SuperCL(), **both),
        "jcl": PretrainConfig(method=JCL(), **both),
        "pdcr": PretrainConfig(method=PDCR(), **both),
        "plain": FinetuneConfig(annotated="nonempty", **masks),
        "patches": FinetuneConfig(method=PDCR(), uafs=True, **masks),
    }


def begin(config: PretrainConfig | FinetuneConfig, folder: Path) -> Iterator[Event]:
    return pretrain(config, folder) if isinstance(config, PretrainConfig) else finetune(config, folder)


def end_at(events: Iterator[Event], run: Run, step: int, how: str) -> None:
    for event in events:
        if isinstance(event, Stepped) and event.step == step:
            run.ask(how)  # type: ignore[arg-type]


def paused(data: Path, runs: Path) -> None:
    run = Run(runs / "paused")
    end_at(begin(configs(data, 2)["patches"], run.folder), run, 3, "pause")
    torch.manual_seed(99)
    list(resume(run.folder))


def stopped(data: Path, runs: Path) -> None:
    run = Run(runs / "stopped")
    end_at(begin(configs(data, 2)["patches"], run.folder), run, 4, "stop")


def timed(data: Path, runs: Path) -> None:
    config = configs(data, 2)["patches"].model_copy(update={"steps": None, "minutes": 0.02})
    list(begin(config, runs / "timed"))


def without_gathering(data: Path, runs: Path) -> None:
    """What every process would learn from its own images only."""
    theirs = supercl.gathered, contrast.gathered, contrast.processes
    supercl.gathered = contrast.gathered = lambda rows: rows  # type: ignore[attr-defined]
    contrast.processes = lambda: 1  # type: ignore[attr-defined]
    list(begin(configs(data, 2)["supercl"], runs / "without_gathering"))
    supercl.gathered, contrast.gathered, contrast.processes = theirs  # type: ignore[attr-defined]


def without_norms(data: Path, runs: Path) -> None:
    """What batch norms of their own would make of it."""
    theirs, stage.over_processes = stage.over_processes, lambda module: None  # type: ignore[attr-defined]
    list(begin(configs(data, 2)["jcl"], runs / "without_norms"))
    stage.over_processes = theirs  # type: ignore[attr-defined]


def layers(data: Path, runs: Path) -> None:
    """Layers over all processes, with values and gradients, against those of torch on the whole batch."""
    processes = join("cpu")
    for kind, shape in ((nn.BatchNorm2d, (8, 3, 5, 4)), (nn.BatchNorm3d, (8, 3, 2, 3, 4)), (nn.Dropout, (8, 3, 5))):
        torch.manual_seed(0)
        whole, weights = (torch.randn(shape) * 3 + 5).requires_grad_(), torch.randn(shape)
        part = processes.part.of(whole).detach().requires_grad_()
        theirs, ours = (nn.Sequential(kind(3) if kind is not nn.Dropout else kind(0.3)) for _ in range(2))
        over_processes(ours)
        found = []
        for module, x, factor in ((theirs, whole, weights), (ours, part, 2 * processes.part.of(weights))):
            torch.manual_seed(1)
            result = module(x)
            (result * factor).sum().backward()
            found.append(result)
        torch.testing.assert_close(found[1], processes.part.of(found[0]))
        torch.testing.assert_close(part.grad, 2 * processes.part.of(whole.grad), rtol=1e-4, atol=1e-5)
        for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            processes.average([other.grad])
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        torch.testing.assert_close(ours.eval()(part), processes.part.of(theirs.eval()(whole)))
    if processes.leads:
        (runs / "layers").mkdir(parents=True)


def type_in(config: PretrainConfig | FinetuneConfig, folder: Path) -> None:
    """Types the command of a run."""
    written = folder.with_suffix(".json")
    written.write_text(config.model_dump_json())
    stage = "pretrain" if isinstance(config, PretrainConfig) else "finetune"
    sys.argv = ["medcl", stage, "--config", str(written), "--run", str(folder)]
    cli.main()


def broken(data: Path, runs: Path) -> None:
    """A command of which one process finds a scan that cannot be read: the second of validation."""
    processes, copy = join("cpu"), runs / "data"
    case = json.loads((runs / "plain" / "split.json").read_text("utf-8"))["val"][1]
    if processes.leads:
        shutil.copytree(data, copy)
        (copy / "imagesTr" / f"{case}.nii.gz").write_bytes(b"no scan")
    processes.gather(None)
    with pytest.raises(SystemExit) as end:
        type_in(configs(copy, 2)["plain"], runs / "broken")
    assert end.value.code == (1 if processes.leads else 0)


def disagreeing(data: Path, runs: Path) -> None:
    """A command of which one process runs out of memory."""
    if join("cpu").rank == 1:
        steps, losses = iter(range(6)), stage._Pretraining.losses

        def scarce(task: Any, batch: Any) -> Any:
            if next(steps) == 2:
                raise torch.OutOfMemoryError("out of memory")
            return losses(task, batch)

        stage._Pretraining.losses = scarce  # type: ignore[method-assign]
    type_in(configs(data, 2)["supercl"], runs / "disagreeing")


MORE: dict[str, Callable[[Path, Path], None]] = {
    one.__name__: one for one in (paused, stopped, timed, without_gathering, without_norms, layers, broken, disagreeing)
}


class Watched(Stepper):
    """Lets the weights of all processes be compared when a run has ended."""

    made: ClassVar[list[Watched]] = []

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.made.append(self)

    @classmethod
    def compare(cls) -> None:
        for stepper in cls.made:
            weights = torch.cat([weight.detach().flatten() for weight in stepper._parameters])
            assert all(torch.equal(weights, others) for others in stepper._processes.gather(weights))
        cls.made.clear()


def main(data: Path, runs: Path, *names: str) -> None:
    known = configs(data, 2)
    loop.Stepper = Watched  # type: ignore[misc]
    for name in names:
        if name in known:
            list(begin(known[name], runs / name))
        else:
            MORE[name](data, runs)
        Watched.compare()
    leave()


def leave() -> None:
    """Ends the group as the end of the interpreter does, whose threads would else abort it now and then."""
    group = weakref.ref(distributed.group.WORLD)
    distributed.destroy_process_group()
    assert group() is None, "something keeps the group, and with it its threads"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
