"""Which network a run trains: from the settings, the data, and the model it starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medcl.errors import UserError
from napari_medcl.models import NetworkSpec

if TYPE_CHECKING:
    import torch

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.data.plan import Plan
    from napari_medcl.training.config import FinetuneConfig, PretrainConfig


def plain_network(
    config: PretrainConfig | FinetuneConfig,
    plan: Plan,
    depth: int,
    device: torch.device,
    classes: int = 2,
    start: Checkpoint | None = None,
) -> NetworkSpec:
    """The network without UAFS blocks; that of the start where there is one.

    Raises:
        UserError: A setting asks for another network than the start's.
    """
    if start is None:
        return NetworkSpec(
            in_channels=plan.channels,
            classes=classes,
            spatial_dims=plan.spatial_dims,
            width=config.width or _width(plan, device),
            depth=depth,
            architecture="unet" if config.network == "auto" else config.network,
        )
    spec = start.network.model_copy(update={"classes": classes, "uafs": ()})
    for setting, have in {"network": spec.architecture, "width": spec.width, "depth": spec.depth}.items():
        asked = getattr(config, setting)
        if asked not in (None, "auto", have):
            raise UserError(
                f"The model to start from was trained with {setting} {have} and cannot go on with {asked}. "
                f"Leave {setting} out, or choose another start."
            )
    return spec


def with_blocks(spec: NetworkSpec, config: FinetuneConfig) -> NetworkSpec:
    """The network with the UAFS blocks that are asked for.

    Raises:
        UserError: The network has no map of a name.
    """
    if not config.uafs:
        return spec
    wanted = config.uafs_maps or ("bottleneck", *spec.decoder_names)
    for name in wanted:
        spec.channels(name)
    return spec.model_copy(update={"uafs": tuple(name for name in spec.map_names if name in wanted)})


def _width(plan: Plan, device: torch.device) -> int:
    """The published 32 channels, 16 where a CPU has to learn from volumes."""
    return 16 if plan.spatial_dims == 3 and device.type == "cpu" else 32
