"""Whether the settings of a run make sense together, as far as that can be known without reading a scan."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING

import torch

from napari_medcl.data.cases import find_cases
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.errors import UserError
from napari_medcl.foreign import load_model
from napari_medcl.models import build
from napari_medcl.training.config import FinetuneConfig, PretrainConfig
from napari_medcl.training.dataset import choose
from napari_medcl.training.network import plain_network, with_blocks
from napari_medcl.training.run import Run, create, find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medcl.checkpoint import Checkpoint
    from napari_medcl.training.events import Stage

_DIMS = {"auto": (2, 3), "2d": (2,), "3d": (3,)}
_DEPTHS = (4, 3, 2, 1)
"""What data may lead to; see `make_plan`."""


def check(config: PretrainConfig | FinetuneConfig) -> None:
    """Refuses settings that no data can make a run of.

    Raises:
        UserError: They contradict each other, or the model to start from, or ask for a package that is missing; says
            how, and what to do.
    """
    if config.tensorboard and find_spec("tensorboard") is None:
        raise UserError('TensorBoard is not installed: pip install "medcl[tensorboard]", or set tensorboard off.')
    start = None
    if isinstance(config, FinetuneConfig) and config.start is not None:
        start = load_model(find_checkpoint(config.start))
    refused = None
    for dims, depth in product(*_possible(config, start)):
        try:
            _try(config, start, dims, depth)
        except UserError as error:
            refused = refused or error
        else:
            return
    assert refused is not None
    raise refused


def check_data(config: PretrainConfig | FinetuneConfig) -> None:
    """Refuses a data folder from which nothing can be learned, by the names in it.

    Raises:
        UserError: As `find_cases`, or as `choose`.
    """
    choose(config, find_cases(config.folder, config.groups))


def begun(stage: Stage, config: PretrainConfig | FinetuneConfig, folder: Path) -> Run:
    """Makes the folder of a new run, once its settings and its data are seen to make sense.

    Raises:
        UserError: As `check`, `check_data` or `create`.
    """
    with Run(folder).answering():
        check(config)
        check_data(config)
        return create(stage, config.to_json(), folder)


def _possible(config: PretrainConfig | FinetuneConfig, start: Checkpoint | None) -> tuple[Sequence[int], Sequence[int]]:
    """Dimensions and depths that the run may have."""
    dims = _DIMS[config.dims]
    if start is None:
        return dims, _DEPTHS if config.depth is None else (config.depth,)
    have = start.plan.spatial_dims
    if have not in dims:
        raise UserError(
            f"The model to start from was trained in {have}D and cannot go on in {config.dims.upper()}. "
            "Set dims to auto, choose another start, or train from scratch."
        )
    return (have,), (start.network.depth,)


def _try(config: PretrainConfig | FinetuneConfig, start: Checkpoint | None, dims: int, depth: int) -> None:
    """Builds the network and what the method trains of it, without memory for the weights."""
    if config.patch is not None and len(config.patch) != dims:
        raise UserError(f"The patch {config.patch} has {len(config.patch)} numbers; a {dims}D network needs {dims}.")
    plan = Plan(
        channels=1,
        spatial_dims=3 if dims == 3 else 2,
        spacing=(None, None, None),
        patch=(1,) * dims,
        intensities=(Intensity(scheme="scan"),),
    )
    with torch.device("meta"):
        spec = plain_network(config, plan, depth, torch.device("meta"), start=start)
        if isinstance(config, PretrainConfig):
            config.method.hands_on(spec)
            config.method.pretraining(build(spec))
            return
        net = build(with_blocks(spec, config))
        if config.method is not None:
            config.method.finetuning(net)
