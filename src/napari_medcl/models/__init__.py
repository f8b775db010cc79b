"""What learns."""

from __future__ import annotations

from napari_medcl.models.network import Network, NetworkSpec
from napari_medcl.models.unet import UNet

__all__ = ["Network", "NetworkSpec", "build"]


def build(spec: NetworkSpec) -> Network:
    """The network that a spec describes, freshly initialised."""
    return UNet(spec)
