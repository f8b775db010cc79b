"""The runs of a benchmark: which there are, and what each is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_medcl.benchmark.config import ADDITIONS, SCRATCH, BenchmarkConfig
from napari_medcl.errors import UserError, explain
from napari_medcl.methods.choices import offers
from napari_medcl.training.compare import flat, settings
from napari_medcl.training.config import FinetuneConfig, PretrainConfig, Shared
from napari_medcl.training.run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medcl.training.events import Stage

PRETRAIN = "pretrain"


@dataclass(frozen=True)
class Cell:
    """A run of a benchmark.

    Attributes:
        folder: Its run folder.
        config: What it is asked for.
        after: The run folder of the pre-training that it starts from, if any.
        method: What is compared, such as supercl+pdcr.
        labelled: So many patients (or cases) are labelled; 0 in pre-training.
        seed: Chooses them.
    """

    folder: Path
    config: PretrainConfig | FinetuneConfig
    after: Path | None = None
    method: str = ""
    labelled: int = 0
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return self.folder.name

    @property
    def stage(self) -> Stage:
        """Pre-training or fine-tuning."""
        return "pretrain" if isinstance(self.config, PretrainConfig) else "finetune"

    def refuse_others(self) -> None:
        """Refuses a run folder that was made with other settings; where the benchmark lies does not count.

        Raises:
            UserError: It was.
        """
        run = Run(self.folder)
        if not (self.folder / "config.json").exists():
            return
        have, want = settings(run), flat(self.config.to_json())
        other = [name for name in want if name not in ("split", "start") and have.get(name) != want[name]]
        if other:
            raise UserError(
                f"The run {self.folder} was made with other settings: {', '.join(other)}. Put them back, or choose "
                "another folder for this benchmark."
            )


def plan(config: BenchmarkConfig, split: Path, runs: Path, most: int) -> list[Cell]:
    """All runs, in the order in which they are made: what is compared stands close together.

    Args:
        config: What is compared.
        split: Who is on which side, for all of them.
        runs: Where their folders are.
        most: So many patients (or cases) there are to learn from.

    Raises:
        UserError: A method is not known, there are not so many patients, or a setting is wrong.
    """
    shared = {name: getattr(config, name) for name in Shared.model_fields if name != "test"} | {"split": split}
    starts = dict.fromkeys(start for method in config.methods if (start := _words(method)[0]) != SCRATCH)
    first = [_pretraining(config, shared, start, runs) for start in starts]
    counts = dict.fromkeys(most if number == "all" else number for number in config.labelled)
    if (largest := max(counts)) > most:
        raise UserError(f"{largest} labelled {config.count} were asked for; the training side has {most}.")
    return first + [
        _finetuning(config, shared, method, runs, (number, most), seed)
        for number in sorted(counts)
        for seed in config.seeds
        for method in config.methods
    ]


def _pretraining(config: BenchmarkConfig, shared: dict[str, Any], start: str, runs: Path) -> Cell:
    own = config.starts.get(start)
    if own is None:
        known = offers("pretrain")
        if start not in known:
            names = ", ".join([SCRATCH, *known, *config.starts])
            raise UserError(f"There is no pre-training “{start}” to compare. Choose {names}, or add it to starts.")
        own = {"method": known[start].settings({})}
    given = {**shared, "steps": config.pretrain_steps, **config.pretrain, **own}
    return Cell(runs / f"{PRETRAIN}_{start}", _checked(PretrainConfig, given, f"pre-training {start}"))


def _finetuning(
    config: BenchmarkConfig, shared: dict[str, Any], method: str, runs: Path, labelled: tuple[int, int], seed: int
) -> Cell:
    start, *additions = _words(method)
    given = {**shared, "steps": config.steps, **config.finetune}
    known = ADDITIONS | config.additions
    for addition in additions:
        if addition not in known:
            raise UserError(f"There is no addition “{addition}” in {method}. Choose {', '.join(known)}.")
        given |= known[addition]
    number, most = labelled
    after = None if start == SCRATCH else runs / f"{PRETRAIN}_{start}"
    given |= {"seed": seed, "start": after, "labelled": None if number == most else number}
    given["labelled_by"] = config.count.removesuffix("s")
    made = _checked(FinetuneConfig, given, f"fine-tuning of {method}")
    return Cell(runs / f"{method}_{number}_seed{seed}", made, after, method, number, seed)


def _words(method: str) -> list[str]:
    return method.split("+")


def _checked(kind: type[Any], given: dict[str, Any], what: str) -> Any:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise UserError(f"In the settings of the {what}:\n{explain(error, '.'.join)}") from error
