"""Where to compute, and in which number format."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Literal

import torch

from napari_medcl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's parameters."""
_KEPT_BYTES = 2**30
"""Larger blocks still go back at once."""


def resolve_device(wanted: Device | str = "auto") -> torch.device:
    """The device to compute on; `auto` is a CUDA device where there is one, else the CPU.

    Apple's GPU (`mps`) is taken only if it is asked for: 3D operations are missing there in some
    versions of torch.

    Raises:
        UserError: This machine does not have the device.
    """
    has: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if wanted == "auto":
        wanted = "cuda" if has["cuda"]() else "cpu"
    if wanted not in has:
        raise UserError(f"There is no device named '{wanted}'; use device=auto, {', '.join(has)}.")
    if not has[wanted]():
        raise UserError(
            f"This machine has no {wanted.upper()} device that torch {torch.__version__} can use. "
            "Use device=cpu or device=auto, or install the driver and the torch build for it."
        )
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    """What tells the devices of a machine apart, in letters that a file name may have."""
    if device.type != "cuda":
        return device.type
    return f"cuda-{torch.cuda.get_device_properties(device).uuid}"


def precision(device: torch.device, wanted: Precision = "auto") -> torch.dtype | None:
    """The number format of a network's products under autocast; None is float32 throughout.

    `auto` is bfloat16 where the device computes with it in hardware, float16 on other CUDA devices,
    else float32. float16 needs a gradient scaler in training.

    Raises:
        UserError: float16 is asked for on the CPU.
    """
    if wanted == "float16" and device.type == "cpu":
        raise UserError("The CPU does not compute in float16. Use precision=auto, bfloat16 or float32.")
    if wanted != "auto":
        return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """The context in which the products of a network are computed in `dtype`; nothing changes for None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def reuse_memory(device: torch.device) -> None:
    """On Linux, makes the memory of freed tensors of the CPU that of the next ones.

    torch has no store of its own there, and glibc gives blocks of this size back to the system at once: every map of
    every layer is then made of new pages, which takes a tenth of the time of training and a fifth of prediction. Memory
    stays with the process until `release_memory`; other systems and C libraries are left as they are.
    """
    if device.type == "cpu" and (mallopt := _of_libc("mallopt")) is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def release_memory() -> None:
    """Gives what was kept by `reuse_memory` back to the system."""
    if (trim := _of_libc("malloc_trim")) is not None:
        trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; in emulation it is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in probes)
