"""Weights of the authors."""

from __future__ import annotations

import hashlib
import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_medcl.checkpoint import Checkpoint, transfer
from napari_medcl.errors import UserError
from napari_medcl.foreign import import_authors, load_model, our_name
from napari_medcl.methods.losses.jcl import smaller
from napari_medcl.models import Network, NetworkSpec, build

if TYPE_CHECKING:
    from pathlib import Path


def their_names(width: int = 2, channels: int = 1) -> dict[str, torch.Tensor]:
    """Weights of a U-Net with four poolings under the authors' names, written out."""
    torch.manual_seed(0)
    made: dict[str, torch.Tensor] = {}

    def add(name: str, module: nn.Module) -> None:
        made.update({f"{name}.{leaf}": value for leaf, value in module.state_dict().items()})

    def stage(name: str, inputs: int, outputs: int) -> None:
        for conv, taken in ((1, inputs), (2, outputs)):
            add(f"{name}_{conv}", nn.Sequential(nn.Conv2d(taken, outputs, 3), nn.BatchNorm2d(outputs)))
            made[f"{name}_{conv}.1.running_mean"].normal_()

    inputs = channels
    for level in range(1, 5):
        stage(f"share_encoder.contr_{level}", inputs, inputs := width * 2 ** (level - 1))
    deepest = 2 * inputs
    add("share_encoder.center", nn.Sequential(nn.Conv2d(inputs, deepest, 3), nn.ReLU(), nn.Conv2d(deepest, deepest, 3)))
    for level in range(4, 0, -1):
        outputs = width * 2 ** (level - 1)
        add(f"online_decoder.upscale{level + 1}", nn.ConvTranspose2d(2 * outputs, outputs, 2))
        stage(f"online_decoder.expand_{level}", 2 * outputs, outputs)
    add("target_instance_projector", nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(deepest, 8)))
    return made


def saved(path: Path, what: Any) -> Path:
    torch.save(what, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path / "theirs.pth", their_names())


def test_maps_agree_with_those_of_the_authors(shared: Path) -> None:
    found = import_authors(shared / "reference" / "jcl_authors_checkpoint.pth")
    assert (found.network.width, found.network.depth, found.network.in_channels) == (4, 4, 1)
    assert found.parts == found.network.map_names
    net = found.build()
    numbers = np.load(shared / "reference" / "jcl_authors_unet.npz")
    stages = {name: name.replace("skip", "enc").replace("up", "dec") for name in set(numbers) - {"image"}}
    agree(net, numbers["image"], numbers, stages)
    numbers = np.load(shared / "reference" / "jcl_network.npz")
    agree(net, numbers["view_fixed_1"], numbers, {"aux_feature": "bottleneck"})
    agree(net, smaller(torch.from_numpy(numbers["view_fixed_2"]), 2).numpy(), numbers, {"dom_feature": "bottleneck"})


def agree(net: Network, image: Any, numbers: Any, stages: dict[str, str]) -> None:
    with torch.no_grad():
        maps = net.encode(torch.from_numpy(image))
        maps |= net.decode(maps)
    for theirs, ours in stages.items():
        scale = np.abs(numbers[theirs]).max()
        np.testing.assert_allclose(maps[ours] / scale, numbers[theirs] / scale, atol=1e-5, err_msg=theirs)


def test_shapes_tell_the_network_and_the_file_what_it_came_from(tmp_path: Path) -> None:
    path = saved(tmp_path / "theirs.pth", their_names(width=3, channels=2))
    found = import_authors(path)
    assert found.network == NetworkSpec(in_channels=2, classes=2, spatial_dims=2, width=3, depth=4)
    assert (found.kind, found.classes, found.method) == ("pretrain", {}, {"name": "jcl"})
    assert found.plan.spacing == (None, None, None)
    assert [one.scheme for one in found.plan.intensities] == ["scan", "scan"]
    assert found.provenance["imported"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    again = Checkpoint.load(found.save(tmp_path / "ours.safetensors"))
    assert again.weights.keys() == build(found.network).state_dict().keys()
    assert torch.equal(again.weights["dec4.convs.3.weight"], their_names(3, 2)["online_decoder.expand_4_2.0.weight"])


@pytest.mark.parametrize("wrapper", [None, "net", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_and_prefixed_weights_are_the_same(
    wrapper: str | None, prefix: str, tmp_path: Path, path: Path
) -> None:
    weights = {prefix + name: value for name, value in their_names().items()}
    wrapped = weights if wrapper is None else {"epoch": 99, wrapper: weights}
    found, plain = import_authors(saved(tmp_path / "other.pth", wrapped)), import_authors(path)
    assert all(torch.equal(found.weights[name], value) for name, value in plain.weights.items())
    assert found.parts == plain.parts


def test_encoder_alone_under_the_names_of_the_other_methods(tmp_path: Path) -> None:
    theirs = {
        name.replace("share_encoder", "encoder"): value
        for name, value in their_names().items()
        if name.startswith("share_encoder")
    }
    found = import_authors(saved(tmp_path / "encoder.pth", {**theirs, "head.2.weight": torch.zeros(3, 3)}))
    assert found.parts == found.network.encoder_names
    assert found.method is None
    assert import_authors(tmp_path / "encoder.pth").weights["dec1.up.weight"].equal(found.weights["dec1.up.weight"])


def test_segmentation_head_tells_the_classes(tmp_path: Path) -> None:
    theirs = {**their_names(), "online_decoder.head.0.weight": torch.randn(5, 2, 1, 1)}
    assert import_authors(saved(tmp_path / "head.pth", theirs)).network.classes == 5


@pytest.mark.parametrize("how", ["missing", "unused"])
def test_blocks_that_were_not_trained_are_not_handed_on(how: str, tmp_path: Path) -> None:
    theirs = their_names()
    for name in list(theirs):
        if "expand_1" in name or "expand_2_" in name:
            if how == "missing":
                del theirs[name]
            elif name.endswith("running_mean"):
                theirs[name].zero_()
    found = import_authors(saved(tmp_path / "part.pth", theirs))
    assert found.parts == (*found.network.encoder_names, "dec4", "dec3")
    net = build(found.network.model_copy(update={"classes": 3}))
    before = net.get_parameter("dec1.up.weight").clone()
    assert transfer(found, net) == list(found.parts)
    assert torch.equal(net.get_parameter("dec4.up.weight"), theirs["online_decoder.upscale5.weight"])
    assert torch.equal(net.get_parameter("dec1.up.weight"), before)


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_file_that_would_run_code_is_not_opened(writer: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "bad.pth"
    evil = {"net": their_names(), "extra": Runs(f"touch {trace}")}
    if writer == "torch":
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(UserError, match=r"bad\.pth was not opened: .* could run code"):
        import_authors(path)
    assert not trace.exists()


def without(part: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in their_names().items() if part not in name}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (lambda: {"layer1.0.conv1.weight": torch.zeros(2, 2)}, r"another network, such as layer1\.0\.conv1\.weight"),
        (lambda: {**their_names(), "share_encoder.contr_7": torch.zeros(1)}, "such as share_encoder.contr_7"),
        (lambda: {"epoch": 3, "loss": 0.5}, "holds epoch, loss, no weights by name"),
        (lambda: [1, 2], "holds a list, no weights"),
        (lambda: {}, "holds nothing, no weights by name"),
        (lambda: without("center"), "no weights for bottleneck of the encoder"),
        (lambda: without("contr_1_"), "no first convolution"),
        (lambda: {**their_names(), "share_encoder.center.0.weight": torch.zeros(9, 9, 3, 3)}, "bottleneck.0.weight"),
        (lambda: {name: value.unsqueeze(-1) for name, value in their_names().items()}, "no first convolution of a 2D"),
    ],
)
def test_other_files_are_explained(what: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        import_authors(saved(tmp_path / "other.pth", what()))


def test_broken_and_missing_files_are_explained(path: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:3000])
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "words.pth").write_text("this is no scan")
    for name in ("cut", "text", "words", "empty"):
        with pytest.raises(UserError, match="broken"):
            import_authors(tmp_path / f"{name}.pth")
    with pytest.raises(UserError, match="There is no file"):
        import_authors(tmp_path / "nothing.pth")


def test_the_suffix_says_who_wrote_a_model(path: Path, tmp_path: Path) -> None:
    found = load_model(path)
    ours = found.save(tmp_path / "ours.safetensors")
    assert load_model(ours).parts == found.parts


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("module.share_encoder.contr_2_1.0.weight", "enc2.0.weight"),
        ("encoder.contr_4_2.1.running_var", "enc4.4.running_var"),
        ("share_encoder.center.2.bias", "bottleneck.2.bias"),
        ("module.online_decoder.upscale5.weight", "dec4.up.weight"),
        ("decoder.expand_1_2.0.bias", "dec1.convs.3.bias"),
        ("decoder.head.0.weight", "head.weight"),
        ("module.target_pixel_projector.0.weight", None),
        ("head.2.weight", None),
    ],
)
def test_names(theirs: str, ours: str | None) -> None:
    assert our_name(theirs) == ours
