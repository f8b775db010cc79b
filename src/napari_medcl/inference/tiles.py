"""A network applied to images of any size: windows, blended where they overlap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_WHOLE = {2: 4.0, 3: 1.5}
"""An axis up to so many patches long is one window, in slices and in volumes: no seam, and nothing is computed twice.

In volumes a window of 1.5 is no dearer than the two it would take; longer ones would take too much memory."""


def blended(
    images: Tensor,
    compute: Callable[[Tensor], Tensor],
    *,
    patch: Sequence[int],
    overlap: Sequence[float],
    batch: int,
    device: torch.device,
    watch: Callable[[float], None] | None,
) -> Tensor:
    """The mean, by a bell over every window, of what is computed for the windows that cover a pixel.

    Args:
        images: (N, C, *S).
        compute: From windows (b, C, *window) on the device to (b, D, *window) float32, or to coarser maps: then images,
            windows and their steps are to be whole numbers of coarse pixels.
        patch: Size of a window, but for axes that are little longer.
        overlap: Part of a window that it shares with the next one, for each axis.
        batch: Windows at a time.
        device: Where to compute.
        watch: Is called before every batch of windows with the part that is done; may raise to stop.

    Returns:
        (N, D, *S) on the CPU; coarser by as much as what is computed is coarser than its window.

    Raises:
        UserError: A batch of windows does not fit into the device's memory.
    """
    longest = _WHOLE[len(patch)]
    window = [size if size <= longest * side else side for size, side in zip(images.shape[2:], patch, strict=True)]
    calls = math.ceil(len(images) * _windows(images.shape[2:], window, overlap) / batch)
    done = 0

    def watched(tiles: Tensor) -> Tensor:
        nonlocal done
        if watch is not None:
            watch(min(1, done / calls))
        done += 1
        return compute(tiles)

    from monai.inferers import sliding_window_inference  # takes seconds, and a run has something to say before

    try:
        with torch.inference_mode():
            averaged: Tensor = sliding_window_inference(
                images,
                window,
                batch,
                watched,
                overlap=overlap,
                roi_weight_map=_bell(window).to(device),
                sw_device=device,
                device="cpu",
            )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{batch} windows of {' x '.join(map(str, window))} voxels do not fit into the memory "
            f"of {device}. Use a smaller batch, or device=cpu."
        ) from error
    return averaged


def _bell(window: Sequence[int]) -> Tensor:
    """Weights of a window's voxels: a Gaussian with an eighth of the window as standard deviation.

    MONAI's own map is cut off at 0.001 from below, which at the border of a scan gives a window's
    corners, where it sees least, up to a fifth of the say.
    """
    weights = torch.ones(())
    for size in window:
        place = (torch.arange(size) - (size - 1) / 2) / (size / 8)
        weights = weights[..., None] * torch.exp(-0.5 * place**2)
    return weights


def _windows(shape: Sequence[int], window: Sequence[int], overlap: Sequence[float]) -> int:
    """How many windows MONAI lays over an image."""
    steps = (max(1, int(side * (1 - part))) for side, part in zip(window, overlap, strict=True))
    return math.prod(math.ceil((size - side) / step) + 1 for size, side, step in zip(shape, window, steps, strict=True))
