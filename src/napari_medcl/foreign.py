"""Weights that the methods' authors publish, as checkpoints of ours."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.errors import UserError
from napari_medcl.models import NetworkSpec, build

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIXES = (".pth", ".pt")
_LAYER = re.compile(
    r"(?:module\.)?(?:share_encoder|online_decoder|encoder|decoder)\."
    r"(?:(?P<way>contr|expand)_(?P<level>\d)_(?P<conv>[12])\.(?P<index>[01])|center\.(?P<center>\d)"
    r"|upscale(?P<above>\d)|(?P<head>head)\.0)\.(?P<leaf>\w+)"
)
_PROJECTOR = re.compile(r"(?:module\.)?(?:\w+_projector|head)\.")
"""What pre-training put behind the network and leaves there."""
_SIDE = 256
"""Stands for the crop's side, which the files do not tell; fine-tuning chooses its own."""


def load_model(path: Path) -> Checkpoint:
    """A model file, ours or one that `import_authors` reads.

    Raises:
        UserError: It is neither.
    """
    return import_authors(path) if path.suffix in SUFFIXES else Checkpoint.load(path)


def import_authors(path: Path | str) -> Checkpoint:
    """Reads weights of the 2D U-Net that the authors of PCL, JCL and SuperCL share.

    Nothing that a pickle may hold is run. Width, depth, channels and classes come from the shapes. Scans keep
    their spacing, and each is normalised by its own statistics.

    Args:
        path: The weights by name, or a dictionary that holds them, as `torch.save` writes it.

    Returns:
        A pre-trained model. Its `parts` are the encoder and those blocks of the decoder that are there and were
        trained; the others are as in a new network.

    Raises:
        UserError: The file cannot be read, is not safe to read, or holds other weights.
    """
    path = Path(path)
    theirs = _read(path)
    named = {key: our_name(key) for key in theirs}
    if strange := [key for key, name in named.items() if name is None and not _PROJECTOR.match(key)]:
        raise UserError(
            f"{path} holds weights of another network, such as {', '.join(strange[:3])}. MedCL reads the U-Net of the "
            "authors of PCL, JCL and SuperCL, with names such as share_encoder.contr_1_1.0.weight."
        )
    ours = {name: theirs[key] for key, name in named.items() if name is not None}
    spec = _spec(path, ours)
    weights, missing = _completed(path, ours, spec)
    parts = tuple(name for name in spec.map_names if name not in missing and _trained(name, ours))
    if absent := [name for name in spec.encoder_names if name in missing]:
        raise UserError(f"{path} has no weights for {', '.join(absent)} of the encoder. Take another copy of the file.")
    return Checkpoint(
        network=spec,
        weights=weights,
        plan=Plan(
            channels=spec.in_channels,
            spatial_dims=2,
            spacing=(None, None, None),
            patch=(_SIDE, _SIDE),
            intensities=(Intensity(scheme="scan"),) * spec.in_channels,
        ),
        classes={},
        kind="pretrain",
        method={"name": "jcl"} if any("online_" in key for key in theirs) else None,
        parts=parts,
        provenance={
            "imported": {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "from": "weights of the U-Net of PCL, JCL and SuperCL, as its authors save them",
            }
        },
    )


def our_name(theirs: str) -> str | None:
    """The authors' name of a weight as ours: `share_encoder.contr_2_1.0.weight` is `enc2.0.weight`; else None."""
    if (found := _LAYER.fullmatch(theirs)) is None:
        return None
    way, level, leaf = found["way"], found["level"], found["leaf"]
    if found["head"]:
        return f"head.{leaf}"
    if found["center"]:
        return f"bottleneck.{found['center']}.{leaf}"
    if found["above"]:
        return f"dec{int(found['above']) - 1}.up.{leaf}"
    stage = f"enc{level}" if way == "contr" else f"dec{level}.convs"
    return f"{stage}.{int(found['index']) + 3 * (int(found['conv']) - 1)}.{leaf}"


def _read(path: Path) -> dict[str, Tensor]:
    """Weights by name, as they are in the file or in a dictionary in it."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}. Check the path, or choose another model.") from error
    except UnpicklingError as error:
        raise UserError(
            f"{path} was not opened: it is broken, or holds objects that could run code besides the weights. "
            "Ask its authors for the weights alone, a state_dict."
        ) from error
    except Exception as error:  # a broken pickle ends in any exception
        raise UserError(f"{path} cannot be read as weights: it is broken or cut short. Take another copy.") from error
    inside = [found, *found.values()] if isinstance(found, dict) else []
    for one in inside:
        if isinstance(one, dict) and one and all(isinstance(value, Tensor) for value in one.values()):
            return {str(key): value for key, value in one.items()}
    what = ", ".join(map(str, list(found)[:3])) if isinstance(found, dict) else f"a {type(found).__name__}"
    raise UserError(f"{path} holds {what or 'nothing'}, no weights by name. Choose the file that has the weights.")


def _spec(path: Path, ours: Mapping[str, Tensor]) -> NetworkSpec:
    first, head = ours.get("enc1.0.weight"), ours.get("head.weight")
    if first is None or first.ndim != 4:
        raise UserError(f"{path} has no first convolution of a 2D U-Net, enc1. Choose weights of a whole encoder.")
    return NetworkSpec(
        in_channels=first.shape[1],
        classes=2 if head is None else len(head),
        spatial_dims=2,
        width=len(first),
        depth=max(int(name[3]) for name in ours if name.startswith("enc")),
    )


def _completed(path: Path, ours: Mapping[str, Tensor], spec: NetworkSpec) -> tuple[dict[str, Tensor], set[str]]:
    """The weights of the whole network, and the stages that had to be taken from a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = build(spec).state_dict()
    if unfit := [name for name in ours if name not in weights or weights[name].shape != ours[name].shape]:
        raise UserError(f"{path} has a U-Net of another build: {unfit[0]} does not fit the other weights.")
    missing = {_stage(name) for name in weights if name not in ours}
    kept = {name: value.to(weights[name].dtype) for name, value in ours.items() if _stage(name) not in missing}
    return {**weights, **kept}, missing


def _stage(name: str) -> str:
    return name.partition(".")[0]


def _trained(stage: str, ours: Mapping[str, Tensor]) -> bool:
    """Whether its batch norms saw anything, where it has some: an unused decoder block is saved like the others."""
    means = [value for name, value in ours.items() if name.startswith(f"{stage}.") and name.endswith("running_mean")]
    return not means or any(bool(mean.any()) for mean in means)
