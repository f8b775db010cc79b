"""Layers that act on the batch of all processes; what they compute is tested with several, in `test_processes`."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from napari_medcl.methods import JCL
from napari_medcl.models import NetworkSpec, build, layers
from napari_medcl.models.layers import fuse, over_processes
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


@pytest.mark.parametrize("architecture", ["unet", "attention"])
def test_convolutions_of_two_slices_read_only_what_was_written(architecture: str) -> None:
    """Memory that is given out again holds NaN here: whatever reads it shows."""
    spec = NetworkSpec(in_channels=1, classes=2, spatial_dims=3, width=16, depth=2, architecture=architecture)
    net = build(spec)
    convolutions = [one for one in net.modules() if isinstance(one, nn.Conv3d) and one.kernel_size == (3, 3, 3)]
    assert convolutions
    for conv in convolutions:
        x = torch.randn(2, conv.in_channels, 2, 4, 4)
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                y = conv(x)
            spoil()
            conv.zero_grad()
            y.float().square().mean().backward()
            assert conv.weight.grad.isfinite().all()


def spoil() -> None:
    """Fills memory of all sizes with NaN, and gives it back."""
    [torch.full((4**power,), torch.nan) for power in range(2, 11) for _ in range(40)]


def test_convolutions_of_other_sizes_stay_in_the_number_format_that_was_asked_for() -> None:
    conv, reference = layers.CONV[3](2, 3, 3, padding=1), nn.Conv3d(2, 3, 3, padding=1)
    reference.load_state_dict(conv.state_dict())
    for depth in (1, 2, 3):
        x = torch.randn(1, 2, depth, 4, 4)
        assert torch.equal(conv(x), reference(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert conv(x).dtype == (torch.float32 if depth == 2 else torch.bfloat16)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("uafs", [(), ("bottleneck", "dec1")])
def test_fused_norms_change_nothing_and_are_gone(dims: int, uafs: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(in_channels=2, classes=3, spatial_dims=dims, width=4, depth=2, uafs=uafs)
    net, image = build(spec), torch.randn(2, 2, *[16] * dims)
    net.train()
    for _ in range(3):
        net(image)
    expected = net.eval()(image)
    fuse(net)
    assert not any(isinstance(layer, _BatchNorm) for name, layer in net.named_modules() if "blocks" not in name)
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-4)


def test_norms_that_learn_stay() -> None:
    net = build(NetworkSpec(in_channels=1, classes=2, spatial_dims=2, width=4, depth=1)).train()
    before = [type(layer) for layer in net.modules()]
    fuse(net)
    assert [type(layer) for layer in net.modules()] == before
