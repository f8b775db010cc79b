"""Twenty volumes on one and on two dask workers of one thread each, and with a worker that is killed in the middle.

    python benchmarks/many.py [--volumes 20] [--json FILE]

The workers are started and have loaded the model before the clock runs. Masks must be the same to the bit, and all of
them there at the end, whatever is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from distributed import LocalCluster
from prediction import model, scan
from timing import machine

from napari_medcl.data.case import Case
from napari_medcl.files import digest
from napari_medcl.many.spread import spread
from napari_medcl.many.work import Segment


def write(folder: Path, count: int) -> list[Case]:
    cases = []
    for number in range(count):
        array = np.roll(scan((96, 128, 128), air=False), number, 0)
        path = folder / f"case{number:02d}.nii"
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1])), path)
        cases.append(Case(path.stem, (path,)))
    return cases


def run(cases: list[Case], weights: Path, out: Path, workers: int, kill: bool = False) -> dict[str, Any]:
    work = Segment(weights, out, device="cpu")
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        address = cluster.scheduler_address
        warm = Segment(weights, out.with_name(f"{out.name}-warm"), device="cpu")
        list(spread(warm, cases[: 2 * workers], scheduler=address))
        begin, results = time.perf_counter(), []
        for result in spread(work, cases, scheduler=address):
            results.append(result)
            if kill and len(results) == len(cases) // 3:
                os.kill(next(iter(cluster.workers.values())).process.pid, signal.SIGKILL)
        seconds = time.perf_counter() - begin
    masks = {case.id: digest(out / f"{case.id}.nii.gz") for case in cases}
    return {"seconds": seconds, "masks": masks, "states": sorted({result.state for result in results})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases, weights = write(folder, given.volumes), model(8, 3).save(folder / "model.safetensors")
        found = {
            "one": run(cases, weights, folder / "one", 1),
            "two": run(cases, weights, folder / "two", 2),
            "killed": run(cases, weights, folder / "killed", 2, kill=True),
        }
    same = [one["masks"] == found["one"]["masks"] for one in found.values()]
    print(f"one worker {found['one']['seconds']:.1f} s, two {found['two']['seconds']:.1f} s: "
          f"{found['one']['seconds'] / found['two']['seconds']:.2f} times as fast")  # fmt: skip
    print(f"with a worker killed {found['killed']['seconds']:.1f} s, {len(found['killed']['masks'])} masks")
    print(f"identical: {all(same)}")
    if given.json:
        given.json.write_text(json.dumps({"machine": machine("cpu"), **found}, indent=1))


if __name__ == "__main__":
    main()
