"""A network applied to images of any size: windows, blended where they overlap, a few slices at a time."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from torch import Tensor

    Place = tuple[int, int, int]

_WHOLE = {2: 4.0, 3: 1.5}
"""An axis up to so many patches long is one window, in slices and in volumes: no seam, and nothing is computed twice.

In volumes a window of 1.5 is no dearer than the two it would take; longer ones would take too much memory."""


class Image(Protocol):
    """(C, Z, Y, X) of which slices are asked for as `image[:, begin:end]`, such as an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Z, Y, X)."""

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        """Some slices."""


def blended(
    image: Image,
    compute: Callable[[Tensor], Tensor],
    *,
    patch: Sequence[int],
    overlap: Sequence[float],
    batch: int,
    device: torch.device,
    watch: Callable[[float], None] | None,
) -> Iterator[Tensor]:
    """The mean, by a bell over every window, of what is computed for the windows that cover a voxel.

    Windows are taken in the order of their slices, and slices are given as soon as no later window reaches them: no
    more is held than a window is deep. A window that is the same everywhere, such as air or a clipped background, is
    computed once for each value in a row: the network sees nothing else in it.

    Args:
        image: (C, Z, Y, X).
        compute: From windows (b, C, *window) on the device to (b, D, *window) float32, or to coarser maps: then image,
            windows and their steps are to be whole numbers of coarse pixels. In 2D windows are of single slices.
        patch: Size of a window, but for axes that are little longer; two numbers in 2D.
        overlap: Part of a window that it shares with the next one, for each axis.
        batch: Windows at a time.
        device: Where to compute.
        watch: Is called before every batch of windows with the part that is done; may raise to stop.

    Yields:
        (D, z, Y, X) on the CPU, one after the other all of Z; coarser by as much as what is computed is coarser than
        its window.

    Raises:
        UserError: A batch of windows does not fit into the device's memory.
    """
    flat = len(patch) == 2
    window, starts = _windows(image.shape[1:], patch, overlap)
    places = [*itertools.product(*starts)]
    sheet: _Sheet | None = None
    cut, memory = _Cut(image, window), _Uniform()
    for first in range(0, len(places), batch):
        if watch is not None:
            watch(first / len(places))
        some = places[first : first + batch]
        tiles = torch.stack([cut.at(place) for place in some])
        try:
            with torch.inference_mode():
                found = memory.through(tiles.squeeze(2) if flat else tiles, device, compute)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{batch} windows of {' x '.join(map(str, window[flat:]))} voxels do not fit into the memory "
                f"of {device}. Use a smaller batch, or device=cpu."
            ) from error
        found = found.unsqueeze(2) if flat else found
        sheet = sheet or _Sheet(found, image.shape[1:], window, starts)
        for place, one in zip(some, found, strict=True):
            yield from sheet.finished(place[0])
            sheet.add(place, one)
    assert sheet is not None
    yield from sheet.finished(image.shape[1])


class _Cut:
    """Cuts windows from an image, of which it holds the slices of one window."""

    def __init__(self, image: Image, window: Place) -> None:
        self._image, self._window = image, window
        self._begin, self._slices = -1, torch.empty(0)

    def at(self, place: Place) -> Tensor:
        """(C, *window)."""
        if place[0] != self._begin:
            self._begin = place[0]
            self._slices = torch.from_numpy(np.array(self._image[:, place[0] : place[0] + self._window[0]]))
        inside = (slice(start, start + side) for start, side in zip(place[1:], self._window[1:], strict=True))
        return self._slices[(slice(None), slice(None), *inside)]


class _Uniform:
    """Remembers what was computed last for a window that is the same everywhere."""

    def __init__(self) -> None:
        self._value, self._found = torch.empty(0), torch.empty(0)

    def through(self, tiles: Tensor, device: torch.device, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """What is computed of windows (b, C, *window), each that needs it once."""
        low, high = (torch.stack([*function(tiles.flatten(2), 2)]) for function in (torch.amin, torch.amax))
        uniform = (low == high).all(1)
        known = torch.tensor(
            [bool(same) and torch.equal(value, self._value) for same, value in zip(uniform, low, strict=True)]
        )
        if not known.any():
            found = compute(tiles.to(device))
            new = found
        elif known.all():
            return self._found.expand(len(tiles), *self._found.shape)
        else:
            new = compute(tiles[~known].to(device))
            found = self._found.expand(len(tiles), *self._found.shape).clone()
            found[(~known).to(device)] = new
        if (uniform & ~known).any():
            last = int(torch.nonzero(uniform & ~known)[-1])
            self._value, self._found = low[last], found[last].clone()
        return found


class _Sheet:
    """The sum over the windows of the slices that a later window may still reach."""

    def __init__(self, found: Tensor, shape: Sequence[int], window: Place, starts: Sequence[Sequence[int]]) -> None:
        outputs, depth = found.shape[1:3]
        self._stride = [side // size for side, size in zip(window, found.shape[2:], strict=True)]
        self._size = [-(-length // step) for length, step in zip(shape, self._stride, strict=True)]
        self._bell = [_bell(size, found.device) for size in found.shape[2:]]
        self._total = [
            _total(length, bell, [start // step for start in begins])
            for length, bell, begins, step in zip(self._size, self._bell, starts, self._stride, strict=True)
        ]
        self._base = 0
        self._sum = torch.zeros(outputs, depth, *self._size[1:], device=found.device)

    def add(self, place: Place, found: Tensor) -> None:
        """A window's (D, *window), which begins at a place and reaches no slice that was given."""
        z, y, x = self._bell
        _, y0, x0 = (start // step for start, step in zip(place, self._stride, strict=True))
        part = self._sum[:, :, y0 : y0 + len(y), x0 : x0 + len(x)]
        part += found * (z[:, None, None] * y[:, None] * x)

    def finished(self, slice_: int) -> Iterator[Tensor]:
        """The slices before one of the image, if they have not been given."""
        count = min(-(-slice_ // self._stride[0]) - self._base, self._sum.shape[1])
        if count <= 0:
            return
        z, y, x = self._total
        weights = z[self._base : self._base + count, None, None] * y[:, None] * x
        yield (self._sum[:, :count] / weights).cpu()
        self._base += count
        rest = self._sum[:, count:].clone()
        self._sum[:, : rest.shape[1]] = rest
        self._sum[:, rest.shape[1] :] = 0


def _bell(size: int, device: torch.device) -> Tensor:
    """Weights along an axis of a window: a Gaussian with an eighth of it as standard deviation.

    MONAI's own map is cut off at 0.001 from below, which at the border of a scan gives a window's
    corners, where it sees least, up to a fifth of the say.
    """
    place = (torch.arange(size, device=device) - (size - 1) / 2) / (size / 8)
    return torch.exp(-0.5 * place**2)


def _total(length: int, bell: Tensor, begins: Sequence[int]) -> Tensor:
    """Sum of the windows' weights at every place of an axis."""
    total = bell.new_zeros(length)
    for begin in begins:
        total[begin : begin + len(bell)] += bell
    return total


def _windows(
    shape: Sequence[int], patch: Sequence[int], overlap: Sequence[float]
) -> tuple[Place, tuple[Sequence[int], Sequence[int], Sequence[int]]]:
    """Size of a window and where windows begin, along each axis; the last one ends with the image."""
    longest = _WHOLE[len(patch)]
    sides, shared = ([1, *patch], [0.0, *overlap]) if len(patch) == 2 else ([*patch], [*overlap])
    sizes, starts = [], []
    for axis, (length, side, part) in enumerate(zip(shape, sides, shared, strict=True)):
        single = len(patch) == 2 and axis == 0
        size = length if length <= longest * side and not single else side
        step = max(1, int(size * (1 - part)))
        count = math.ceil((length - size) / step) + 1
        sizes.append(size)
        starts.append([min(index * step, length - size) for index in range(count)])
    return (sizes[0], sizes[1], sizes[2]), (starts[0], starts[1], starts[2])
