"""Patches of an image, and what classes they are made of: the pooled labels that PDCR compares by."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

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


def composition(labels: Tensor, centres: Sequence[Sequence[int]], window: int, classes: int) -> Tensor:
    """What windows on a grid are made of: the fraction r of every class.

    A window reaches from centre − window // 2 over `window` voxels, is clipped at the border, and divided by its
    annotated voxels. The ends of all windows cut the image into cells; the classes of every cell are counted once, and
    the windows are sums of cells.

    Args:
        labels: Class indices (B, *S). A value that is no class, such as IGNORE, was not annotated.
        centres: The voxels along every axis; windows lie where they cross, N in row-major order.
        window: Side of a window in voxels.
        classes: Number of classes K, background included.

    Returns:
        (B, N, K) in single precision, without gradient. It sums to 1 over the classes; all 0 where nothing is
        annotated.

    Raises:
        ValueError: There are not as many axes in `centres` as in `labels`.
    """
    if len(centres) != labels.ndim - 1:
        raise ValueError(f"centres has {len(centres)} axes, the labels {tuple(labels.shape)} have {labels.ndim - 1}.")
    index, inside = torch.zeros((), dtype=torch.long, device=labels.device), []
    for size, places in zip(labels.shape[1:], centres, strict=True):
        piece, member = _pieces(size, places, window)
        index = index[..., None] * member.shape[1] + (classes + 1) * piece.to(labels.device)
        inside.append(member.to(labels.device))
    index = labels.clamp(max=classes).add_(index).flatten(1)
    cells = [member.shape[1] for member in inside]
    counts = torch.zeros(len(labels), math.prod(cells) * (classes + 1), device=labels.device)
    counts = counts.scatter_add_(1, index, counts.new_ones(()).expand(index.shape))
    counts = counts.view(len(labels), *cells, classes + 1)[..., :classes]
    with torch.autocast(labels.device.type, enabled=False):
        for member in inside:  # sums the axis that comes first and puts it last
            counts = torch.tensordot(counts, member, dims=([1], [1]))
    counts = counts.movedim(1, -1).flatten(1, -2)
    return counts / counts.sum(-1, keepdim=True).clamp_min(1)


def affinity(first: Tensor, second: Tensor | None = None) -> Tensor:
    """How alike patches are: a_ij = 1 − ½‖r_i − r_j‖₁, from 0 (no class in common) to 1 (the same mixture).

    Args:
        first: Compositions (B, N, K).
        second: Those to compare with (B, M, K); without them the first ones.

    Returns:
        (B, N, M).
    """
    return (1 - torch.cdist(first, first if second is None else second, p=1) / 2).clamp_min(0)


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


def _pieces(size: int, places: Sequence[int], window: int) -> tuple[Tensor, Tensor]:
    """Cuts an axis where windows begin and end.

    Returns:
        The piece (size,) that every voxel is in, and (n, pieces) 1 where a window holds a piece, else 0.
    """
    begins = torch.tensor(places) - window // 2
    ends = begins + window
    cuts = torch.unique(torch.cat([torch.zeros(1, dtype=torch.long), begins, ends]).clamp(0, size))
    cuts = cuts[cuts < size]
    piece = torch.bucketize(torch.arange(size), cuts, right=True) - 1
    member = (begins[:, None] <= cuts) & (cuts < ends[:, None])
    return piece, member.float()
