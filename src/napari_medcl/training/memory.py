"""Telling a lack of memory from other errors."""

from __future__ import annotations

import torch


def ran_out(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left. On a CPU torch says so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, RuntimeError) and any(one in str(error) for one in words)
