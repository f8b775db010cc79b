"""What the benchmarks share: times of one call, and what they depend on."""

from __future__ import annotations

import argparse
import os
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGES = ("medcl", "torch", "monai", "napari", "scikit-image", "nibabel", "isal", "dask", "distributed", "nnunetv2")
_IMPORTED = {"medcl": "napari_medcl", "scikit-image": "skimage"}


def options(description: str | None, repeats: int) -> argparse.Namespace:
    """The command line; sets the number of threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    parser.add_argument("--json", type=Path, help="where to write all times, with machine and versions")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    return given


def seconds(run: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall time and processor time of one call, with what it left running on the device."""
    begin, begin_busy = time.perf_counter(), time.process_time()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, time.process_time() - begin_busy


def machine(device: str) -> dict[str, Any]:
    """What the times depend on."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(": ")[1] for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES if find_spec(_IMPORTED.get(name, name))},
    }
