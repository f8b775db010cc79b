"""What made a run: versions, device, data."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

_NAMED = ("medcl", "torch", "monai", "numpy", "scikit-image", "nibabel")


def environment(config: BaseModel, device: torch.device, digests: Mapping[str, str], processes: int) -> dict[str, Any]:
    """What is needed to say where a result came from, and to get it again.

    Args:
        config: The run's settings.
        device: Where it computes.
        digests: A hash of every case that it uses.
        processes: How many train together.
    """
    data = "".join(f"{case}\t{digest}\n" for case, digest in sorted(digests.items()))
    return {
        "config": config.model_dump(mode="json"),
        "data": hashlib.sha256(data.encode()).hexdigest(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device} ({platform.processor() or platform.machine()})",
        "processes": processes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in _NAMED},
    }
