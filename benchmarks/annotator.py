"""A scripted annotator: how many strokes it takes to Dice 0.95 with napari's own tools, and with MedCL's.

    python benchmarks/annotator.py DATA --split SPLIT [--cases N] [--weak MASKS] [--csv FILE]

It starts from an empty mask and, with `--weak` (a folder of masks, or a run that predicts them), from a weak model's
mask. It knows the truth, but may only act by strokes, and looks for the fewest; of a few ways it takes the cheapest:

- plain: brush and polygon in one slice at a time. A stroke puts one connected piece of a label, or of the background,
  right in one slice; the best next one is taken until the mean over the labels of the Dice in 3D is 0.95. To begin
  anew is one stroke, too.
- interpolation: also MedCL's edits of the volume, each one stroke. Labels are wiped, drawn on the slices from which
  interpolation gains most, and interpolated; smoothing, growing and the like follow where that saves strokes.
- everything: also drags over superpixels of the volume, with and without limits of the intensity, and superpixels of
  the slice and growing to the edge to draw with.

Then the strokes are drawn, with as few points as the Dice allows: the corners of a polygon, the discs of a brush, the
superpixels of a drag. Clicks are the corners of polygons and one per other stroke. The rows of the aim "strokes" have
the fewest strokes; for those of the aim "points" more are planned than needed, and drawn more roughly.

Where voxels are about as large along several axes, the annotator cuts along the best of them, which differs between
tools. Labels that a truth does not hold count as background.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from annotator_tools import TARGET, Scene, Step, applied, divide, drawn_with, finish, replayed, superpixel_stroke

from napari_medcl.data.cases import find_cases
from napari_medcl.data.formats import read_labels
from napari_medcl.data.superpixels import SuperpixelSettings, superpixels
from napari_medcl.data.volume import IGNORE
from napari_medcl.files import write_rows
from napari_medcl.inference import correct
from napari_medcl.inference.interpolate import interpolate as fill_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_medcl.data.cases import Case

    Array = NDArray[np.uint8]
    Ways = dict[str, list[list[Step]]]
    Keys = dict[int, tuple[float, tuple[int, ...]]]

TOOLS = ("plain", "interpolation", "everything")
IN_VOLUME = (200, 800, 3200)
CUT = (5,)
"""Percentiles of the intensities of a label between which superpixels may be painted."""
FURTHEST = 8
"""Slices from one annotated slice to the next, at most."""
SQUARE = 1.5
"""Pixels of slices are not longer than that times their width."""
MARGIN = 16
"""Superpixels are made of a box round the masks, so many voxels wider."""
GOALS = (0.95, 0.97)
"""The Dice that strokes are planned for; what is above 0.95 is spent on drawing them with fewer points."""
MOST_DRAGS = 5
"""Over superpixels before anything else."""
MOST_TRIED = 8
"""Plans to interpolate that are carried out, of those that look cheapest."""


def between(scene: Scene, label: int, one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """What interpolation between two annotated slices is worth."""
    first, last = scene.place[one[0]], scene.place[other[0]]
    if last - first < 2:
        return 0.0
    ends = np.zeros((last - first + 1, *scene.truth.shape[1:]), np.uint8)
    ends[0], ends[-1] = np.isin(scene.regions[first], one), np.isin(scene.regions[last], other)
    filled = fill_between(ends, 0, scene.spacing, 1)[1:-1] > 0
    common = np.count_nonzero(filled & (scene.truth[first + 1 : last] == label))
    return float(scene.weights[label] * (2 * common - TARGET * np.count_nonzero(filled)))


def key_slices(scene: Scene, label: int) -> Keys:
    """By strokes: the best that a label becomes by annotating slices and interpolating, and the regions to draw."""
    nodes = []
    for z in np.unique(scene.place[scene.owner == label]):
        parts = np.flatnonzero((scene.owner == label) & (scene.place == z))
        parts = parts[np.argsort(-scene.areas[parts], kind="stable")]
        nodes += [tuple(parts[:count].tolist()) for count in {1, len(parts)}]
    best: list[Keys] = []
    for node in nodes:
        own = float(scene.weights[label] * (2 - TARGET) * scene.areas[list(node)].sum())
        found: Keys = {len(node): (own, node)}
        for earlier, ways in zip(nodes, best, strict=False):
            if not 0 < scene.place[node[0]] - scene.place[earlier[0]] <= FURTHEST:
                continue
            gain = own + between(scene, label, earlier, node)
            for strokes, (value, drawn) in ways.items():
                keep_better(found, strokes + len(node), value + gain, drawn + node)
        best.append(found)
    total: Keys = {0: (0.0, ())}
    for ways in best:
        for strokes, (value, drawn) in ways.items():
            keep_better(total, strokes, value, drawn)
    return total


def keep_better(found: Keys, strokes: int, value: float, drawn: tuple[int, ...]) -> None:
    if strokes not in found or found[strokes][0] < value:
        found[strokes] = value, drawn


def together(ways: Sequence[Keys]) -> Keys:
    """The best of several labels by all their strokes."""
    total: Keys = {0: (0.0, ())}
    for one in ways:
        found: Keys = {}
        for strokes, (value, drawn) in total.items():
            for more, (gain, regions) in one.items():
                keep_better(found, strokes + more, value + gain, drawn + regions)
        total = found
    return total


def plain_steps(scene: Scene, regions: Sequence[int]) -> list[Step]:
    """Strokes that put regions right, slice by slice, the large ones first."""
    ordered = sorted(regions, key=lambda one: (scene.place[one], -scene.areas[one]))
    return [Step("plain", region=one, place=int(scene.place[one])) for one in ordered]


def interpolated(scene: Scene, start: Array, keys: dict[int, Keys]) -> Iterator[list[Step]]:
    """Ways to wipe some labels, draw them on some slices and interpolate, each with its plain strokes at the end."""
    interpolate = Step("interpolate", do=lambda mask: fill_between(mask, 0, scene.spacing))
    missing = {label for label in keys if not (start == label).any()}
    plans = []
    for count in range(1, len(keys) + 1):
        for labels in combinations(keys, count):
            if missing <= set(labels):
                wipes = wiped(start, labels, len(keys))
                ways = together([keys[label] for label in labels])
                plans += [(len(wipes) + some, wipes, drawn) for some, drawn in estimates(scene, start, labels, ways)]
    for _, wipes, drawn in sorted(plans, key=lambda plan: plan[0])[:MOST_TRIED]:
        if found := completed(scene, start, [*wipes, *plain_steps(scene, drawn), interpolate]):
            yield found


def estimates(scene: Scene, start: Array, labels: Sequence[int], ways: Keys) -> Iterator[tuple[int, tuple[int, ...]]]:
    """About how many strokes it takes if these labels are interpolated from so many, and the regions to draw."""
    table = scene.table(np.where(np.isin(start, labels), 0, start))
    rows = np.arange(len(scene.owner))
    values = -TARGET * table * scene.weights
    values[rows, scene.owner] += 2 * table[rows, scene.owner] * scene.weights[scene.owner]
    ideal = (2 - TARGET) * scene.areas * scene.weights[scene.owner]
    free = ~np.isin(scene.owner, labels)
    gains = np.cumsum(np.sort((ideal - values.sum(1))[free])[::-1])
    for strokes, (value, drawn) in ways.items():
        short = scene.goal / 2 - value - values.sum()
        yield strokes + (int(np.searchsorted(gains, short)) + 1 if short > 0 else 0), drawn


def wiped(start: Array, labels: Sequence[int], count: int) -> list[Step]:
    there = [label for label in labels if (start == label).any()]
    if there and len(labels) == count:
        return [Step("wipe", do=np.zeros_like)]
    return [Step("wipe", do=lambda mask, label=label: np.where(mask == label, 0, mask)) for label in there]


def completed(scene: Scene, start: Array, steps: list[Step], fewer_than: int = 10_000) -> list[Step] | None:
    """The same with plain strokes until the target is reached; None if that is not possible with fewer."""
    if len(steps) >= fewer_than:
        return None
    rest = finish(scene, replayed(scene, start, steps), fewer_than - 1 - len(steps))
    return None if rest is None else [*steps, *plain_steps(scene, rest)]


def edits(scene: Scene) -> Iterator[Step]:
    """MedCL's edits of the volume, of all labels."""
    pixel, voxel = min(scene.spacing[1:]), float(np.prod(scene.spacing)) / 1000
    does: dict[str, Callable[[Array], Array]] = {
        "keep largest": correct.keep_largest,
        "fill holes": correct.fill_holes,
        "remove islands": lambda mask: correct.remove_islands(mask, 50 * voxel, voxel),
    }
    for size in (0.7, 1.4, 2.8):
        does[f"smooth {size}"] = lambda mask, mm=size * pixel: correct.smooth(mask, mm, scene.spacing)
    for far in (-1, 1):
        does[f"grow {far}"] = lambda mask, mm=far * pixel: correct.grow(mask, mm, scene.spacing)
    for name, do in does.items():
        yield Step(name, do=lambda mask, do=do: do(mask).astype(np.uint8))


def superpixel_steps(scene: Scene, mask: Array) -> Iterator[Step]:
    """The best drag for every size, label and range of intensities."""
    for label in range(len(scene.sizes)):
        inside = scene.image[scene.truth == label]
        ranges = [np.percentile(inside, (low, 100 - low)) for low in CUT] if label else []
        for ids in scene.volumes:
            for within in (None, *(correct.window(scene.image, *both) for both in ranges)):
                if step := superpixel_stroke(scene, mask, ids, label, within):
                    yield step


def improved(scene: Scene, start: Array, steps: list[Step], *, with_superpixels: bool) -> list[Step]:
    """Edits and superpixels before the last plain strokes, one after the other as long as they save strokes."""
    last = max((k for k, step in enumerate(steps) if step.kind != "plain"), default=-1)
    head, best, patience = steps[: last + 1], steps, 2
    while patience:
        mask = replayed(scene, start, head)
        offers = [*edits(scene), *(superpixel_steps(scene, mask) if with_superpixels else ())]
        most = len(best) + 1 - len(head)
        finished = [(finish(scene, applied(scene, mask, one), most), one) for one in offers]
        tried = [(rest, one) for rest, one in finished if rest is not None]
        if not tried:
            break
        rest, step = min(tried, key=lambda way: len(way[0]))
        head = [*head, step]
        if len(head) + len(rest) < len(best):
            best, patience = [*head, *plain_steps(scene, rest)], 2
        else:
            patience -= 1
    return best


def started(scene: Scene, start: Array, labels: int) -> Iterator[list[Step]]:
    """A few drags over superpixels, on the mask as it is or anew, each the best next one."""
    anew = wiped(start, range(1, labels + 1), labels)
    for steps in [[], anew] if anew else [[]]:
        mask = replayed(scene, start, steps)
        for _ in range(MOST_DRAGS):
            offers = [(scene.dice(step.do(mask)), step) for step in superpixel_steps(scene, mask) if step.do]
            if not offers:
                break
            step = max(offers, key=lambda offer: offer[0])[1]
            steps, mask = [*steps, step], np.asarray(applied(scene, mask, step), np.uint8)
            yield steps


def ways_of(scene: Scene, start: Array, keys: dict[int, Keys]) -> Ways:
    """By tools, ways to the target that need them: as the mask is, anew, interpolated, from superpixels."""
    anew = wiped(start, list(keys), len(keys))
    plain = [completed(scene, start, steps) for steps in ([], anew)]
    found: Ways = {"plain": [one for one in plain if one is not None]}
    found["interpolation"] = list(interpolated(scene, start, keys))
    found["everything"] = []
    for head in started(scene, start, len(keys)):
        mask = replayed(scene, start, head)
        found["everything"] += [[*head, *rest] for rest in interpolated(scene, mask, keys)]
    return found


def fewest(scene: Scene, start: Array, tools: str, ways: Ways) -> list[Step]:
    """The fewest strokes with some tools and all that come before them."""
    if tools == "plain":
        return min(ways["plain"], key=len)
    more = sorted((one for name in TOOLS[1 : TOOLS.index(tools) + 1] for one in ways[name]), key=len)
    tried = [min(ways["plain"], key=len), *more[:2]]
    with_superpixels = tools == "everything"
    return min((improved(scene, start, one, with_superpixels=with_superpixels) for one in tried), key=len)


def scenes(image: NDArray[Any], truth: Array, spacing: Sequence[float]) -> Iterator[tuple[int, Scene]]:
    """The case along every axis with about square pixels across."""
    volumes = [superpixels(image, SuperpixelSettings(segments=count, per="volume"), spacing) for count in IN_VOLUME]
    for axis in range(3):
        across = np.delete(spacing, axis)
        if truth.shape[axis] == 1 or max(across) > SQUARE * min(across):
            continue
        turned, seen, *ids = (np.ascontiguousarray(np.moveaxis(one, axis, 0)) for one in (truth, image[0], *volumes))
        yield axis, Scene(seen, turned, (spacing[axis], *across.tolist()), tuple(ids), *divide(turned))


def row_of(scene: Scene, start: Array, tools: str, steps: list[Step]) -> dict[str, Any]:
    """What it takes to draw the strokes, and what comes of it."""
    done, how = drawn_with(scene, start, steps, all_tools=tools == "everything")
    dice = scene.dice(replayed(scene, start, done))
    return {
        "planned_for": scene.goal,
        "dice_before": round(scene.dice(start), 4),
        "dice": round(dice, 4),
        "reached": dice >= TARGET,
        "strokes": len(done),
        "clicks": sum(one.clicks for one in how),
        "points": sum(one.points for one in how),
        "slices": len({one.place for one in done} - {-1}),
        "made_with": ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in how).items()),
    }


def rows_of(views: dict[int, Scene], starts: dict[str, Array]) -> Iterator[dict[str, Any]]:
    """For every start and tools, the way with the fewest strokes and that with the fewest points."""
    keys = {axis: {label: key_slices(one, label) for label in range(1, len(one.sizes))} for axis, one in views.items()}
    for name, mask in starts.items():
        turned = {axis: np.ascontiguousarray(np.moveaxis(mask, axis, 0)) for axis in views}
        rows: dict[str, list[dict[str, Any]]] = {tools: [] for tools in TOOLS}
        for goal in GOALS:
            scenes = {axis: replace(one, goal=goal) for axis, one in views.items()}
            ways = {axis: ways_of(one, turned[axis], keys[axis]) for axis, one in scenes.items()}
            for tools in TOOLS:
                allowed = TOOLS[: TOOLS.index(tools) + 1]
                few = {axis: min(len(way) for name in allowed for way in ways[axis][name]) for axis in ways}
                axis = min(few, key=few.__getitem__)
                steps = fewest(scenes[axis], turned[axis], tools, ways[axis])
                rows[tools].append({"axis": axis, **row_of(scenes[axis], turned[axis], tools, steps)})
        for k, tools in enumerate(TOOLS):
            found = [row for fewer in TOOLS[: k + 1] for row in rows[fewer]]
            about = {"start": name, "tools": tools}
            yield {"aim": "strokes", **about, **min(found, key=lambda row: (row["strokes"], row["points"]))}
            yield {"aim": "points", **about, **min(found, key=lambda row: (row["points"], row["strokes"]))}


def classes(array: NDArray[Any], labels: NDArray[Any]) -> Array:
    """Labels as classes from 1; others as background."""
    return ((array[..., None] == labels) * np.arange(1, len(labels) + 1)).sum(-1).astype(np.uint8)


def case_rows(case: Case, weak: Path | None) -> list[dict[str, Any]]:
    volume, truth = case.volume(), case.truth().array
    labels = np.setdiff1d(np.unique(truth), [0, IGNORE])
    starts = {"empty": np.zeros(truth.shape, np.uint8)}
    if weak is not None:
        starts["weak"] = classes(read_labels(weak / f"{case.id}.nii.gz").array, labels)
    wanted = classes(truth, labels)
    box = correct.around(np.logical_or.reduce([wanted > 0, *(mask > 0 for mask in starts.values())]), MARGIN)
    image = np.ascontiguousarray(volume.array[(slice(None), *box)], dtype=np.float32)
    began = time.monotonic()
    views = dict(scenes(image, wanted[box], volume.spacing))
    rows = list(rows_of(views, {name: mask[box] for name, mask in starts.items()}))
    seconds = round(time.monotonic() - began, 1)
    return [{"case": case.id, **row, "seconds": seconds} for row in rows]


def masks(weak: Path, cases: Sequence[Case], folder: Path) -> Path:
    """The folder of masks, predicted first if it is a run."""
    if not (weak / "config.json").exists():
        return weak
    scans = [str(path) for case in cases for path in case.images]
    subprocess.run([sys.executable, "-m", "napari_medcl", "predict", weak, *scans, "--out", folder], check=True)
    return folder


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: medians, and sums in brackets, over the cases."""
    lines = [
        "| aim | start | tools | strokes | of plain | clicks | points | of plain | slices | reached |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for aim, start, tools in dict.fromkeys((row["aim"], row["start"], row["tools"]) for row in rows):
        here = [row for row in rows if (row["aim"], row["start"]) == (aim, start)]
        mine, plain = ([row for row in here if row["tools"] == one] for one in (tools, TOOLS[0]))
        cells = {
            name: f"{statistics.median(row[name] for row in mine):g} ({sum(row[name] for row in mine)})"
            for name in ("strokes", "clicks", "points", "slices")
        }
        of_plain = {
            name: f"{sum(row[name] for row in mine) / max(1, sum(row[name] for row in plain)):.2f}"
            for name in ("strokes", "points")
        }
        reached = f"{sum(row['reached'] for row in mine)} of {len(mine)}"
        lines.append(
            f"| {aim} | {start} | {tools} | {cells['strokes']} | {of_plain['strokes']} | {cells['clicks']} | "
            f"{cells['points']} | {of_plain['points']} | {cells['slices']} | {reached} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--weak", type=Path)
    parser.add_argument("--csv", type=Path)
    asked = parser.parse_args()
    names = json.loads(asked.split.read_text())["test"][: asked.cases]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        cases = find_cases(asked.data).select(names)
        weak = masks(asked.weak, cases, Path(folder)) if asked.weak else None
        for case in cases:
            rows += case_rows(case, weak)
            if asked.csv:
                write_rows(asked.csv, rows)
            print(case.id, rows[-1]["seconds"], "s", file=sys.stderr, flush=True)
    print(f"{asked.data.name}, {len(names)} cases: medians and, in brackets, sums\n\n{table(rows)}")


if __name__ == "__main__":
    main()
