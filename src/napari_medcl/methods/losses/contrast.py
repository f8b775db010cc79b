"""The contrastive loss that methods share, and the ways to choose its positives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_medcl.models.together import gathered, processes

if TYPE_CHECKING:
    from napari_medcl.data.batch import Batch
    from napari_medcl.methods.images import ComparesImages

_ROUNDING = 1e-6
"""Positions are rounded: ten slices are 0.1 apart, some a little less and some a little more."""
_SHORTEST = 1e-6
"""A vector shorter than this has no direction: its similarity to any other is 0, and so is its gradient."""


def contrastive(views: Tensor, positives: Tensor, temperature: float, base_temperature: float = 0.07) -> Tensor:
    """Pulls every row to its positives and away from all other rows.

    The two views of B images are 2B rows, view-major: all first views, then all second. With
    logits = cosine similarity / τ and P(i) the positives of row i,

        loss_i = −(τ / τ₀) · mean_{j∈P(i)} [ logits_ij − log Σ_{k≠i} exp(logits_ik) ],   loss = mean_i loss_i

    A row without positives adds 0. It is computed in single precision at least, also under autocast.

    Args:
        views: (..., B, 2, D); the leading axes are losses of their own.
        positives: (..., 2B, 2B) bool, true at ij where j is a positive of i; the diagonal is not read.
        temperature: τ.
        base_temperature: τ₀.

    Returns:
        (...), one loss for each of the leading indices.

    Raises:
        ValueError: The shapes do not fit or the temperature is not positive.

    Reference: Khosla et al., Supervised Contrastive Learning (NeurIPS 2020), equation 2.
    """
    _check(views, positives, temperature)
    with torch.autocast(views.device.type, enabled=False):
        logits = similarity(views.transpose(-3, -2).flatten(-3, -2)) / temperature
        others = ~torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        normaliser = logits.masked_fill(~others, -torch.inf).logsumexp(-1)
        chosen = (positives & others).to(logits.dtype)
        count = chosen.sum(-1)
        attraction = (logits * chosen).sum(-1) / count.clamp_min(1)
        losses: Tensor = ((normaliser - attraction) * (count > 0)).mean(-1)
    return losses * (temperature / base_temperature)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) scaled to length 1, in single precision at least; a null vector stays null."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length < _SHORTEST, torch.inf)


def similarity(maps: Tensor) -> Tensor:
    """Cosine similarity (..., N, N) of the vectors (..., N, D); that of a null vector to any other is 0.

    The products are scaled, not the vectors: with few long vectors that takes half the time.
    """
    with torch.autocast(maps.device.type, enabled=False):
        vectors = maps.to(torch.promote_types(maps.dtype, torch.float32))
        products = vectors @ vectors.transpose(-2, -1)
        squares = products.diagonal(dim1=-2, dim2=-1)
        scale = squares.masked_fill(squares < _SHORTEST**2, torch.inf).rsqrt()
        return products * scale[..., :, None] * scale[..., None, :]


def other_view(images: int, device: torch.device | None = None) -> Tensor:
    """Positives (2B, 2B) by image: the other view only (SimCLR)."""
    return by_label(torch.arange(images, device=device))


def by_position(positions: Tensor, threshold: float) -> Tensor:
    """Positives (..., 2B, 2B) by position (..., B): |p_i − p_j| < threshold (PCL).

    A position is slice index / slices of its volume, in (0, 1].
    """
    rows = torch.cat([positions, positions], dim=-1)
    return (rows[..., :, None] - rows[..., None, :]).abs() < threshold - _ROUNDING


def by_label(labels: Tensor) -> Tensor:
    """Positives (..., 2B, 2B) by label (..., B): equal labels."""
    rows = torch.cat([labels, labels], dim=-1)
    return rows[..., :, None] == rows[..., None, :]


def alike(method: ComparesImages, batch: Batch) -> Tensor:
    """Positives (2B, 2B) among the two views of the B images of all processes, as a method chooses them.

    Raises:
        ValueError: The batch lacks the positions that were asked for.
    """
    if not method.by_position:
        image = (*batch.fixed, *batch.free)[0]
        return other_view(processes() * len(image), image.device)
    if batch.position is None:
        raise ValueError(f"The batch holds no positions, which {method.name} asked for.")
    return by_position(gathered(batch.position), method.threshold)


def _check(views: Tensor, positives: Tensor, temperature: float) -> None:
    if views.ndim < 3 or views.shape[-2] != 2:
        raise ValueError(f"views must be (..., images, 2, length), not {tuple(views.shape)}.")
    rows = 2 * views.shape[-3]
    if positives.dtype != torch.bool or positives.shape[-2:] != (rows, rows):
        raise ValueError(
            f"positives must be bool (..., {rows}, {rows}), not {positives.dtype} {tuple(positives.shape)}."
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}.")
