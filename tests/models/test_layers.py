"""Layers that act on the batch of all processes; what they compute is tested with several, in `test_processes`."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from napari_medcl.methods import JCL
from napari_medcl.models import NetworkSpec, build, layers
from napari_medcl.models.layers import over_processes
from napari_medcl.models.together import gathered, share, summed


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("architecture", ["unet", "attention"])
def test_every_layer_that_depends_on_the_batch_is_known(architecture: str, dims: int) -> None:
    spec = NetworkSpec(
        in_channels=1, classes=2, spatial_dims=dims, width=2, depth=2, architecture=architecture, uafs=("dec1",)
    )
    net = build(spec)
    modules = [*net.modules(), *JCL().pretraining(net).modules()]
    found = {type(one) for one in modules if isinstance(one, _BatchNorm | _DropoutNd)}
    assert found
    assert found <= layers._JOINED.keys()


def test_a_process_that_trains_alone_has_the_whole_batch() -> None:
    net, rows = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout()), torch.randn(3, 2)
    over_processes(net)
    assert [type(layer) for layer in net] == [nn.BatchNorm2d, nn.Dropout]
    assert summed(rows) is rows
    assert gathered(rows) is rows
    assert [share(torch.tensor(count)).item() for count in (0, 1, 7)] == [1, 1, 7]
