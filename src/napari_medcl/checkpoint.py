"""A model in one file: the weights, and all that is needed to use them on a new scan."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_medcl.data.plan import Plan
from napari_medcl.errors import UserError
from napari_medcl.files import whole
from napari_medcl.methods.choices import titled
from napari_medcl.models import Network, NetworkSpec, build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_KEY = "medcl"
_FORMAT = 2
"""Goes up with every change of the header; a file of a higher format is refused, not guessed at.

2 added the network's `architecture` and `uafs`, which a file of format 1 does without, and `start`. In format 1 the
`method` of a fine-tuned model was that of its start.
"""
_AGAIN = "Take another copy of the file, or train the model again."

Kind = Literal["pretrain", "finetune"]


class Origin(BaseModel):
    """What made a model: a stage, its method, and what made the model that it started from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    method: dict[str, Any] | None = None
    start: Origin | None = None

    def in_words(self) -> str:
        """As in "pre-trained with JCL, then fine-tuned with PDCR"."""
        before = f"{self.start.in_words()}, then " if self.start else ""
        stage = "pre-trained" if self.kind == "pretrain" else "fine-tuned"
        with_it = f" with {titled(self.kind, self.method) or 'a method'}" if self.method else ""
        return f"{before}{stage}{with_it}"


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with what it was trained on.

    Attributes:
        network: What it takes to build the network.
        weights: Its whole `state_dict`, buffers of the batch norms included.
        plan: How a scan becomes its input.
        classes: Label value in the masks to name, background included. The network's outputs stand for
            the values in ascending order. Empty after pre-training.
        kind: The stage that made it.
        method: Settings of the method of that stage, if there was one.
        start: What made the model that the stage started from; None where it started from scratch.
        parts: Names of the maps whose weights were trained, which `transfer` hands on.
        provenance: Versions, configuration, data, scores, step; JSON-able, for people to read.
    """

    network: NetworkSpec
    weights: dict[str, Tensor]
    plan: Plan
    classes: dict[int, str]
    kind: Kind
    method: dict[str, Any] | None = None
    parts: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    start: Origin | None = None

    @property
    def origin(self) -> Origin:
        """What made this model."""
        return Origin(kind=self.kind, method=self.method, start=self.start)

    def save(self, path: Path | str) -> Path:
        """Writes the file whole or not at all; the folder is made where it is missing.

        Raises:
            ValueError: Parts of the checkpoint do not fit each other.
            OSError: The file cannot be written; one that was there is as it was.
        """
        path = Path(path)
        header = _Header(
            format=_FORMAT,
            network=self.network,
            plan=self.plan,
            classes=self.classes,
            kind=self.kind,
            method=self.method,
            parts=self.parts,
            provenance=self.provenance,
            start=self.start,
        )
        if wrong := _misfit(self.weights, self.network):
            raise ValueError(wrong)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.weights.items()}
        metadata = {_KEY: json.dumps(header.model_dump(mode="json"), ensure_ascii=False)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            try:
                save_file(weights, part, metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error
        return path

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
        """Reads a file that `save` wrote.

        Raises:
            UserError: The file is missing, broken, of another program or of a newer version.
        """
        path = Path(path)
        header, weights = _read(path, device)
        if wrong := _misfit(weights, header.network):
            raise UserError(f"{path} is broken: {wrong}. {_AGAIN}")
        return cls(
            network=header.network,
            weights=weights,
            plan=header.plan,
            classes=header.classes,
            kind=header.kind,
            method=header.method,
            parts=header.parts,
            provenance=header.provenance,
            start=header.start,
        )

    def build(self) -> Network:
        """The network with these weights, in evaluation mode, on the weights' device."""
        with torch.device("meta"):
            net = build(self.network)
        copies = {name: value.clone() for name, value in self.weights.items()}
        net.load_state_dict(copies, assign=True)
        return net.eval()


def transfer(checkpoint: Checkpoint, net: Network, classes: Mapping[int, str] | None = None) -> list[str]:
    """Copies the trained parts of a checkpoint into another network; the others stay as they are.

    What tells classes apart, the head and the UAFS blocks, is copied only where both networks have it, for
    the same classes.

    Args:
        checkpoint: Where the weights come from.
        net: Where they go.
        classes: Its classes, as in `Checkpoint.classes`.

    Returns:
        Names of the modules whose weights were copied.

    Raises:
        UserError: The networks differ in more than their classes and blocks, or nothing was trained.
    """
    if not checkpoint.parts:
        raise UserError("This model has no parts to hand on. Start from the model of a run.")
    for name, say in _MUST_AGREE.items():
        have, want = getattr(checkpoint.network, name), getattr(net.spec, name)
        if have != want:
            raise UserError(
                f"The model to start from has {say} {have}, the new network {want}. "
                f"Set the new one to {have} too, start from another model, or train from scratch."
            )
    names = [*checkpoint.parts]
    if checkpoint.classes and checkpoint.classes == classes:
        names += [f"blocks.{name}" for name in checkpoint.network.uafs if name in net.spec.uafs] + ["head"]
    prefixes = tuple(f"{name}." for name in names)
    handed = {name: value for name, value in checkpoint.weights.items() if name.startswith(prefixes)}
    net.load_state_dict({**net.state_dict(), **handed})
    return names


_MUST_AGREE = {
    "spatial_dims": "dims (2D or 3D)",
    "architecture": "architecture",
    "in_channels": "image channels",
    "width": "width",
    "depth": "depth",
}


class _Header(BaseModel):
    """The JSON text in a file's header. An unknown entry is an error: every new one raises the format."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2]
    network: NetworkSpec
    plan: Plan
    classes: dict[int, str]
    kind: Kind
    method: dict[str, Any] | None
    parts: tuple[str, ...]
    provenance: dict[str, Any]
    start: Origin | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_format_1(cls, entries: Any) -> Any:
        if isinstance(entries, dict) and (entries.get("format"), entries.get("kind")) == (1, "finetune"):
            start = {"kind": "pretrain", "method": entries.get("method")}
            return {**entries, "method": None, "start": start if entries.get("method") else None}
        return entries

    @model_validator(mode="after")
    def _fits(self) -> Self:
        plan, network = self.plan, self.network
        if (plan.channels, plan.spatial_dims) != (network.in_channels, network.spatial_dims):
            raise ValueError("plan and network differ in channels or dimensions")
        expected = network.classes if self.kind == "finetune" else 0
        if len(self.classes) != expected:
            raise ValueError(f"{len(self.classes)} classes are named, {expected} expected")
        if unknown := set(self.parts) - set(network.map_names):
            raise ValueError(f"the network has no parts named {', '.join(sorted(unknown))}")
        return self


def _read(path: Path, device: torch.device | str) -> tuple[_Header, dict[str, Tensor]]:
    if path.is_dir():
        raise UserError(f"{path} is a folder. Choose a model file, such as its checkpoints/best.safetensors.")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = _header(path, (file.metadata() or {}).get(_KEY))
            # Copies: a tensor mapped to the file would change or crash with it.
            return header, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}. Check the path, or choose another model.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a model ({error}). It is broken, cut short or no safetensors file: "
            "take another copy, or choose a model file that MedCL wrote."
        ) from error


def _header(path: Path, text: str | None) -> _Header:
    if text is None:
        raise UserError(f"{path} holds weights of another program. Choose a model file that MedCL wrote.")
    try:
        entries = json.loads(text)
        newer = entries["format"] > _FORMAT
        header = None if newer else _Header.model_validate(entries)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"The header of {path} is broken: {_first(error)}. {_AGAIN}") from error
    if header is None:
        raise UserError(
            f"{path} was written by a newer MedCL (format {entries['format']}, this one reads {_FORMAT}). "
            "Update MedCL: pip install --upgrade medcl"
        )
    return header


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        return f"{'.'.join(map(str, detail['loc'])) or 'entries'}: {detail['msg']}"
    return f"{type(error).__name__}: {error}"


def _misfit(weights: dict[str, Tensor], spec: NetworkSpec) -> str | None:
    """What is wrong with the weights of a network, or None."""
    with torch.device("meta"):
        expected = {name: value.shape for name, value in build(spec).state_dict().items()}
    if missing := sorted(expected.keys() - weights.keys()):
        return f"{len(missing)} weights are missing, {missing[0]} for one"
    if extra := sorted(weights.keys() - expected.keys()):
        return f"{len(extra)} weights do not belong to its network, {extra[0]} for one"
    for name, shape in expected.items():
        if weights[name].shape != shape:
            return f"{name} has the shape {tuple(weights[name].shape)}, {tuple(shape)} expected"
    return None
