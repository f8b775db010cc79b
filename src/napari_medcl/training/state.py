"""What a run needs to go on exactly as if it had never been interrupted, in one file."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from napari_medcl.errors import UserError
from napari_medcl.files import whole

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_KEY = "medcl-state"
_NAME = re.compile(r"state-(\d+)-([0-9a-f]{8})\.safetensors")
_KEPT = 2
"""States that are kept: where the disk damaged the last one, the one before is there."""

Nested = Any
"""Dicts, lists, tensors and what JSON holds, in each other."""


def write_state(folder: Path, step: int, state: Nested) -> None:
    """Writes a state; older ones than the last but one are deleted when it is on the disk.

    The file's name says the step and the checksum.

    Raises:
        OSError: It cannot be written; those that were there still are.
    """
    tensors: dict[str, Tensor] = {}
    header = {_KEY: json.dumps(_pack(state, tensors, {}))}
    data = save(tensors, header)
    with whole(folder / f"state-{step:08d}-{zlib.crc32(data):08x}.safetensors") as part:
        part.write_bytes(data)
    for _, path in _states(folder)[_KEPT:]:
        path.unlink(missing_ok=True)


def read_state(folder: Path) -> tuple[Nested | None, list[str]]:
    """The newest state that is whole, None where none was written; and what to tell the user about damaged ones.

    A damaged file gets another name, so that nothing is lost and it is never read again.

    Raises:
        UserError: States were written, and none of them is whole.
    """
    told: list[str] = []
    for checksum, path in _states(folder):
        data = path.read_bytes()
        if zlib.crc32(data) == checksum:
            with contextlib.suppress(SafetensorError, ValueError, KeyError, TypeError, IndexError):
                return _unpacked(data), told
        path.rename(path.with_suffix(".damaged"))
        told.append(f"The saved state {path} is damaged; the run goes on from the one before.")
    if told or any(folder.glob("state-*.damaged")):
        raise UserError(
            f"The saved states in {folder} are damaged, and the run cannot go on. Its models are beside them; start a "
            f"new run with the same settings: medcl runs repeat {folder.parent}"
        )
    return None, told


def has_state(folder: Path) -> bool:
    """Whether a state was written, be it whole or damaged."""
    return any(folder.glob("state-*"))


def random_state(device: torch.device) -> Nested:
    """The state of torch's own sources of random numbers."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore_random_state(state: Nested, device: torch.device) -> None:
    """Sets what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _states(folder: Path) -> list[tuple[int, Path]]:
    """Checksums and files, the latest step first."""
    found = [(match, path) for path in folder.glob("state-*.safetensors") if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (int(pair[0][1]), pair[1].stat().st_mtime_ns), reverse=True)
    return [(int(match[2], 16), path) for match, path in found]


def _pack(value: Nested, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """JSON for a value, its tensors put aside; a tensor that stands in two places is written once."""
    if isinstance(value, torch.Tensor):
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if value.numel() == 0 or place not in seen:
            seen[place] = f"t{len(tensors)}"
            tensors[seen[place]] = value.detach().cpu().contiguous().clone()
        return {"tensor": seen[place]}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(one, tensors, seen)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(one, tensors, seen) for one in value]
    return value


def _unpacked(data: bytes) -> Nested:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"][_KEY]
    return _unpack(json.loads(header), load(data))


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Nested:
    if isinstance(value, list):
        return [_unpack(one, tensors) for one in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _unpack(one, tensors) for key, one in value["dict"]}
    return value
