"""What a scripted annotator can do to a mask, one stroke at a time, and what it takes to draw a stroke.

Classes are numbered 0 (background), 1, 2, ... A region is a connected piece of one class in one slice of the truth.
One stroke of a brush whose disc may be one pixel wide can put a whole region right and spoil nothing; so can, nearly,
one polygon. That is the most that a plain stroke can do, on the background too, where it erases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as components
from scipy.spatial.distance import cdist
from skimage.measure import approximate_polygon, find_contours

from napari_medcl.data.superpixels import SuperpixelSettings, superpixel_slice
from napari_medcl.inference.scribble import grow_to_edge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.uint8]
    Mask = NDArray[np.bool_]

TARGET = 0.95
TOLERANCES = (0, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 9)
DIAMETERS = (1, 3, 5, 7, 11, 15, 21, 31, 45)
IN_SLICE = (50, 100, 200, 400, 800)
EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class Scene:
    """A case cut into slices along the first axis.

    Attributes:
        image: (Z, Y, X).
        truth: Classes (Z, Y, X).
        spacing: In mm, per axis.
        volumes: Superpixels of the volume (Z, Y, X), from coarse to fine.
        regions: Number of the region (Z, Y, X).
        owner: Class of every region.
        place: Slice of every region.
        goal: The Dice that strokes shall reach before they are drawn.
    """

    image: NDArray[np.float32]
    truth: Array
    spacing: tuple[float, ...]
    volumes: tuple[NDArray[np.int32], ...]
    regions: NDArray[np.int32]
    owner: NDArray[np.intp]
    place: NDArray[np.intp]
    goal: float = TARGET

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Voxels of every class in the truth."""
        return np.bincount(self.truth.ravel())

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """How much Dice a voxel of every class is worth near the target, but for a factor."""
        weights = 1 / (2 * self.sizes * (len(self.sizes) - 1))
        weights[0] = 0
        return weights

    @cached_property
    def areas(self) -> NDArray[np.intp]:
        """Pixels of every region."""
        return np.bincount(self.regions.ravel())

    def table(self, mask: Array) -> NDArray[np.intp]:
        """Voxels by region and class in the mask."""
        classes = len(self.sizes)
        pairs = self.regions.ravel() * classes + mask.ravel()
        return np.bincount(pairs, minlength=len(self.owner) * classes).reshape(-1, classes)

    def dice(self, mask: Array) -> float:
        """The mean over the labels, in 3D."""
        common = np.bincount(self.truth[self.truth == mask], minlength=len(self.sizes))
        return float(mean_dice(common, np.bincount(mask.ravel(), minlength=len(self.sizes)), self.sizes))


@dataclass(frozen=True, eq=False)
class Step:
    """One stroke.

    Attributes:
        kind: What it is made with.
        region: What it puts right, of a plain stroke.
        do: What it does to a mask, otherwise.
        points: What it takes to draw.
        place: In which slice, if in one.
    """

    kind: str
    region: int = -1
    do: Callable[[Array], Array] | None = None
    points: int = 1
    place: int = -1


@dataclass(frozen=True, eq=False)
class Drawing:
    """A way to draw a plain stroke, with clicks and with points that the mouse must pass."""

    kind: str
    clicks: int
    points: int
    painted: Mask
    loss: float = 0.0


def divide(truth: Array) -> tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.intp]]:
    """The regions of a truth, their classes and their slices."""
    regions = np.zeros(truth.shape, np.int32)
    owner: list[int] = []
    place: list[int] = []
    for z, plane in enumerate(truth):
        for value in np.unique(plane).tolist():
            parts, count = components(plane == value, EIGHT)
            regions[z][parts > 0] = parts[parts > 0] + len(owner) - 1
            owner += [value] * count
            place += [z] * count
    return regions, np.array(owner), np.array(place)


def mean_dice(common: NDArray[Any], painted: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any]:
    """Mean over the classes but the first, along the last axis."""
    return (2 * common[..., 1:] / (painted[..., 1:] + sizes[1:])).mean(-1)


def applied(scene: Scene, mask: Array, step: Step) -> Array:
    if step.do is not None:
        return step.do(mask)
    after, z = mask.copy(), scene.place[step.region]
    after[z][scene.regions[z] == step.region] = scene.owner[step.region]
    return after


def replayed(scene: Scene, mask: Array, steps: Sequence[Step]) -> Array:
    for step in steps:
        mask = applied(scene, mask, step)
    return mask


def finish(scene: Scene, mask: Array, limit: int = 10_000) -> list[int] | None:
    """The regions that plain strokes put right until the target is reached, each the best next one; no needless ones.

    Returns:
        None: More than `limit` are needed.
    """
    table, owner = scene.table(mask), scene.owner
    rows, classes = np.arange(len(owner)), np.eye(table.shape[1], dtype=int)[owner]
    right = table[rows, owner]
    wrong = table - classes * right[:, None]
    gained = classes * wrong.sum(1)[:, None]
    common, painted = (classes * right[:, None]).sum(0), table.sum(0)
    chosen: list[int] = []
    while mean_dice(common, painted, scene.sizes) < scene.goal:
        if len(chosen) >= limit:
            return None
        scores = mean_dice(common + gained, painted - wrong + gained, scene.sizes)
        scores[chosen] = -1
        best = int(scores.argmax())
        common, painted = common + gained[best], painted - wrong[best] + gained[best]
        chosen.append(best)
    for one in list(chosen):
        less = common - gained[one], painted + wrong[one] - gained[one]
        if mean_dice(*less, scene.sizes) >= scene.goal:
            common, painted = less
            chosen.remove(one)
    return chosen


def superpixel_stroke(
    scene: Scene, mask: Array, ids: NDArray[np.int32], label: int, within: Mask | None
) -> Step | None:
    """The best drag over superpixels that hang together in one slice, also through those that it does not change.

    Only voxels `within` are painted, if there is such a limit.
    """
    weights = scene.weights
    gain = weights[label] * (2.0 * (scene.truth == label) - TARGET)
    gain += weights[mask] * (TARGET - 2.0 * (scene.truth == mask))
    gain[mask == label] = 0
    if within is not None:
        gain[~within] = 0
    worth = np.bincount(ids.ravel(), gain.ravel())
    flat = np.zeros((3, 3, 3), bool)
    flat[1] = EIGHT
    drags, count = components((worth >= 0)[ids], flat)
    pairs = np.unique(drags.ravel().astype(np.int64) * len(worth) + ids.ravel())
    drag, number = np.divmod(pairs, len(worth))
    totals = np.bincount(drag, worth[number], minlength=count + 1)
    totals[0] = 0
    best = int(totals.argmax())
    if totals[best] <= 0:
        return None
    touched = number[(drag == best) & (worth[number] > 0)]
    where = np.isin(ids, touched) if within is None else np.isin(ids, touched) & within
    place = int(np.argwhere(drags == best)[0, 0])
    return Step("superpixels", do=lambda before: np.where(where, label, before), points=len(touched), place=place)


def drawn_with(scene: Scene, start: Array, steps: list[Step], *, all_tools: bool) -> tuple[list[Step], list[Drawing]]:
    """The steps with the cheapest drawings that leave the target reached."""
    choices, mask = [], start
    last = max((k for k, step in enumerate(steps) if step.do), default=-1)
    for k, step in enumerate(steps):
        if step.do is None:
            run = takewhile(lambda one: one.do is None, steps[k:])
            later = [one.region for one in run if one.place == step.place]
            choices.append(offers(scene, mask, step.region, later, k > last, all_tools=all_tools))
        else:
            choices.append([Drawing(step.kind, 1, step.points, np.zeros(0, bool))])
        mask = applied(scene, mask, step)
    slack = scene.dice(mask) - TARGET
    for part in (2.0, 1.4, 1.0, 0.7, 0.5, 0.3, 0.15, 0.0):
        chosen = loosened(choices, part * slack)
        done = [one if one.do else painted(scene, one, how) for one, how in zip(steps, chosen, strict=True)]
        if scene.dice(replayed(scene, start, done)) >= TARGET:
            return done, chosen
    return steps, [one[0] for one in choices]


def painted(scene: Scene, step: Step, how: Drawing) -> Step:
    def do(before: Array) -> Array:
        after = before.copy()
        after[step.place][how.painted] = scene.owner[step.region]
        return after

    return replace(step, do=do)


def offers(
    scene: Scene, before: Array, region: int, later: list[int], final: bool, *, all_tools: bool
) -> list[Drawing]:
    """The drawings of a region with what they lose against the exact one, which comes first.

    What spills on regions that are drawn later is not lost; before an edit of the volume, the rest always is.
    """
    z, owner = scene.place[region], scene.owner[region]
    regions, truth, mask, weights = scene.regions[z], scene.truth[z], before[z], scene.weights
    harm = weights[truth] * (2 - TARGET) * ((mask == truth) | (not final)) + weights[owner] * TARGET
    harm[np.isin(regions, later) | (mask == owner)] = 0
    miss = ((regions == region) & (mask != owner)) * (weights[owner] * (2 - TARGET) + weights[mask] * TARGET)
    return [
        replace(one, loss=float(harm[one.painted].sum() + miss[~one.painted].sum()))
        for one in drawings(scene, mask, region, all_tools=all_tools)
    ]


def loosened(choices: list[list[Drawing]], slack: float) -> list[Drawing]:
    """Exchanges drawings for some with fewer points, where that loses the least for a point, within a slack."""
    chosen = [min(some, key=lambda one: (one.loss, one.points)) for some in choices]
    while True:
        swaps = [
            ((one.loss - now.loss) / (now.points - one.points), k, one)
            for k, (now, some) in enumerate(zip(chosen, choices, strict=True))
            for one in some
            if one.points < now.points and one.loss - now.loss <= slack
        ]
        if not swaps:
            return chosen
        _, k, one = min(swaps, key=lambda swap: swap[:2])
        slack -= one.loss - chosen[k].loss
        chosen[k] = one


def drawings(scene: Scene, before: Array, region: int, *, all_tools: bool) -> Iterator[Drawing]:
    """The ways to put a region of a slice right, the exact one first; the loss is left open."""
    z, owner = scene.place[region], int(scene.owner[region])
    whole = scene.regions[z] == region
    need = whole & (before != owner)
    deep = distance_transform_edt(np.pad(whole, 1))[1:-1, 1:-1]
    for diameter in DIAMETERS:
        centres = deep > diameter // 2 + 0.5 if diameter > 1 else whole
        if not (found := brushed(need, centres, diameter // 2 + 0.5)):
            break
        yield Drawing("brush", 1, *found)
    for tolerance in TOLERANCES:
        for corners in outlines(whole if owner else need, tolerance):
            yield Drawing("polygon", len(corners), len(corners), filled(corners, whole.shape))
    if not all_tools or not owner:
        return
    for count in IN_SLICE:
        ids = superpixel_slice(scene.image[z], SuperpixelSettings(segments=count))
        part = np.bincount(ids.ravel(), whole.ravel()) / np.bincount(ids.ravel()).clip(1)
        parts, _ = components((part > 0.5)[ids], EIGHT)
        if (counts := np.bincount(parts[whole], minlength=2)[1:]).any():
            painted = parts == counts.argmax() + 1
            yield Drawing("superpixels", 1, len(np.unique(ids[painted & need])), painted)
    seed = np.zeros_like(whole)
    seed[np.unravel_index(deep.argmax(), deep.shape)] = True
    reach = float(1.5 * np.sqrt(whole.sum()) * max(scene.spacing[1:]))
    others = (before != 0) & (before != owner)
    grown = grow_to_edge(scene.image[z], seed, scene.spacing[1:], background=others, reach_mm=reach)
    yield Drawing("grown", 1, 1, grown)


def brushed(need: Mask, centres: Mask, radius: float) -> tuple[int, Mask] | None:
    """How many discs cover what can be covered of a need, and what they paint; their centres hang together."""
    parts, count = components(centres, EIGHT)
    if not count:
        return None
    centres = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    if radius < 1:
        return int((need & centres).sum()), need & centres
    distance, nearest = distance_transform_edt(~centres, return_indices=True)
    left = need & (distance <= radius)
    grid, painted, points = np.indices(need.shape), np.zeros_like(need), 0
    while left.any():
        at = np.unravel_index(left.argmax(), left.shape)
        disc = ((grid - nearest[(slice(None), *at)][:, None, None]) ** 2).sum(0) <= radius**2
        painted |= disc
        left &= ~disc
        points += 1
    return points, painted


def outlines(shape: Mask, tolerance: float) -> Iterator[NDArray[np.intp]]:
    """The corners (N, 2) of polygons, by Douglas and Peucker: round the largest part of a shape, and round all of it.

    The latter goes to holes and other parts and back on one line.
    """
    contours = find_contours(np.pad(shape, 1).astype(np.float32), 0.99)
    rings = [approximate_polygon(np.rint(one - 1).astype(int), tolerance)[:-1].astype(int) for one in contours]
    rings = sorted((one for one in rings if len(one) > 2), key=len, reverse=True)
    if not rings:
        return
    corners = rings[0]
    yield corners
    for ring in rings[1:]:
        here, there = np.divmod(cdist(corners, ring).argmin(), len(ring))
        way = [*range(there, len(ring)), *range(there + 1)]
        corners = np.concatenate([corners[: here + 1], ring[way], corners[here:]])
    if len(rings) > 1:
        yield corners


def filled(corners: NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    """What a polygon paints, as napari draws it."""
    image = Image.new("L", shape[::-1], 0)
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for y, x in corners], outline=1, fill=1)
    return np.array(image, bool)
