"""What classes patches of an image are made of: the pooled labels that PDCR compares by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


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
