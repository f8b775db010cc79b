"""What any network gets from the base class, shown on the one that docs/networks.md brings in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from napari_medcl.methods import JCL, PDCR, Method, SuperCL
from napari_medcl.models import Network, NetworkSpec
from napari_medcl.models.uafs import uncertainties
from tests.methods.batches import batch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
SPEC = NetworkSpec(in_channels=1, classes=2, spatial_dims=2, width=4, depth=2, uafs=("bottleneck", "dec1"))


@pytest.fixture
def net() -> Network:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names = {"Network": Network, "NetworkSpec": NetworkSpec, "Tensor": torch.Tensor, "nn": nn, "torch": torch}
    exec(code, names)
    torch.manual_seed(0)
    made: Network = names["Plain"](SPEC)
    return made


def test_maps_and_blocks(net: Network) -> None:
    image = torch.randn(2, 1, 13, 16)
    maps = net.encode(image)
    maps |= net.decode(maps)
    assert {name: found.shape[1:] for name, found in maps.items()} == {
        name: (SPEC.channels(name), 16 // SPEC.stride(name), 16 // SPEC.stride(name)) for name in SPEC.map_names
    }
    assert net(image).shape == (2, 2, 13, 16)
    assert set(uncertainties(net, image)) == {"bottleneck", "dec1"}


@pytest.mark.parametrize("method", [SuperCL(), JCL(), PDCR()], ids=lambda method: method.name)
def test_methods_learn_on_it(net: Network, method: Method) -> None:
    terms = method.pretraining(net)(batch(method.needs(2), (24, 16)))
    sum(terms.values()).backward()
    for name in method.hands_on(SPEC):
        assert all(value.grad is not None for value in net.get_submodule(name).parameters()), name
