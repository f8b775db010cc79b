"""Time of a step of every method over the time of the network's part in it.

    python benchmarks/contrastive_step.py [--repeats 5] [--threads N] [--device cpu] [--only NAME] [--json FILE]

A step is the forward pass of all views, the losses and the backward pass. The bare step is the forward pass of the
same views through the same stages of the network and its backward pass; in fine-tuning ("masks") with cross-entropy.
Both are run in turn, A B A B, after a warm-up, so that other load on the machine falls on both. The ratio is that of
the medians of the wall times; beside it stand that of the minima and, for a machine with other load, that of the
processor times ("busy"; with --threads 1 the surest). "Loaded" is a step of pre-training that draws its batch from the
loader of a run, crops and views included, over eight scans of noise in memory.
"""

from __future__ import annotations

import json
import statistics
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import machine, options, seconds
from torch import nn
from torch.nn import functional

from napari_medcl.data.batch import Batch
from napari_medcl.data.loader import Item, Loader
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.data.views import CHANGED
from napari_medcl.methods import JCL, PDCR, SuperCL
from napari_medcl.methods.losses.jcl import smaller
from napari_medcl.models import NetworkSpec
from napari_medcl.models.unet import UNet
from napari_medcl.training.config import PretrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_medcl.methods import Method

    Losses = Callable[[], list[Tensor]]
    Pair = tuple[nn.Module, dict[str, Losses]]

GOAL, GOAL_LOADED = 1.15, 1.10
WARM_UP = 2
SIZES = {
    "2D, 16 of 128x128": (16, (128, 128), 32, 4),
    "3D, 2 of 48x48x48": (2, (48, 48, 48), 32, 3),
}


def bare_supercl(net: UNet, given: Batch) -> Losses:
    """The encoder on the four views."""
    return lambda: [net.encode(view)["bottleneck"].mean() for view in (*given.fixed, *given.free)]


def bare_jcl(net: UNet, given: Batch) -> Losses:
    """The encoder on two views, encoder and two decoder blocks on two that were scaled down before."""
    last = net.spec.decoder_names[1]
    full, scaled = (given.fixed[0], given.free[0]), [smaller(view, 2) for view in (given.fixed[1], given.free[1])]
    return lambda: [
        *(net.encode(view)["bottleneck"].mean() for view in full),
        *(net.decode(net.encode(view), to=last)[last].mean() for view in scaled),
    ]


def bare_pdcr(net: UNet, given: Batch) -> Losses:
    """Encoder and decoder on one view, as far as a map is read."""
    last = PDCR().maps_read(net.spec)[-1]
    return lambda: [net.decode(net.encode(given.fixed[0]), to=last)[last].mean()]


def pretraining(method: Method, bare: Callable[[UNet, Batch], Losses], net: UNet, given: Batch) -> Pair:
    module, loader = method.pretraining(net).to(given.fixed[0].device), loaded(method, given)
    return module, {
        "step": lambda: list(module(given).values()),
        "bare": bare(net, given),
        "loaded": lambda: list(module(loader.draw()).values()),
    }


def loaded(method: Method, given: Batch) -> Loader:
    """A loader of such batches, over scans a half larger than their crops."""
    images, channels, *patch = given.fixed[0].shape
    dims, crop = len(patch), [3 * side // 2 for side in patch]
    shape = (20, *crop) if dims == 2 else tuple(crop)
    ids = np.indices(shape).sum(0).astype(np.uint16) // 10
    random = np.random.default_rng(0)
    items = [
        Item(str(number), random.normal(size=(channels, *shape)).astype(np.float32), superpixels=ids)
        for number in range(8)
    ]
    scheme = (Intensity(scheme="scan"),) * channels
    plan = Plan(channels=channels, spatial_dims=dims, spacing=(1, 1, 1), patch=tuple(patch), intensities=scheme)
    changes = CHANGED.times(PretrainConfig.model_fields["changes"].default)
    return Loader(items, plan, method.needs(dims), images, given.fixed[0].device, 0, appearance=changes)


def finetuning(method: Method, net: UNet, given: Batch) -> Pair:
    """Beside cross-entropy, which the bare step has too."""
    module = method.finetuning(net).to(given.fixed[0].device)
    labels = (given.superpixels // 100) % net.spec.classes

    def losses(whole: bool) -> list[Tensor]:
        maps = net.encode(given.fixed[0])
        maps |= net.decode(maps)
        loss = functional.cross_entropy(net.head(maps["dec1"]), labels)
        return [loss, *(module(maps, labels).values() if whole else ())]

    return nn.ModuleList([net, module]), {"step": lambda: losses(True), "bare": lambda: losses(False)}


STEPS: dict[str, Callable[[UNet, Batch], Pair]] = {
    "SuperCL": partial(pretraining, SuperCL(), bare_supercl),
    "JCL": partial(pretraining, JCL(), bare_jcl),
    "PDCR": partial(pretraining, PDCR(), bare_pdcr),
    "PDCR, masks": partial(finetuning, PDCR()),
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


def steps(method: str, size: str, device: str) -> dict[str, Callable[[], None]]:
    """The two things that are timed, on one network and one batch."""
    images, shape, width, depth = SIZES[size]
    net = UNet(NetworkSpec(in_channels=1, classes=2, spatial_dims=len(shape), width=width, depth=depth)).to(device)
    trained, pair = STEPS[method](net, batch(images, shape, device))

    def step(losses: Losses) -> None:
        trained.zero_grad()
        torch.stack(losses()).sum().backward()

    return {name: partial(step, losses) for name, losses in pair.items()}


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
        "ratio_loaded": statistics.median(wall.get("loaded", [float("nan")])) / bare,
    }


def main() -> None:
    given = options(__doc__, repeats=5)
    about = machine(given.device)
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in about.items()))
    columns = ("method", "images", "bare", "step", "medians", "minima", "busy", "loaded")
    table = Table(*columns, title=f"goals: {GOAL}, {GOAL_LOADED} loaded")
    results = {}
    for method in STEPS:
        for size in SIZES:
            name = f"{method}, {size}"
            if given.only.lower() not in name.lower():
                continue
            times = measure(steps(method, size, given.device), given.repeats, given.device)
            row = summary(times)
            ratios = (row[which] for which in ("ratio", "ratio_of_minima", "ratio_of_processor_time", "ratio_loaded"))
            table.add_row(
                method,
                size,
                *(f"{row[which]:.3f} s" for which in ("bare_s", "step_s")),
                *(f"{ratio:.3f}" for ratio in ratios),
            )
            results[name] = {**row, "wall_and_processor_s": times}
    console.print(table)
    if given.json:
        found = {"machine": about, "goals": [GOAL, GOAL_LOADED], "results": results}
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
