from __future__ import annotations

import math

import pytest

from napari_medcl.training.events import Evaluated, Failed, Finished, Started, Stepped, Waiting
from napari_medcl.training.history import MEAN, History, duration

STARTED = Started(
    run="r", stage="finetune", device="cpu", precision="float32", steps=10, minutes=None, cases=3, message="3 scans"
)


def stepped(step: int, **terms: float) -> Stepped:
    return Stepped(step=step, progress=step / 10, terms=terms, rate=0.1, remaining_s=100 - step)


def test_every_term_and_class_is_a_curve() -> None:
    history = History()
    history.add([STARTED, stepped(1, dice=0.9, entropy=1.5), stepped(2, dice=0.8, entropy=1.25)])
    history.add([Evaluated(step=2, dice={"liver": 0.5, "spleen": 0.7}, mean=0.6, best=True)])
    assert history.terms["entropy"].steps == [1, 2]
    assert history.terms["entropy"].values == [1.5, 1.25]
    assert {name: curve.values for name, curve in history.dice.items()} == {
        "liver": [0.5],
        "spleen": [0.7],
        MEAN: [0.6],
    }
    assert (history.step, history.steps, history.progress, history.remaining_s) == (2, 10, 0.2, 98)
    assert history.lines == ["3 scans", "Step 2: validation Dice 0.600, the best so far."]


@pytest.mark.parametrize(
    ("last", "progress", "line"),
    [
        (Finished(step=5, reason="stopped", message="Stopped."), 0.5, "Stopped."),
        (Finished(step=5, reason="done", message="Done."), 1.0, "Done."),
        (Failed(step=5, message="No GPU.", hint="Use cpu."), 0.5, "No GPU. Use cpu."),
    ],
)
def test_the_end_has_no_time_left(last: Finished | Failed, progress: float, line: str) -> None:
    history = History()
    history.add([STARTED, stepped(5, loss=1), last])
    assert history.remaining_s is None
    assert history.progress == progress
    assert history.lines[-1] == line


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 0 min"), (12_000, "3 h 20 min")]
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_whom_it_waits_for_until_it_says_something_else() -> None:
    history = History()
    history.add([Waiting(time=5, ahead=("a", "b"), message="Waits.")])
    assert (history.ahead, history.began) == (("a", "b"), 5)
    history.add([stepped(1, loss=1)])
    assert (history.ahead, history.began) == ((), 5)


@pytest.mark.parametrize(("chosen", "best"), [((0.5, 0.75), 0.75), ((), 0.25)])
def test_best_dice_is_of_the_chosen_model_else_of_the_last_and_never_undefined(
    chosen: tuple[float, ...], best: float
) -> None:
    history = History()
    assert history.best_dice is None
    for mean in (math.nan, 0.5, 0.75, math.nan, 0.25, math.nan):
        history.add([Evaluated(step=1, dice={}, mean=mean, best=mean in chosen)])
    assert history.best_dice == best
