"""What a benchmark found: means, how far they can be trusted, and how much of the gap is closed."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from napari_medcl.benchmark.config import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_medcl.benchmark.results import Result

_RESAMPLES = 9999
_TAIL = 0.025


@dataclass(frozen=True)
class Interval:
    """A number, and the 95 % interval that resampled patients give.

    The bounds are NaN where they tell nothing: with one patient, or for a share of a gap that more than 2.5 % of the
    draws do not have.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """A method with so many labelled patients.

    Attributes:
        method: Which.
        labelled: So many.
        seeds: Runs.
        dice: Mean of the runs' test Dice, each the mean over the patients.
        spread: Standard deviation over the runs (n − 1); None of a single one.
        difference: Dice less that of scratch with the same labelled patients; None where there is no such run.
        closed: Share of the gap that the method closes: its difference to scratch over that of scratch with all
            training labels; None where that is not known, or is no gain.
        hd95_mm: Mean of the runs' HD95, each over what has one: a class that was not found at all is left out.
        seconds: Mean time of fine-tuning.
    """

    method: str
    labelled: int
    seeds: int
    dice: float
    spread: float | None
    difference: Interval | None
    closed: Interval | None
    hd95_mm: float
    seconds: float


def figures(results: Sequence[Result], most: int) -> list[Figure]:
    """One figure for every method and number of labelled patients.

    Args:
        results: The runs that have been measured.
        most: So many patients are all that there are to learn from.
    """
    groups: dict[tuple[int, str], dict[int, Result]] = {}
    for one in results:
        groups.setdefault((one.labelled, one.method), {})[one.seed] = one
    full = groups.get((most, SCRATCH), {})
    return [_figure(runs, groups.get((labelled, SCRATCH), {}), full) for (labelled, _), runs in groups.items()]


def _figure(runs: dict[int, Result], scratch: dict[int, Result], full: dict[int, Result]) -> Figure:
    some = next(iter(runs.values()))
    means = [fmean(one.dice.values()) for one in runs.values()]
    seeds = sorted(runs.keys() & scratch.keys())
    difference = closed = None
    if seeds and some.method != SCRATCH:
        own, other = _patients([runs[seed] for seed in seeds]), _patients([scratch[seed] for seed in seeds])
        difference = _interval(own - other)
        if full and some.labelled != next(iter(full.values())).labelled:
            gap = _patients([*full.values()]) - other
            closed = _interval(own - other, gap) if gap.mean() > 0 else None
    return Figure(
        method=some.method,
        labelled=some.labelled,
        seeds=len(runs),
        dice=fmean(means),
        spread=stdev(means) if len(means) > 1 else None,
        difference=difference,
        closed=closed,
        hd95_mm=_mean([fmean(one.hd95_mm.values()) for one in runs.values() if one.hd95_mm]),
        seconds=fmean(one.seconds for one in runs.values()),
    )


def _patients(runs: Sequence[Result]) -> NDArray[np.float64]:
    """Every test patient's Dice, the mean over the runs; in one order for all."""
    found: NDArray[np.float64] = np.array([[value for _, value in sorted(one.dice.items())] for one in runs]).mean(0)
    return found


def _interval(gain: NDArray[np.float64], gap: NDArray[np.float64] | None = None) -> Interval:
    """The mean of every patient's gain, or its share of the mean gap, and where it lies in 95 % of the draws."""
    whole = np.ones_like(gain) if gap is None else gap
    drawn = np.random.default_rng(0).integers(len(gain), size=(_RESAMPLES, len(gain)))
    gains, gaps = gain[drawn].mean(1), whole[drawn].mean(1)
    low = high = float("nan")
    if len(gain) > 1 and (gaps <= 0).mean() <= _TAIL:
        low, high = np.quantile(gains[gaps > 0] / gaps[gaps > 0], [_TAIL, 1 - _TAIL])
    return Interval(float(gain.mean() / whole.mean()), float(low), float(high))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")
