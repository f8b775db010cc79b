"""What made a run: versions, device, data."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAMED = ("medcl", "torch", "monai", "numpy", "scikit-image", "nibabel")


def environment(config: BaseModel, device: torch.device, fingerprint: str) -> dict[str, Any]:
    """What is needed to say where a result came from, and to get it again."""
    return {
        "config": config.model_dump(mode="json"),
        "data": fingerprint,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device} ({platform.processor() or platform.machine()})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in _NAMED},
    }
