"""Prediction of large volumes beside MONAI's sliding_window_inference: time, peak memory, and how both grow.

    python benchmarks/prediction.py [--repeats 3] [--threads N] [--only speed|growth|large] [--json FILE] [--plot FILE]

Every measurement is a process of its own, as MedCL changes how all of its process gets memory, and warms up first.
*speed*: one network, patch, overlap and number format for both; the same volume, with noise everywhere or as a CT with
air about it, in turn; medians of the wall times from the scan to the mask. MONAI's way is its documented one: the whole
output, blended by its Gaussian, then argmax; windows one at a time and in fours. MedCL takes as many as it would by
itself. nnU-Net's predictor runs beside them where nnunetv2 is installed. *growth*: volumes of 1, 2, 4 and 8 times as
many slices: time, and the most memory above what process and model take. *large*: 512 x 512 x 1000 voxels and 8 classes
by MedCL at the scan's own spacing, with a small network, so that it ends soon.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import machine

from napari_medcl.checkpoint import Checkpoint
from napari_medcl.data.plan import Intensity, Plan
from napari_medcl.data.volume import Volume
from napari_medcl.device import autocast, precision
from napari_medcl.inference.predict import Predictor
from napari_medcl.models import NetworkSpec, build

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PATCH, CLASSES, OVERLAP = (64, 64, 64), 8, 0.5
CPU = torch.device("cpu")


def model(width: int, depth: int) -> Checkpoint:
    torch.manual_seed(0)
    spec = NetworkSpec(in_channels=1, classes=CLASSES, spatial_dims=3, width=width, depth=depth)
    ct = Intensity(scheme="dataset", low=-1000, high=1000, mean=0, std=300)
    plan = Plan(channels=1, spatial_dims=3, spacing=(1, 1, 1), patch=PATCH, intensities=(ct,))
    names = {value: str(value) for value in range(CLASSES)}
    return Checkpoint(spec, build(spec).state_dict(), plan, names, "finetune", parts=spec.map_names)


def scan(shape: tuple[int, int, int], air: bool) -> NDArray[np.int16]:
    """Noise, or noise in an ellipse of four fifths by two thirds of the slice, with air about it."""
    random = np.random.default_rng(0)
    array = random.integers(-400, 400, shape, dtype=np.int16)
    if air:
        y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
        array[:, (y / 0.67) ** 2 + (x / 0.8) ** 2 > 1] = -1000
    return array


def ours(checkpoint: Checkpoint, number_format: Any) -> Callable[[NDArray[np.int16]], Any]:
    predictor = Predictor(checkpoint, "cpu", OVERLAP, precision=number_format)
    return lambda array: predictor(Volume(array[None])).labels.array


def monai(checkpoint: Checkpoint, number_format: Any, batch: int = 1) -> Callable[[NDArray[np.int16]], Any]:
    from monai.inferers import sliding_window_inference

    net = checkpoint.build()

    def predict(array: NDArray[np.int16]) -> Any:
        image = torch.from_numpy(checkpoint.plan.conform(Volume(array[None])))[None]
        with torch.inference_mode(), autocast(CPU, precision(CPU, number_format)):
            found = sliding_window_inference(image, PATCH, batch, net, overlap=OVERLAP, mode="gaussian")
            return found.argmax(1)[0].to(torch.uint8).numpy()

    return predict


def fours(checkpoint: Checkpoint, number_format: Any) -> Callable[[NDArray[np.int16]], Any]:
    return monai(checkpoint, number_format, 4)


def nnunet(checkpoint: Checkpoint, number_format: Any) -> Callable[[NDArray[np.int16]], Any]:
    """nnU-Net's own predictor, without mirroring as the others; it computes in float32 on processors."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with redirect_stdout(StringIO()):
        predictor = nnUNetPredictor(OVERLAP, use_mirroring=False, device=CPU, allow_tqdm=False)
    predictor.network = checkpoint.build()
    predictor.configuration_manager = SimpleNamespace(patch_size=[*PATCH])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=CLASSES)

    def predict(array: NDArray[np.int16]) -> Any:
        image = torch.from_numpy(checkpoint.plan.conform(Volume(array[None])))
        return predictor.predict_sliding_window_return_logits(image).argmax(0).to(torch.uint8).numpy()

    return predict


WAYS = {"MedCL": ours, "MONAI": monai, "MONAI, fours": fours}
if find_spec("nnunetv2"):
    WAYS["nnU-Net"] = nnunet
GROWING = ("MedCL", "MONAI")


def speed(repeats: int) -> list[dict[str, Any]]:
    rows = []
    for number_format in ("bfloat16", "float32") if precision(CPU) else ("float32",):
        for air in (False, True):
            ways = [name for name in WAYS if name != "nnU-Net" or number_format == "float32"]
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(repeats):
                for name, some in times.items():
                    some.append(alone(name, (128, 160, 160), 16, 4, air, number_format)["seconds"])
            medians = {name: statistics.median(some) for name, some in times.items()}
            rows.append({"format": number_format, "air": air, **medians, "times": times})
    return rows


def alone(
    way: str, shape: tuple[int, int, int], width: int, depth: int, air: bool, number_format: str = "auto"
) -> dict[str, float]:
    """Time and memory of one volume, in a process of its own."""
    words = (way, *shape, width, depth, int(air), number_format, torch.get_num_threads())
    shown = subprocess.run([sys.executable, __file__, "--one", *map(str, words)], capture_output=True, text=True)
    return json.loads(shown.stdout) if shown.returncode == 0 else {"seconds": float("nan"), "peak_gib": float("nan")}


def one(way: str, z: str, y: str, x: str, width: str, depth: str, air: str, number_format: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    predict = WAYS[way](model(int(width), int(depth)), number_format)
    predict(scan((64, 96, 96), air=False))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    array = scan((int(z), int(y), int(x)), bool(int(air)))
    begin = time.perf_counter()
    predict(array)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({
        "seconds": time.perf_counter() - begin, "peak_gib": peak / 2**20, "above_gib": (peak - before) / 2**20,
    }))  # fmt: skip


def growth() -> list[dict[str, Any]]:
    return [
        {"slices": slices, **{name: alone(name, (slices, 192, 192), 8, 3, air=False) for name in GROWING}}
        for slices in (64, 128, 256, 512)
    ]


def large() -> dict[str, float]:
    return alone("MedCL", (1000, 512, 512), 2, 2, air=True)


def show(found: dict[str, Any], console: Console) -> None:
    if "speed" in found:
        table = Table("number format", "volume", *WAYS, "times MONAI's best", title="128 x 160 x 160, 8 classes")
        for row in found["speed"]:
            ratio = min(row["MONAI"], row["MONAI, fours"]) / row["MedCL"]
            times = [f"{row[name]:.1f} s" if name in row else "" for name in WAYS]
            table.add_row(row["format"], "CT with air" if row["air"] else "noise", *times, f"{ratio:.2f}")
        console.print(table)
    if "growth" in found:
        table = Table(
            "slices", "MedCL", "memory", "MONAI", "memory", "share of memory", title="N x 192 x 192, 8 classes"
        )
        for row in found["growth"]:
            cells = [(row[name]["seconds"], row[name].get("above_gib", float("nan"))) for name in GROWING]
            (s, m), (t, n) = cells
            table.add_row(
                str(row["slices"]), f"{s:.1f} s", f"{m:.2f} GiB", f"{t:.1f} s", f"{n:.2f} GiB", f"{m / n:.2f}"
            )
        console.print(table)
    if "large" in found:
        console.print("512 x 512 x 1000, 8 classes, MedCL:", found["large"])


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, unit in zip(figure.subplots(1, 2), ("seconds", "above_gib"), ("s", "GiB"), strict=True):
        for name in GROWING:
            axes.plot([row["slices"] for row in rows], [row[name].get(key) for row in rows], marker="o", label=name)
        axes.set(xlabel="slices of 192 x 192", ylabel=f"{'time' if unit == 's' else 'memory'} ({unit})", ylim=(0, None))
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        return one(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["speed", "growth", "large"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    parts: dict[str, Callable[[], Any]] = {"speed": lambda: speed(given.repeats), "growth": growth, "large": large}
    found = {name: part() for name, part in parts.items() if given.only in (None, name)}
    show(found, Console())
    if given.plot and "growth" in found:
        draw(found["growth"], given.plot)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine("cpu"), **found}, indent=1))
    return None


if __name__ == "__main__":
    main()
