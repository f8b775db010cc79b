"""How pre-training grows with the number of scans: from no cache to the end of one epoch.

    python benchmarks/cases.py [--method supercl] [--cases 10 20 40 80] [--threads N] [--json FILE] [--plot FILE]

Scans of 32 slices of 128 x 128 as .nii.gz, learned from in 2D with crops of 96 x 96, 16 a step, width 8. An epoch
has as many crops as there are slices. Every number of scans is a process of its own with an empty cache. *Preparing* is
all until the first step: reading, resampling, superpixels. *Again* is the same from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from timing import machine

SLICES, BATCH = 32, 16


def make(folder: Path, count: int) -> None:
    """Smooth structures with noise, another one in every scan."""
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = ndimage.zoom(random.normal(size=(8, 8, 4)), (16, 16, SLICES / 4), order=1)
        array = (1000 + 300 * coarse + random.normal(0, 20, coarse.shape)).astype(np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 3.0, 1.0])), folder / f"scan{number:03d}.nii.gz")


def one(data: str, run: str, method: str, threads: str) -> None:
    """One epoch, in a process of its own."""
    import napari_medcl as medcl
    from napari_medcl.training.events import Stepped

    torch.set_num_threads(int(threads))
    steps = len([*Path(data).iterdir()]) * SLICES // BATCH
    config = medcl.PretrainConfig.model_validate({
        "folder": data, "method": {"name": method}, "dims": "2d", "patch": (96, 96), "width": 8, "batch": BATCH,
        "steps": steps, "val": 0,
    })  # fmt: skip
    begin, first = time.perf_counter(), 0.0
    for event in medcl.pretrain(config, Path(run)):
        if isinstance(event, Stepped) and not first:
            first = time.perf_counter() - begin
    print(json.dumps({"preparing": first, "steps": steps, "epoch": time.perf_counter() - begin - first}))


def measure(count: int, method: str, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scans").mkdir()
        make(folder / "scans", count)
        environment = {**os.environ, "MEDCL_CACHE": str(folder / "cache")}
        found = []
        for turn in ("first", "again"):
            words = [str(folder / "scans"), str(folder / turn), method, str(threads)]
            shown = subprocess.run(
                [sys.executable, __file__, "--one", *words], capture_output=True, text=True, check=True, env=environment
            )
            found.append(json.loads(shown.stdout.splitlines()[-1]))
    first, again = found
    return {"cases": count, **first, "preparing again": again["preparing"]}


def draw(rows: list[dict[str, Any]], method: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for key, label in (
        ("epoch", "one epoch"),
        ("preparing", "preparing"),
        ("preparing again", "preparing, from cache"),
    ):
        axes.plot([row["cases"] for row in rows], [row[key] for row in rows], marker="o", label=label)
    axes.set(xlabel="scans", ylabel="time (s)", title=method, xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        return one(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="supercl")
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    rows = [measure(count, given.method, given.threads) for count in given.cases]
    table = Table("scans", "preparing", "again", "steps", "one epoch", "a step", title=given.method)
    for row in rows:
        table.add_row(
            str(row["cases"]),
            f"{row['preparing']:.1f} s",
            f"{row['preparing again']:.1f} s",
            str(row["steps"]),
            f"{row['epoch']:.1f} s",
            f"{row['epoch'] / row['steps']:.2f} s",
        )
    Console().print(table)
    if given.plot:
        draw(rows, given.method, given.plot)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine("cpu"), "rows": rows}, indent=1))
    return None


if __name__ == "__main__":
    main()
