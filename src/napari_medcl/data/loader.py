"""Scans on the network's grid, and the loader that makes batches of them."""

from __future__ import annotations

import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medcl.data import views
from napari_medcl.data.batch import Batch
from napari_medcl.data.volume import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medcl.data.needs import Needs
    from napari_medcl.data.plan import Plan

_MARGIN = 1.25
"""Crops are cut so much larger than views, so that a turned view still finds image at its corners."""
_FOREGROUND = 0.5
"""Fraction of the crops with labels that are centred on a labelled voxel."""
_REMEMBERED = 5000


@dataclass(frozen=True, eq=False)
class Item:
    """A scan on the network's grid, slices first.

    Attributes:
        name: The case.
        image: (C, Z, Y, X), normalised.
        labels: Class indices (Z, Y, X) with IGNORE, or None.
        superpixels: Ids (Z, Y, X), or None.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8] | None = None
    superpixels: NDArray[np.integer] | None = None
    places: dict[int, NDArray[np.intp]] = field(init=False)
    annotated: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        places: dict[int, NDArray[np.intp]] = {}
        annotated = np.arange(self.image.shape[1])
        if self.labels is not None:
            annotated = np.flatnonzero((self.labels != IGNORE).any((1, 2)))
            for value in np.setdiff1d(np.unique(self.labels), [0, IGNORE]):
                found = np.argwhere(self.labels == value)
                places[int(value)] = found[:: max(1, len(found) // _REMEMBERED)]
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "annotated", annotated)


def untimed(name: str) -> AbstractContextManager[None]:
    """Times nothing."""
    del name
    return nullcontext()


@dataclass(frozen=True)
class _Cut:
    """Crops of a batch, as they come from the scans."""

    image: NDArray[np.float32]
    labels: NDArray[np.integer] | None
    superpixels: NDArray[np.integer] | None
    position: list[float]
    cases: tuple[str, ...]


class Loader:
    """Draws batches without end: random crops from the items, then views on the device.

    The crops of the next batch are cut in a thread meanwhile, so that nobody waits for the disk.

    Args:
        items: Scans on the network's grid.
        plan: Gives the crop's shape and its dimensions.
        needs: What the batch must hold.
        size: Crops in a batch, B; in its part where it is one.
        device: Where the views are made.
        seed: The same seed gives the same batches.
        geometry: How far free views (and, with labels, the fixed one) may move.
        appearance: How far the intensities may change.
        part: Which part of the batches to make; where the parts are made from one seed, they fit together.
        timed: Is entered round waiting ("waiting") and making views ("views").
    """

    def __init__(
        self,
        items: Sequence[Item],
        plan: Plan,
        needs: Needs,
        size: int,
        device: torch.device,
        seed: int,
        *,
        geometry: views.Geometry = views.FREE,
        appearance: views.Appearance = views.CHANGED,
        part: views.Part = views.WHOLE,
        timed: Callable[[str], AbstractContextManager[None]] = untimed,
    ) -> None:
        self.items = [item for item in items if len(item.annotated)]
        self.plan, self.needs, self.size, self.device = plan, needs, size, device
        self.geometry, self.appearance, self.part = geometry, appearance, part
        self._places = np.random.default_rng(seed)
        self._views = torch.Generator(device).manual_seed(seed)
        self._queue: list[int] = []
        self._timed, self._cutter = timed, ThreadPoolExecutor(1, "crops")
        self._ahead: tuple[dict[str, Any], Future[_Cut]] | None = None

    @property
    def epoch(self) -> int:
        """Batches in which every item is drawn once."""
        return -(-len(self.items) // (self.size * self.part.parts))

    def draw(self) -> Batch:
        """The next batch."""
        with self._timed("waiting"):
            _, coming = self._ahead or self._begun()
            cut = coming.result()
        self._ahead = self._begun()
        with self._timed("views"):
            return self._viewed(cut)

    def state(self) -> dict[str, Any]:
        """What decides the batches to come."""
        places = self._places_state() if self._ahead is None else self._ahead[0]
        return {**places, "views": self._views.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where another loader of the same items and settings was."""
        if self._ahead is not None:
            self._ahead[1].exception()  # is over before the numbers are changed that it draws
            self._ahead = None
        self._places.bit_generator.state = state["places"]
        try:
            self._views.set_state(state["views"])
        except RuntimeError:  # the source of random numbers of another kind of device
            self._views.manual_seed(zlib.crc32(state["views"].numpy().tobytes()))
        self._queue = list(state["queue"])

    def _places_state(self) -> dict[str, Any]:
        return {"places": self._places.bit_generator.state, "queue": list(self._queue)}

    def _begun(self) -> tuple[dict[str, Any], Future[_Cut]]:
        """The next crops, which are being cut, and what decided them."""
        return self._places_state(), self._cutter.submit(self._cut)

    def _cut(self) -> _Cut:
        drawn = [self.items[self._next()] for _ in range(self.size * self.part.parts)]
        place = self._places.random(2) if self._flat and self.needs.position else None
        chosen, corners = self.part.of(drawn), self.part.of([self._corner(item, place) for item in drawn])
        return _Cut(
            image=self._crops([item.image for item in chosen], corners),
            labels=self._crops([item.labels for item in chosen], corners, IGNORE) if self.needs.labels else None,
            superpixels=self._crops([item.superpixels for item in chosen], corners) if self.needs.superpixels else None,
            position=[self._position(i, c) for i, c in zip(chosen, corners, strict=True)],
            cases=tuple(item.name for item in chosen),
        )

    def _viewed(self, cut: _Cut) -> Batch:
        image, labels, regions = (
            None if some is None else torch.from_numpy(some).to(self.device, non_blocking=True)
            for some in (cut.image, cut.labels, cut.superpixels)
        )
        assert image is not None
        fixed, labels, regions = self._fixed(image, labels, regions)
        return Batch(
            fixed=fixed,
            free=tuple(self._changed(self._moved(image)) for _ in range(self.needs.free)),
            superpixels=regions,
            position=torch.tensor(cut.position, device=self.device) if self.needs.position else None,
            labels=labels,
            cases=cut.cases,
        )

    def _next(self) -> int:
        """Every item once in random order, then again."""
        if not self._queue:
            self._queue = self._places.permutation(len(self.items)).tolist()
        return self._queue.pop()

    @property
    def _flat(self) -> bool:
        return self.plan.spatial_dims == 2

    @property
    def _crop(self) -> tuple[int, ...]:
        size = tuple(int(np.ceil(n * _MARGIN / 2)) * 2 for n in self.plan.patch)
        return (1, *size) if self._flat else size

    def _corner(self, item: Item, place: NDArray[np.float64] | None = None) -> tuple[int, ...]:
        """Where a crop begins: round a labelled voxel, or anywhere on what is annotated.

        With a place, from 0 to 1 along both axes of a slice, the crop is there: slices at near positions are alike
        only where one looks at the same part of them.
        """
        if item.places and self._places.random() < _FOREGROUND:
            places = item.places[int(self._places.choice(list(item.places)))]
            middle = [int(value) for value in places[self._places.integers(len(places))]]
        else:
            inside = self._places.random(2) if place is None else place
            middle = [
                int(self._places.choice(item.annotated)),
                *(int(part * n) for part, n in zip(inside, item.image.shape[2:], strict=True)),
            ]
        return tuple(
            self._begin(m, n, size) for m, n, size in zip(middle, item.image.shape[1:], self._crop, strict=True)
        )

    def _begin(self, middle: int, length: int, size: int) -> int:
        """The crop stays inside where the scan is large enough, else it lies about the scan's middle."""
        if size >= length:
            return (length - size) // 2
        reach = round(size * (1 - 1 / _MARGIN) / 2)
        return int(np.clip(middle - size // 2, -reach, length - size + reach))

    def _crops(
        self, arrays: Sequence[Any], corners: Sequence[tuple[int, ...]], outside: int | None = None
    ) -> NDArray[Any]:
        cut = np.stack([_cut(a, corner, self._crop, outside) for a, corner in zip(arrays, corners, strict=True)])
        if cut.dtype.kind == "u":  # torch knows little to do with large unsigned numbers
            cut = cut.astype(np.int32)
        return cut.squeeze(-3) if self._flat else cut

    def _position(self, item: Item, corner: tuple[int, ...]) -> float:
        slices: int = item.image.shape[1]
        middle = int(np.clip(corner[0] + self._crop[0] // 2, 0, slices - 1))
        return (middle + 1) / slices

    def _grid(self, image: Tensor) -> Tensor:
        return views.sampling_grid(
            len(image), self.plan.patch, image.shape[2:], self.plan.voxel(), self.geometry, self._views, self.part
        )

    def _moved(self, image: Tensor) -> Tensor:
        return views.move_image(image, self._grid(image))

    def _changed(self, image: Tensor) -> Tensor:
        return views.change_appearance(image, self.appearance, self._views, self.part)

    def _fixed(
        self, image: Tensor, labels: Tensor | None, regions: Tensor | None
    ) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor | None]:
        """Views of one geometry with the maps that lie on them; only labelled ones are moved."""
        if labels is not None:
            grid = self._grid(image)
            image, labels = views.move_image(image, grid), views.move_labels(labels.long(), grid, IGNORE)
        image = views.centre(image, self.plan.patch)
        regions = None if regions is None else views.centre(regions, self.plan.patch).long()
        return tuple(self._changed(image) for _ in range(self.needs.fixed)), labels, regions


def _cut(array: NDArray[Any], corner: Sequence[int], size: Sequence[int], outside: int | None) -> NDArray[Any]:
    """A crop of the last three axes; past the edge the outermost voxels again, or `outside`."""
    spans = list(zip(corner, size, array.shape[-3:], strict=True))
    inside: tuple[Any, ...] = (..., *(slice(max(begin, 0), begin + count) for begin, count, _ in spans))
    piece = array[inside]
    past = [(max(-begin, 0), max(begin + count - length, 0)) for begin, count, length in spans]
    widths = [(0, 0)] * (array.ndim - 3) + past
    if outside is None:
        return np.pad(piece, widths, mode="edge")
    return np.pad(piece, widths, mode="constant", constant_values=outside)
