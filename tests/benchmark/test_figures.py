from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medcl.benchmark.figures import Figure, figures
from napari_medcl.benchmark.results import Result

PATIENTS = tuple("abcdefgh")


def result(method: str, labelled: int, seed: int, dice: dict[str, float], **more: str) -> Result:
    rows = tuple(
        {"case": f"{patient}1", "group": patient, "status": "ok", "dice": repr(value), "hd95_mm": "2.0", **more}
        for patient, value in dice.items()
    )
    return Result(f"{method}_{labelled}_seed{seed}", method, labelled, seed, None, 10.0, rows)


def found(results: list[Result], most: int = 5) -> dict[tuple[str, int], Figure]:
    return {(one.method, one.labelled): one for one in figures(results, most)}


def random_dice(seed: int, middle: float) -> dict[str, float]:
    random = np.random.default_rng(seed)
    return {patient: float(random.normal(middle, 0.05)) for patient in PATIENTS}


def test_means_spread_difference_and_gap_are_those_of_the_formulas() -> None:
    scratch = [random_dice(seed, 0.5) for seed in (1, 2, 3)]
    own = [random_dice(seed, 0.6) for seed in (4, 5, 6)]
    full = [random_dice(seed, 0.8) for seed in (7, 8, 9)]
    results = [result("scratch", 1, seed, dice) for seed, dice in enumerate(scratch)]
    results += [result("jcl", 1, seed, dice) for seed, dice in enumerate(own)]
    results += [result("scratch", 5, seed, dice) for seed, dice in enumerate(full)]
    one = found(results)["jcl", 1]
    means = [fmean(dice.values()) for dice in own]
    assert one.dice == pytest.approx(fmean(means))
    assert one.spread == pytest.approx(stdev(means))
    low, high = (fmean(fmean(dice.values()) for dice in some) for some in (scratch, full))
    assert one.difference is not None
    assert one.closed is not None
    assert one.difference.value == pytest.approx(one.dice - low)
    assert one.closed.value == pytest.approx((one.dice - low) / (high - low))
    assert (one.seeds, one.hd95_mm, one.seconds) == (3, 2.0, 10.0)


def test_the_interval_is_that_of_patients_drawn_with_replacement() -> None:
    """Against a literal loop over draws, to the accuracy that so many draws have."""
    scratch, own, full = (random_dice(seed, middle) for seed, middle in ((1, 0.5), (2, 0.6), (3, 0.8)))
    one = found([result("scratch", 1, 0, scratch), result("jcl", 1, 0, own), result("scratch", 5, 0, full)])["jcl", 1]
    random = np.random.default_rng(1)
    differences, shares = [], []
    for _ in range(20_000):
        drawn = [PATIENTS[index] for index in random.integers(len(PATIENTS), size=len(PATIENTS))]
        low, mine, high = (fmean(some[patient] for patient in drawn) for some in (scratch, own, full))
        differences.append(mine - low)
        shares.append((mine - low) / (high - low))
    assert one.difference is not None
    assert one.closed is not None
    for interval, draws in ((one.difference, differences), (one.closed, shares)):
        wanted = np.percentile(draws, [2.5, 97.5])
        assert [interval.low, interval.high] == pytest.approx(wanted, abs=0.05 * (wanted[1] - wanted[0]))


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.4, 0.4), st.integers(0, 1000))
def test_a_gain_that_is_the_same_for_everybody_has_no_width(gain: float, seed: int) -> None:
    scratch = random_dice(seed, 0.5)
    own = {patient: value + gain for patient, value in scratch.items()}
    one = found([result("scratch", 1, 0, scratch), result("jcl", 1, 0, own)])["jcl", 1]
    assert one.difference is not None
    assert [one.difference.low, one.difference.value, one.difference.high] == pytest.approx([gain] * 3, abs=1e-9)


def test_only_seeds_that_both_have_are_compared() -> None:
    scratch, other, own = (random_dice(seed, 0.5) for seed in (1, 2, 3))
    results = [result("scratch", 1, 0, scratch), result("scratch", 1, 1, other), result("jcl", 1, 1, own)]
    one = found(results)["jcl", 1]
    assert one.difference is not None
    assert one.difference.value == pytest.approx(fmean(own.values()) - fmean(other.values()))


def test_there_is_no_gap_to_close_without_the_full_run_at_all_labels_or_where_more_labels_do_not_help() -> None:
    scratch, own, full = random_dice(1, 0.5), random_dice(2, 0.6), random_dice(3, 0.8)
    assert found([result("scratch", 1, 0, scratch), result("jcl", 1, 0, own)])["jcl", 1].closed is None
    both = [result("scratch", 5, 0, full), result("jcl", 5, 0, own)]
    assert found(both)["jcl", 5].closed is None
    assert found(both)["jcl", 5].difference is not None
    worse = [result("scratch", 1, 0, full), result("jcl", 1, 0, own), result("scratch", 5, 0, scratch)]
    assert found(worse)["jcl", 1].closed is None


def test_a_single_test_patient_gives_no_interval_and_a_single_run_no_spread() -> None:
    one = found([result("scratch", 1, 0, {"a": 0.5}), result("jcl", 1, 0, {"a": 0.7})])["jcl", 1]
    assert one.difference is not None
    assert one.difference.value == pytest.approx(0.2)
    assert math.isnan(one.difference.low)
    assert one.spread is None


def test_a_patient_counts_once_however_many_scans_and_classes_there_are() -> None:
    def row(patient: str, case: str, dice: str, status: str = "ok") -> dict[str, str]:
        return {"case": case, "group": patient, "status": status, "dice": dice, "hd95_mm": ""}

    rows = (
        row("a", "a1", "0.2"),
        row("a", "a1", "0.4"),
        row("a", "a2", "0.9"),
        row("b", "b1", "0.0", "empty prediction"),
        row("b", "b1", "", "false positive"),
    )
    one = Result("run", "scratch", 1, 0, None, 1.0, rows)
    assert one.dice == pytest.approx({"a": (0.3 + 0.9) / 2, "b": 0.0})
    assert one.hd95_mm == {}
