from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from napari_medcl.checkpoint import Checkpoint, transfer
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.errors import UserError
from napari_medcl.models import NetworkSpec, build
from napari_medcl.models.unet import UNet

if TYPE_CHECKING:
    from pathlib import Path


def make(kind: str = "finetune", seed: int = 0, **changes: Any) -> Checkpoint:
    """A tiny 2D model with random weights, batch norm statistics included."""
    spec = NetworkSpec(**{"in_channels": 1, "classes": 3, "spatial_dims": 2, "width": 2, "depth": 2} | changes)
    torch.manual_seed(seed)
    net = build(spec)
    net(torch.randn(4, spec.in_channels, *[8] * spec.spatial_dims) * 3 + 1)
    patch = (16,) * spec.spatial_dims
    return Checkpoint(
        network=spec,
        weights=net.state_dict(),
        plan=Plan(
            channels=spec.in_channels,
            spatial_dims=spec.spatial_dims,
            spacing=(None, 0.7, 1 / 3),
            patch=patch,
            intensities=(Intensity(scheme="scan"),) * spec.in_channels,
        ),
        classes={0: "background", 1: "anterior", 4: "ça"} if kind == "finetune" else {},
        kind=kind,  # type: ignore[arg-type]
        method={"name": "supercl", "temperature": 0.1} if kind == "pretrain" else None,
        parts=spec.encoder_names if kind == "pretrain" else spec.map_names,
        provenance={"step": 7, "scores": {"dice": 0.5}, "versions": {"torch": torch.__version__}},
    )


def header_of(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]


def rewrite(path: Path, change: Any) -> None:
    """Writes a checkpoint file anew with its header changed by `change`."""
    found = Checkpoint.load(path)
    entries = json.loads(header_of(path)["medcl"])
    changed = change(entries)
    save_file(found.weights, path, {"medcl": changed if isinstance(changed, str) else json.dumps(entries)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make().save(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
@pytest.mark.parametrize("changes", [{}, {"architecture": "attention", "uafs": ("bottleneck", "dec1")}])
def test_what_was_saved_is_loaded(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    saved = make(kind, **changes)
    path = saved.save(tmp_path / "new folder" / "model.safetensors")
    found = Checkpoint.load(path)
    assert replace(found, weights={}) == replace(saved, weights={})
    assert found.weights.keys() == saved.weights.keys()
    for name, value in saved.weights.items():
        assert torch.equal(found.weights[name], value), name
        assert found.weights[name].dtype == value.dtype


def test_the_built_network_computes_the_same_and_is_independent(path: Path) -> None:
    saved = make()
    original = UNet(saved.network).eval()
    original.load_state_dict(saved.weights)
    found = Checkpoint.load(path)
    net = found.build()
    image = torch.randn(2, 1, 16, 20)
    assert not net.training
    assert torch.equal(net(image), original(image))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(found.build()(image), original(image))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_building_leaves_the_random_numbers_alone(path: Path) -> None:
    found = Checkpoint.load(path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found.build()
    assert torch.equal(torch.rand(1), expected)


def test_a_loaded_model_does_not_change_with_its_file(path: Path) -> None:
    found = Checkpoint.load(path)
    expected = {name: value.clone() for name, value in found.weights.items()}
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert all(torch.equal(value, expected[name]) for name, value in found.weights.items())


def test_the_header_is_one_json_text_without_pickle(path: Path) -> None:
    entries = json.loads(header_of(path)["medcl"])
    assert entries["format"] == 2
    assert entries["classes"] == {"0": "background", "1": "anterior", "4": "ça"}


def test_a_file_of_the_first_format_is_read(path: Path) -> None:
    def first(entries: dict[str, Any]) -> None:
        entries["format"] = 1
        del entries["network"]["architecture"], entries["network"]["uafs"]

    rewrite(path, first)
    assert Checkpoint.load(path).network == make().network


def test_a_failed_save_leaves_the_file_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_weights: Any, part: Path, _metadata: Any) -> None:
        part.write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr("napari_medcl.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        make(seed=1).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {}}, "missing"),
        ({"classes": {0: "background"}}, "1 classes are named, 3 expected"),
        ({"kind": "pretrain"}, "3 classes are named, 0 expected"),
        ({"parts": ("enc9",)}, "no parts named enc9"),
        ({"network": make(in_channels=2).network}, "plan and network differ"),
    ],
)
def test_what_does_not_fit_is_not_saved(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        replace(make(), **changes).save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.999])
def test_a_truncated_file_is_refused(path: Path, part: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(UserError, match=r"model\.safetensors.*take another copy"):
        Checkpoint.load(path)


@pytest.mark.parametrize("content", [b"not a model at all", b"\xff" * 500, b"PK\x03\x04" + bytes(300)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.pth cannot be read as a model"):
        Checkpoint.load(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent"):
        Checkpoint.load(tmp_path / "absent")
    with pytest.raises(UserError, match="is a folder"):
        Checkpoint.load(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_another_program_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata)
    with pytest.raises(UserError, match=r"foreign\.safetensors holds weights of another program"):
        Checkpoint.load(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.update(format=3, novelty=1), "newer MedCL .format 3"),
        (lambda e: e.update(novelty=1), "novelty: Extra inputs are not permitted"),
        (lambda e: e.pop("plan"), "plan: Field required"),
        (lambda e: e["network"].update(depth="deep"), "network.depth"),
        (lambda e: e.pop("format"), "header .* is broken"),
        (lambda e: e.update(format="1"), "header .* is broken"),
        (lambda e: "[1, 2]", "header .* is broken"),
        (lambda e: "{", "header .* is broken"),
        (lambda e: e["network"].update(width=3), "shape"),
        (lambda e: e["network"].update(depth=3), r"weights are missing, \w+"),
        (lambda e: e["network"].update(uafs=["dec1"]), r"weights are missing, blocks.dec1"),
        (lambda e: e["network"].update(uafs=["dec3"]), r"network: .*no UAFS block fits behind dec3"),
        (lambda e: e["network"].update(architecture="attention"), "weights are missing"),
        (lambda e: (e["network"].update(depth=1), e.update(parts=[])), "do not belong"),
    ],
)
def test_a_header_that_is_wrong_is_refused_with_the_reason(path: Path, change: Any, message: str) -> None:
    rewrite(path, change)
    with pytest.raises(UserError, match=message) as caught:
        Checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_a_model_says_what_made_it(tmp_path: Path) -> None:
    first = make("pretrain")
    second = replace(make(), start=first.origin, method={"name": "pdcr", "encoder": 0.1})
    third = replace(make(), start=second.origin)
    found = Checkpoint.load(third.save(tmp_path / "model.safetensors"))
    assert found.start == second.origin
    assert found.start.start.method == first.method
    assert found.origin.in_words() == "pre-trained with SuperCL, then fine-tuned with PDCR, then fine-tuned"
    assert make().origin.in_words() == "fine-tuned"


def test_the_method_of_format_1_was_that_of_the_start(path: Path) -> None:
    method = {"name": "supercl", "temperature": 0.2}

    def older(entries: dict[str, Any]) -> None:
        entries.update(format=1, method=method)
        del entries["start"]

    rewrite(path, older)
    found = Checkpoint.load(path)
    assert found.method is None
    assert found.start.method == method
    assert found.origin.in_words() == "pre-trained with SuperCL, then fine-tuned"


def test_transfer_copies_the_trained_parts_and_nothing_else() -> None:
    source = make("pretrain", seed=1)
    net = UNet(source.network.model_copy(update={"classes": 5}))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert transfer(source, net) == ["enc1", "enc2", "bottleneck"]
    for name, value in net.state_dict().items():
        handed = name.startswith(("enc", "bottleneck"))
        assert torch.equal(value, source.weights[name] if handed else before[name]), name
    assert any("running_var" in name for name in net.state_dict() if name.startswith("enc1"))


def test_transfer_does_not_tie_the_networks_together() -> None:
    source = make("pretrain")
    net = UNet(source.network)
    transfer(source, net)
    with torch.no_grad():
        net.enc1[0].weight.zero_()
    assert source.weights["enc1.0.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"width": 3}, "width 2"),
        ({"depth": 1}, "depth 2"),
        ({"in_channels": 2}, "image channels 1"),
        ({"architecture": "attention"}, "architecture unet, the new network attention"),
    ],
)
def test_transfer_into_another_network_says_what_differs(changes: dict[str, Any], word: str) -> None:
    source = make("pretrain")
    net = build(source.network.model_copy(update=changes))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=word):
        transfer(source, net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_transfer_between_dimensions_is_refused() -> None:
    with pytest.raises(UserError, match="2D or 3D"):
        transfer(make("pretrain"), UNet(make(spatial_dims=3).network))


MAPS = ("enc1", "enc2", "bottleneck", "dec2", "dec1")


@pytest.mark.parametrize("architecture", ["unet", "attention"])
@pytest.mark.parametrize(
    ("theirs", "ours", "classes", "handed"),
    [
        (("dec2", "dec1"), ("bottleneck", "dec1"), make().classes, {"blocks.dec1", "head"}),
        ((), ("dec1",), make().classes, {"head"}),
        (("dec1",), (), make().classes, {"head"}),
        (("dec1",), ("dec1",), {0: "background", 1: "liver", 4: "spleen"}, set()),
        (("dec1",), ("dec1",), {0: "background", 1: "anterior", 5: "ça"}, set()),
        (("dec1",), ("dec1",), {0: "background", 1: "anterior"}, set()),
        (("dec1",), ("dec1",), None, set()),
    ],
)
def test_transfer_of_head_and_blocks_needs_the_same_classes(
    architecture: str, theirs: tuple[str, ...], ours: tuple[str, ...], classes: dict[int, str] | None, handed: set[str]
) -> None:
    source = make(seed=1, architecture=architecture, uafs=theirs)
    count = 3 if classes is None else len(classes)
    net = build(source.network.model_copy(update={"uafs": ours, "classes": count}))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    names = transfer(source, net, classes)
    assert set(names) == {*MAPS, *handed}
    for name, value in net.state_dict().items():
        copied = name.startswith(tuple(f"{part}." for part in names))
        assert torch.equal(value, source.weights[name] if copied else before[name]), name


def test_transfer_of_nothing_is_refused() -> None:
    source = replace(make("pretrain"), parts=())
    with pytest.raises(UserError, match="no parts"):
        transfer(source, UNet(source.network))
