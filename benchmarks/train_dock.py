"""How long the Train dock takes to open in the viewer, until one can press its button.

    python benchmarks/train_dock.py [--repeats 5] [--later 3] [--runs 20] [--scans 2] [--json FILE]

Each repeat is a process of its own with a napari window that has come to rest. The clock runs from the call that opens
the dock until its form has been painted, the button that starts a run is enabled, and the window takes the next click.
The first opening also loads what the dock is made of; the later ones, after the dock was closed, do not. "Busy" is the
processor time of the first opening, which other load on the machine changes less. Then the window is watched for two
seconds: the stall is the longest time that it did not answer. Without a display: `xvfb-run python …`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOAL_MS = 500
_REST_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="viewers that are started")
    parser.add_argument("--later", type=int, default=3, help="openings in each viewer after the first")
    parser.add_argument("--runs", type=int, default=20, help="runs that the runs folder holds")
    parser.add_argument("--scans", type=int, default=2, help="scans that are open, each with a mask")
    parser.add_argument("--json", type=Path, help="where to write all times")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.later, given.scans)))
        return
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), given.runs)
        found = [child(given, folder) for _ in range(given.repeats)]
    times = {name: [time for one in found for time in one[name]] for name in ("first", "busy", "later", "stall")}
    for name, all_ms in times.items():
        if all_ms:
            print(f"{name:6} {statistics.median(all_ms):5.0f} ms  ({min(all_ms):.0f} to {max(all_ms):.0f})")
    print(f"torch was {'' if any(one['torch'] for one in found) else 'not '}loaded")
    met = statistics.median(times["first"]) <= GOAL_MS
    print(f"goal, the median of the first openings at most {GOAL_MS} ms: {'met' if met else 'missed'}")
    if given.json is not None:
        given.json.write_text(json.dumps(times, indent=2) + "\n")


def child(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The times of one viewer."""
    command = [sys.executable, __file__, "--child", "--later", str(given.later), "--scans", str(given.scans)]
    done = subprocess.run(
        command, env={**os.environ, "MEDCL_RUNS": folder}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def fill(root: Path, runs: int) -> None:
    """Runs that have ended, as the dock lists them."""
    from napari_medcl.training.events import Finished, Started, Stepped
    from napari_medcl.training.run import create

    for number in range(runs):
        stage: Any = ("pretrain", "finetune")[number % 2]
        run = create(stage, {"folder": "scans"}, root / f"2026{number:04}-{stage}")
        about: Any = {"device": "cpu", "precision": "float32", "minutes": None, "cases": 4, "message": "4 scans"}
        run.append(Started(run=run.name, stage=stage, steps=200, **about))
        for step in range(200):
            run.append(Stepped(step=step, progress=step / 200, terms={"dice": 1 / (step + 1)}, rate=1, remaining_s=1))
        run.append(Finished(step=200, reason="done", message="Done."))
        (run.folder / "checkpoints" / "last.safetensors").touch()


def measure(later: int, scans: int) -> dict[str, Any]:
    """Times of one viewer, in milliseconds."""
    import napari
    import numpy as np

    viewer = napari.Viewer()
    for number in range(scans):
        scan = np.random.default_rng(number).random((24, 64, 64), np.float32)
        viewer.add_image(scan, name=f"scan {number}")
        viewer.add_labels((scan > 0.5).astype(int), name=f"mask {number}")
    rest()
    walls = []
    for number in range(1 + later):
        began, began_busy = time.perf_counter(), time.process_time()
        dock = opened(viewer)
        walls.append(1000 * (time.perf_counter() - began))
        if number == 0:
            busy, stall = 1000 * (time.process_time() - began_busy), 1000 * rest()
        viewer.window.remove_dock_widget(dock)
        rest()
    viewer.close()
    return {"first": walls[:1], "busy": [busy], "later": walls[1:], "stall": [stall], "torch": "torch" in sys.modules}


def opened(viewer: Any) -> Any:
    """The dock, when it can be used."""
    from qtpy.QtCore import QEvent, QObject
    from qtpy.QtWidgets import QApplication

    class Watch(QObject):  # type: ignore[misc]
        painted = False

        def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802
            self.painted = self.painted or event.type() == QEvent.Type.Paint
            return False

    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Train")
    pane = dock.stages["pretrain"]
    watch = Watch(pane)
    pane.form.installEventFilter(watch)
    while not (watch.painted and pane.start.isEnabled()):
        QApplication.processEvents()
    QApplication.processEvents()
    return dock


def rest() -> float:
    """Lets the window work for a while; gives the longest time that it did not answer, in seconds."""
    from qtpy.QtWidgets import QApplication

    longest, end = 0.0, time.perf_counter() + _REST_S
    while (began := time.perf_counter()) < end:
        QApplication.processEvents()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.001)
    return longest


if __name__ == "__main__":
    main()
