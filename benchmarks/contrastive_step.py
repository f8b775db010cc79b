"""Time of a SuperCL training step over the time of the network's part in it.

    python benchmarks/contrastive_step.py [--repeats 5] [--threads N] [--device cpu] [--json FILE]

A step is the forward pass of four views, the three losses and the backward pass. The bare step is the
forward pass of the same four views through the same encoder and its backward pass. Both are run in turn,
A B A B, after a warm-up, so that other load on the machine falls on both. The ratio is that of the medians
of the wall times; beside it stand that of the minima and, for a machine with other load, that of the
processor times ("busy"; with --threads 1 the surest).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_medcl.data.batch import Batch
from napari_medcl.methods import SuperCL
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 1.15
WARM_UP = 2
CASES = {
    "2D, 16 of 128x128": (16, (128, 128), 32, 4),
    "3D, 2 of 48x48x48": (2, (48, 48, 48), 32, 3),
}


def batch(images: int, size: tuple[int, ...], device: str) -> Batch:
    """Noise with about 100 superpixels an image: what the values are costs nothing."""
    side = round((torch.tensor(size).prod().item() / 100) ** (1 / len(size)))
    ids = torch.zeros(size, dtype=torch.long)
    for axis, count in enumerate(size):
        step = torch.arange(count) // side
        ids = ids * 100 + step.reshape(-1, *[1] * (len(size) - axis - 1))
    views = tuple(torch.randn(images, 1, *size, device=device) for _ in range(4))
    position = torch.linspace(1 / images, 1, images, device=device)
    return Batch(views[:2], views[2:], ids.expand(images, *size).to(device), position)


def steps(images: int, size: tuple[int, ...], width: int, depth: int, device: str) -> dict[str, Callable[[], None]]:
    """The two things that are timed, on one network and one batch."""
    dims = len(size)
    spec = NetworkSpec(in_channels=1, classes=2, spatial_dims=dims, width=width, depth=depth)
    net = UNet(spec).to(device)
    module = SuperCL().pretraining(net).to(device)
    given = batch(images, size, device)

    def whole() -> None:
        module.zero_grad()
        torch.stack(list(module(given).values())).sum().backward()

    def bare() -> None:
        module.zero_grad()
        maps = [net.encode(view)["bottleneck"] for view in (*given.fixed, *given.free)]
        torch.stack(maps).mean().backward()

    return {"step": whole, "bare": bare}


def seconds(run: Callable[[], None], device: str) -> tuple[float, float]:
    """Wall time and processor time of one call, with what it left running on the device."""
    begin, begin_busy = time.perf_counter(), time.process_time()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, time.process_time() - begin_busy


def measure(timed: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor times in s of each of the functions, run in turn."""
    for _ in range(WARM_UP):
        for run in timed.values():
            seconds(run, device)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, run in timed.items():
            times[name].append(seconds(run, device))
    return times


def summary(times: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Medians in s and what the step costs over the bare one."""
    wall, busy = ({name: [both[i] for both in found] for name, found in times.items()} for i in (0, 1))
    step, bare = statistics.median(wall["step"]), statistics.median(wall["bare"])
    return {
        "bare_s": bare,
        "step_s": step,
        "ratio": step / bare,
        "ratio_of_minima": min(wall["step"]) / min(wall["bare"]),
        "ratio_of_processor_time": statistics.median(busy["step"]) / statistics.median(busy["bare"]),
    }


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
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--json", type=Path, help="where to write all times, with machine and versions")
    given = options.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    about = machine(given.device)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'':20}{'bare':>10}{'step':>10}{'medians':>10}{'minima':>10}{'busy':>10}   goal {GOAL}")
    results = {}
    for name, case in CASES.items():
        times = measure(steps(*case, given.device), given.repeats, given.device)
        row = summary(times)
        print(
            f"{name:20}{row['bare_s']:9.3f}s{row['step_s']:9.3f}s{row['ratio']:10.3f}"
            f"{row['ratio_of_minima']:10.3f}{row['ratio_of_processor_time']:10.3f}",
            flush=True,
        )
        results[name] = {**row, "wall_and_processor_s": times}
    if given.json:
        found = {"machine": about, "goal": GOAL, "results": results}
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
