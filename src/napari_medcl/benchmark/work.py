"""Making the runs of a benchmark, alone or together with other processes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medcl.benchmark.cells import Cell, plan
from napari_medcl.benchmark.results import TEST, note
from napari_medcl.benchmark.setting import Setting
from napari_medcl.errors import Stopped, UserError
from napari_medcl.inference.evaluate import evaluate
from napari_medcl.inference.predict import Predictor
from napari_medcl.inference.table import Table
from napari_medcl.training.config import PretrainConfig
from napari_medcl.training.events import Event, Preparing
from napari_medcl.training.finetune import finetune
from napari_medcl.training.lock import FolderLock, Taken
from napari_medcl.training.pretrain import pretrain
from napari_medcl.training.resume import resume
from napari_medcl.training.run import Run, find_checkpoint, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medcl.benchmark.config import BenchmarkConfig

_LOOK_AGAIN_S = 2.0


class Benchmark:
    """The runs of a benchmark and their folder.

    Several processes, also on several machines, may work on one folder: each run is made by one of them. Whatever
    has been made is kept; the same benchmark with more methods, patients or seeds goes on from there.

    Args:
        config: What is compared.
        folder: Where everything goes.

    Attributes:
        setting: Who is on which side, and what all runs share.
        cells: All runs.
        failed: Runs that this process could not make, and why.

    Raises:
        UserError: The data, the settings and the folder do not fit each other.
    """

    def __init__(self, config: BenchmarkConfig, folder: Path | str) -> None:
        self.config, self.folder = config, Path(folder).resolve()
        self.setting = Setting.of(config, self.folder)
        self.cells = plan(self.setting.config, self.folder / "split.json", self.folder / "runs", self.setting.most)
        for cell in self.cells:
            cell.refuse_others()
        self.setting.keep(self.folder)
        self.failed: dict[str, str] = {}

    def left(self) -> list[Cell]:
        """The runs that are not made yet, or not measured."""
        return [cell for cell in self.cells if not _done(cell)]

    def work(self) -> Iterator[tuple[Cell, Iterator[Event]]]:
        """Makes the runs that are left.

        A run that cannot be made is noted in `failed`, and the others go on. A run that somebody pauses or stops ends
        the work; the next call goes on with it.

        Returns:
            Run by run what happens in it; each is to be read to its end.
        """
        while (left := [cell for cell in self.left() if cell.name not in self.failed]) and not self._idle(left):
            took = False
            for cell in left:
                with ExitStack() as held:
                    if not self._mine(cell, held):
                        continue
                    took = True
                    try:
                        events = self._begun(cell)
                    except UserError as error:
                        self.failed[cell.name] = str(error)
                        continue
                    yield cell, self._noted(cell, events)
                    if Run(cell.folder).end_asked() or not (_done(cell) or cell.name in self.failed):
                        return
            if not took:
                time.sleep(_LOOK_AGAIN_S)

    def _idle(self, left: list[Cell]) -> bool:
        """Whether nothing of what is left can be made: all of it starts from a pre-training that failed."""
        return all(cell.after is not None and cell.after.name in self.failed for cell in left)

    def _mine(self, cell: Cell, held: ExitStack) -> bool:
        """Takes a run in hand that can be made now, so that no other process does."""
        if cell.after is not None and Run(cell.after).state != "finished":
            return False
        claim = self.folder / "claims" / cell.name
        with writing(self.folder):
            claim.mkdir(parents=True, exist_ok=True)
        try:
            held.enter_context(FolderLock(claim).holding())
        except Taken:
            return False
        return not (_done(cell) or Run(cell.folder).is_alive())

    def _begun(self, cell: Cell) -> Iterator[Event]:
        """What is left to do for a run; its folder is there when this returns.

        Raises:
            UserError: It cannot be made.
        """
        run = Run(cell.folder)
        if (cell.folder / "config.json").exists():
            cell.refuse_others()
        if run.state == "finished":
            run.call()  # what was asked of the training is over
            run.answer()
            return self._measured(cell)
        return self._made(cell, _training(cell))

    def _made(self, cell: Cell, events: Iterator[Event]) -> Iterator[Event]:
        yield from events
        if cell.stage == "finetune" and not Run(cell.folder).end_asked():
            yield from self._measured(cell)

    def _noted(self, cell: Cell, events: Iterator[Event]) -> Iterator[Event]:
        try:
            yield from events
        except UserError as error:
            self.failed[cell.name] = str(error)

    def _measured(self, cell: Cell) -> Iterator[Event]:
        """The one look at the test cases, with the model that validation chose."""
        note(cell)
        predictor = Predictor(find_checkpoint(cell.folder), self.config.device)
        tested, tables = self.setting.split.test, []
        for index, case in enumerate(tested):
            yield Preparing(progress=index / len(tested), message=f"test case {index + 1} of {len(tested)}")
            try:
                tables.append(
                    evaluate(
                        predictor, self.setting.cases, [case], channel=self.config.channel,
                        stop=Run(cell.folder).end_asked,
                    )
                )  # fmt: skip
            except Stopped:
                return
        found = Table(tuple(row for table in tables for row in table.rows))
        if not found.summary().cases:
            raise UserError("The masks of the test cases hold none of the classes: there is nothing to measure.")
        found.to_csv(cell.folder / TEST)


def _done(cell: Cell) -> bool:
    if cell.stage == "finetune":
        return (cell.folder / TEST).exists()
    return Run(cell.folder).state == "finished"


def _training(cell: Cell) -> Iterator[Event]:
    """Begins a run, or goes on with it."""
    if (cell.folder / "events.jsonl").exists():
        return resume(cell.folder)
    if isinstance(cell.config, PretrainConfig):
        return pretrain(cell.config, cell.folder)
    return finetune(cell.config, cell.folder)
