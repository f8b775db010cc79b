"""Where the patches lie that pixels of a map stand for, and how large they are."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medcl.models import NetworkSpec

_EVEN = 2
"""Distances along two axes may differ by this factor, so that 128 pixels fit into a square: 8 by 16."""


def regular_grid(sizes: Sequence[int], most: int) -> tuple[tuple[int, ...], ...]:
    """Places of `most` pixels of a map, about equally far apart along every axis.

    Args:
        sizes: Size of the map along every axis.
        most: How many pixels are wanted. Fewer come where no grid has so many with distances that differ by a factor
            of 2 at most, all where there are not more.

    Returns:
        The places along every axis; the pixels are where they cross, in row-major order.
    """
    counts = _counts(tuple(sizes), most)
    return tuple(tuple((2 * i + 1) * size // (2 * n) for i in range(n)) for size, n in zip(sizes, counts, strict=True))


def centres(grid: Sequence[Sequence[int]], stride: int) -> tuple[tuple[int, ...], ...]:
    """Voxels of the image along every axis that pixels of a map stand over, `stride` voxels to a pixel."""
    return tuple(tuple(place * stride + stride // 2 for place in axis) for axis in grid)


def receptive_field(spec: NetworkSpec, name: str) -> int:
    """Side, in voxels, of what a pixel of a map of the U-Net sees.

    Two convolutions of 3 at every level and the poolings between make it 9·stride − 4. A map of the decoder sees two
    convolutions more, counted through its skip: by way of the bottleneck it sees nearly all, and all would be alike.

    Raises:
        UserError: The network has no such map.
    """
    stride = spec.stride(name)
    return (13 if name in spec.decoder_names else 9) * stride - 4


@lru_cache
def _counts(sizes: tuple[int, ...], most: int) -> tuple[int, ...]:
    """As many pixels along every axis as the distances allow; where none are near each other, the most even ones."""
    *firsts, last = sizes

    def worth(counts: tuple[int, ...]) -> tuple[bool, float, float]:
        steps = [size / count for size, count in zip(sizes, counts, strict=True)]
        ratio, count = max(steps) / min(steps), math.prod(counts)
        return (True, count, -ratio) if ratio <= _EVEN else (False, -ratio, count)

    starts = product(*(range(1, min(size, most) + 1) for size in firsts))
    fitting = ((*start, min(last, most // math.prod(start))) for start in starts if math.prod(start) <= most)
    return max(fitting, key=worth)
