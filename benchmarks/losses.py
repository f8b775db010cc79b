"""Time and memory of losses over those of a literal loop as the authors published it.

    python benchmarks/losses.py [--repeats 5] [--threads N] [--device cpu] [--only NAME] [--json FILE]

Both compute the same numbers from the same inputs, which is checked first, gradients included. Then they run in
turn, forward and backward, after a warm-up: a literal run, then ten of ours, so that other load on the machine falls
on both. The factor is that of the medians of the wall times; beside it stand that of the minima and that of the
processor times ("busy"; with --threads 1 the surest on a machine with other load). Memory is the most that the
tensors made on the way, gradients included, take at one time, of the literal version above ours.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from timing import machine, options, seconds
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from napari_medcl.methods.grid import centres, regular_grid
from napari_medcl.methods.losses.contrast import by_position
from napari_medcl.methods.losses.jcl import dense
from napari_medcl.methods.losses.patches import affinity, composition
from napari_medcl.methods.losses.pdcr import dragsaw
from napari_medcl.methods.losses.supercl import ilcp

if TYPE_CHECKING:
    from collections.abc import Callable

OURS_PER_LITERAL = 10
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Entry:
    """A loss and its literal version.

    Attributes:
        name: What it is and, on a second line, how large.
        goal: How many times faster ours shall be.
        inputs: Makes the arguments of both; those of floating point that ask for a gradient get one.
        ours: From the inputs to the result.
        literal: The same, step by step.
    """

    name: str
    goal: float
    inputs: Callable[[], tuple[Tensor, ...]]
    ours: Callable[..., Tensor]
    literal: Callable[..., Tensor]


def literal_contrastive(views: Tensor, alike: Tensor) -> Tensor:
    """The contrastive loss over views (B, 2, D) with all pairs of rows side by side, as released; alike (B, B)."""
    images = len(views)
    rows = torch.cat([views[:, 0], views[:, 1]])
    logits = functional.cosine_similarity(rows[:, None], rows[None], dim=-1) / TEMPERATURE
    others = 1 - torch.eye(2 * images, device=views.device)
    chosen = alike.repeat(2, 2) * others
    log_probability = logits - torch.log((torch.exp(logits) * others).sum(1, keepdim=True))
    return -(TEMPERATURE / 0.07) * ((chosen * log_probability).sum(1) / chosen.sum(1)).mean()


def maps(images: int, channels: int, side: int) -> tuple[Tensor, Tensor]:
    """Two maps, with the channels last as the networks give them."""
    both = (torch.randn(images, channels, side, side).to(memory_format=torch.channels_last) for _ in range(2))
    first, second = (feature.requires_grad_() for feature in both)
    return first, second


def dense_inputs() -> tuple[Tensor, ...]:
    return (*maps(8, 128, 16), torch.linspace(1 / 8, 1, 8))


def our_dense(auxiliary: Tensor, dominant: Tensor, positions: Tensor) -> Tensor:
    return dense(auxiliary, dominant, by_position(positions, 0.3), TEMPERATURE)


def literal_dense(auxiliary: Tensor, dominant: Tensor, positions: Tensor) -> Tensor:
    """A loop over the positions of the maps."""
    losses = []
    for y in range(auxiliary.shape[2]):
        for x in range(auxiliary.shape[3]):
            views = torch.stack([auxiliary[:, :, y, x], dominant[:, :, y, x]], dim=1)
            column = positions.view(-1, 1)
            near = (column.T.repeat(len(column), 1) - column.repeat(1, len(column))).abs() < 0.3
            losses.append(literal_contrastive(views, near.float()))
    return torch.stack(losses).mean()


def ilcp_inputs() -> tuple[Tensor, ...]:
    return (*maps(8, 512, 16), torch.randint(0, 100, (8, 16, 16)))


def our_ilcp(view_1: Tensor, view_2: Tensor, superpixels: Tensor) -> Tensor:
    return ilcp(view_1, view_2, superpixels, 16, TEMPERATURE)


def literal_ilcp(view_1: Tensor, view_2: Tensor, superpixels: Tensor) -> Tensor:
    """A loop over the images, and over every two pixels that are compared."""
    losses = []
    for first, second, ids in zip(view_1, view_2, superpixels, strict=True):
        width = ids.shape[1]
        places = [(k // width, k % width) for k in range(0, ids.numel(), 16)]
        views = torch.stack([torch.stack([first[:, y, x], second[:, y, x]]) for y, x in places])
        alike = torch.zeros(len(places), len(places), device=ids.device)
        for i, one in enumerate(places):
            for j, other in enumerate(places):
                if ids[one] == ids[other]:
                    alike[i, j] = 1
        losses.append(literal_contrastive(views, alike))
    return torch.stack(losses).mean()


def volume() -> tuple[Tensor, ...]:
    """A 64x64x64 volume of four classes in blobs."""
    field = functional.interpolate(torch.rand(1, 1, 8, 8, 8), size=(64, 64, 64), mode="trilinear")[:, 0]
    return ((4 * (field - field.min()) / (field.max() - field.min())).long().clamp(max=3),)


def windows(most: int, stride: int) -> tuple[tuple[int, ...], ...]:
    """Centres of the patches of a map over the volume, `stride` voxels to a pixel."""
    return centres(regular_grid([64 // stride] * 3, most), stride)


def our_composition(most: int, stride: int, side: int) -> Callable[[Tensor], Tensor]:
    return lambda labels: composition(labels, windows(most, stride), side, 4)


def literal_composition(most: int, stride: int, side: int) -> Callable[[Tensor], Tensor]:
    """A loop over the windows, and over the classes in each."""

    def compute(labels: Tensor) -> Tensor:
        rows = []
        for centre in product(*windows(most, stride)):
            span = [slice(max(c - side // 2, 0), max(c - side // 2 + side, 0)) for c in centre]
            patch = labels[(0, *span)]
            rows.append(torch.stack([(patch == k).float().mean() for k in range(4)]))
        return torch.stack(rows)[None]

    return compute


def dragsaw_inputs() -> tuple[Tensor, ...]:
    made_of = torch.rand(8, 64, 4).pow(4)
    return torch.randn(8, 64, 64).requires_grad_(), affinity(made_of / made_of.sum(-1, keepdim=True))


def our_dragsaw(features: Tensor, alike: Tensor) -> Tensor:
    return dragsaw(features, alike, 1 - alike, 0.5)


def literal_dragsaw(features: Tensor, alike: Tensor) -> Tensor:
    """A loop over the images, and over the patches that the others are compared with."""
    losses = []
    for feature, a in zip(features, alike, strict=True):
        for i in range(feature.shape[1]):
            s = functional.cosine_similarity(feature[:, i : i + 1], feature, dim=0) / 0.5
            s = s - s.max()
            losses.append(-torch.log(torch.exp(s * a[i]) / torch.exp(s * (1 - a[i])).sum()))
    return torch.stack(losses).mean()


ENTRIES = [
    Entry("JCL dense\n8 x 128 x 16x16", 40, dense_inputs, our_dense, literal_dense),
    Entry("SuperCL ILCP\n8 x 512 x 16x16", 10, ilcp_inputs, our_ilcp, literal_ilcp),
    *(
        Entry(
            f"PDCR {name}\nof 64x64x64",
            100,
            volume,
            our_composition(most, stride, side),
            literal_composition(most, stride, side),
        )
        for name, most, stride, side in (
            ("4096 patches", 4096, 4, 32),  # all of enc3
            ("32 patches", 32, 4, 32),  # of enc3 in a training step
            ("64 patches", 64, 2, 14),  # of enc2 in a training step
        )
    ),
    Entry("PDCR loss\n8 x 64 x 64", 1, dragsaw_inputs, our_dragsaw, literal_dragsaw),
]


def once(compute: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    """The result, and the gradients of what asks for one."""
    leaves = [value for value in inputs if value.requires_grad]
    result = compute(*inputs)
    return result.detach(), list(torch.autograd.grad(result, leaves)) if leaves else []


def peak_memory(run: Callable[[], object], device: str) -> float:
    """The most bytes that tensors made by a call take at one time."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return float(torch.cuda.max_memory_allocated() - before)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
        profiler.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    level = most = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        level += event["args"]["Bytes"]
        most = max(most, level)
    return float(most)


def measure(entry: Entry, repeats: int, device: str) -> dict[str, Any]:
    """Times in s, the factors between them, and bytes."""
    inputs = tuple(value.detach().to(device).requires_grad_(value.requires_grad) for value in entry.inputs())
    runs = {name: lambda f=f: once(f, inputs) for name, f in (("literal", entry.literal), ("ours", entry.ours))}
    torch.testing.assert_close(*(run() for run in runs.values()), rtol=1e-3, atol=1e-5)
    memory = {name: peak_memory(run, device) for name, run in runs.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        times["literal"].append(seconds(runs["literal"], device))
        times["ours"] += [seconds(runs["ours"], device) for _ in range(OURS_PER_LITERAL)]
    wall, busy = ({name: [both[i] for both in found] for name, found in times.items()} for i in (0, 1))
    medians = {name: statistics.median(found) for name, found in wall.items()}
    return {
        "goal": entry.goal,
        "literal_s": medians["literal"],
        "ours_s": medians["ours"],
        "factor": medians["literal"] / medians["ours"],
        "factor_of_minima": min(wall["literal"]) / min(wall["ours"]),
        "factor_of_processor_time": statistics.median(busy["literal"]) / statistics.median(busy["ours"]),
        "literal_bytes": memory["literal"],
        "ours_bytes": memory["ours"],
        "wall_and_processor_s": times,
    }


def main() -> None:
    given = options(__doc__, repeats=5)
    about = machine(given.device)
    console = Console()
    console.print(", ".join(f"{key} {value}" for key, value in about.items()))
    table = Table("loss", "goal", "literal", "ours", "medians", "minima", "busy", "memory")
    results = {}
    for entry in ENTRIES:
        if given.only.lower() not in entry.name.lower():
            continue
        row = results[entry.name] = measure(entry, given.repeats, given.device)
        factors = (row[name] for name in ("factor", "factor_of_minima", "factor_of_processor_time"))
        table.add_row(
            entry.name,
            f"{entry.goal:g}x",
            f"{1000 * row['literal_s']:.0f} ms",
            f"{1000 * row['ours_s']:.2f} ms",
            *(f"{factor:.0f}x" for factor in factors),
            f"{row['literal_bytes'] / 1e6:.1f} MB\n{row['ours_bytes'] / 1e6:.1f} MB",
        )
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps({"machine": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
