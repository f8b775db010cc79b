"""What scans cost before anything is computed with them: opening one, and dividing one into superpixels.

    xvfb-run python benchmarks/scans.py [--repeats 3] [--only opening|superpixels] [--json FILE]

*opening*: a file of 512 x 512 x 300 voxels (.nii.gz, .nii) opened in a viewer that is there, until the picture of a
slice is painted, beside nibabel's own read of all voxels; in turn, after a warm-up that also brings the file into
memory. Needs a screen; xvfb-run makes one. *superpixels*: 100 of each of 100 slices of 512 x 512, by MedCL on all
cores, beside scikit-image's loop over slices with the same settings on one; then the second time, from the cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from rich.console import Console
from scipy import ndimage
from timing import machine

if TYPE_CHECKING:
    from collections.abc import Callable


def medians(
    ways: dict[str, Callable[[], object]], repeats: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            before()
            begin = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(some) for name, some in times.items()}


def scan(shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth structures with noise, as 12-bit numbers."""
    random = np.random.default_rng(0)
    coarse = ndimage.zoom(
        random.normal(size=[max(2, n // 32) for n in shape]), [n / max(2, n // 32) for n in shape], order=1
    )
    return (1000 + 300 * coarse + random.normal(0, 20, shape)).astype(np.int16)


def opening(repeats: int) -> dict[str, dict[str, float]]:
    import napari

    found = {}
    viewer = napari.Viewer()

    def painted(path: str) -> None:
        viewer.open(path, plugin="medcl")
        viewer.screenshot(flash=False)

    with tempfile.TemporaryDirectory() as folder:
        image = nib.Nifti1Image(scan((512, 512, 300)), np.diag([-0.7, -0.7, 1.0, 1.0]))
        for suffix in (".nii.gz", ".nii"):
            path = str(Path(folder) / f"scan{suffix}")
            nib.save(image, path)
            found[suffix] = medians(
                {
                    "MedCL": lambda path=path: painted(path),
                    "nibabel": lambda path=path: np.asarray(nib.load(path, mmap=False).dataobj),
                },
                repeats,
                before=viewer.layers.clear,
            )
    viewer.close()
    return found


def superpixels(repeats: int) -> dict[str, float]:
    from skimage.segmentation import slic

    from napari_medcl.data.superpixels import ROUNDS, SuperpixelSettings, _scaled, cached_superpixels
    from napari_medcl.data.superpixels import superpixels as ours

    settings, array = SuperpixelSettings(), scan((100, 512, 512))

    def loop() -> list[np.ndarray]:
        return [
            slic(
                _scaled(one)[..., None], n_segments=settings.segments, compactness=settings.compactness, sigma=0,
                max_num_iter=ROUNDS, channel_axis=-1, convert2lab=False, start_label=1,
            )
            for one in array
        ]  # fmt: skip

    assert np.array_equal(np.stack(loop()), ours(array[None], settings))
    times = medians({"MedCL": lambda: ours(array[None], settings), "scikit-image": loop}, repeats)
    with tempfile.TemporaryDirectory() as folder:
        cached_superpixels(array[None], settings, folder=Path(folder))
        again = medians({"again": lambda: cached_superpixels(array[None], settings, folder=Path(folder))}, repeats)
    return times | again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["opening", "superpixels"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    console = Console()
    if given.only != "superpixels":
        found["opening"] = opening(given.repeats)
        for suffix, times in found["opening"].items():
            ratio = times["MedCL"] / times["nibabel"]
            console.print(
                f"opening {suffix}: {times['MedCL']:.2f} s, nibabel {times['nibabel']:.2f} s, ratio {ratio:.2f}"
            )
    if given.only != "opening":
        times = found["superpixels"] = superpixels(given.repeats)
        console.print(
            f"superpixels: {times['MedCL']:.1f} s, scikit-image {times['scikit-image']:.1f} s, "
            f"{times['scikit-image'] / times['MedCL']:.2f} times as fast; again {times['again']:.2f} s"
        )
    if given.json:
        given.json.write_text(json.dumps({"machine": machine("cpu"), **found}, indent=1))


if __name__ == "__main__":
    main()
