"""Dice against labelled patients, a line for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medcl.benchmark.figures import Figure

_INCHES, _DPI = (8.0, 4.5), 150
_BESIDE = 0.015
"""Methods stand so far beside each other, as a share of the number of patients, that their bars can be told apart."""
_MARKERS = "os^vDPX*"


def plot(figures: Sequence[Figure], count: str, path: Path) -> None:
    """Draws the plot.

    Args:
        figures: What was found.
        count: What the labelled ones are, patients or cases.
        path: The picture; its ending says the format.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=_INCHES, layout="constrained")
    axes = canvas.subplots()
    methods = list(dict.fromkeys(one.method for one in figures))
    for index, method in enumerate(methods):
        own = sorted((one for one in figures if one.method == method), key=lambda one: one.labelled)
        beside = 1 + _BESIDE * (index - (len(methods) - 1) / 2)
        axes.errorbar(
            [one.labelled * beside for one in own], [one.dice for one in own], [one.spread or 0 for one in own],
            label=method, marker=_MARKERS[index % len(_MARKERS)], markersize=5, capsize=3, linewidth=1.5,
        )  # fmt: skip
    ticks = sorted({one.labelled for one in figures})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(number) for number in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"labelled training {count}")
    axes.set_ylabel("test Dice, mean and standard deviation over runs")
    axes.grid(alpha=0.3)
    canvas.legend(loc="outside right upper")
    canvas.savefig(path, dpi=_DPI)
