"""The loss that masks teach by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_medcl.data.volume import IGNORE
from napari_medcl.models.together import share, summed

if TYPE_CHECKING:
    from torch import Tensor

_SMOOTH = 1e-5


def segmentation_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Dice and cross-entropy on the annotated voxels of all processes.

    The Dice loss is MONAI's: 1 − (2·Σpt + ε) / (Σp + Σt + ε) over the whole batch, mean over the foreground classes.

    Args:
        logits: (B, K, *S).
        labels: Class indices (B, *S); IGNORE where nobody annotated.
    """
    known = labels != IGNORE
    truth = torch.where(known, labels, 0)
    entropy = functional.cross_entropy(logits, truth, reduction="none")
    found = logits.softmax(1)[:, 1:] * known.unsqueeze(1)
    there = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:] * known.unsqueeze(1)
    axes = [0, *range(2, logits.ndim)]
    both, ours, theirs = summed(torch.stack([one.sum(axes) for one in (found * there, found, there)]))
    wrong, missed = (ours - both) / 2, (theirs - both) / 2
    overlap = (2 * both + _SMOOTH) / (2 * (both + wrong + missed) + _SMOOTH)
    return {"cross-entropy": (entropy * known).sum() / share(known.sum()), "dice": (1 - overlap).mean()}
