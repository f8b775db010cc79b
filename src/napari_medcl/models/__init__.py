"""What learns."""

from __future__ import annotations

from napari_medcl.models.network import Network, NetworkSpec
from napari_medcl.models.unet import UNet

__all__ = ["Network", "NetworkSpec", "build"]


def build(spec: NetworkSpec) -> Network:
    """The network that a spec describes, freshly initialised."""
    if spec.architecture == "attention":
        from napari_medcl.models.attention import AttentionUNet  # loads MONAI, which takes seconds

        return AttentionUNet(spec)
    return UNet(spec)
