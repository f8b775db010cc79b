"""How long the Train dock takes to open in the viewer, until one can press its button.

    python benchmarks/train_dock.py [--repeats 5] [--later 3] [--runs 20] [--scans 2] [--only NAME] [--json FILE]

Each repeat is a process of its own with a napari window that has come to rest. The clock runs from the click on the
menu entry until the form and the button that starts a run have been painted and the window takes the next click. The
first opening also loads what the dock is made of; the later ones, after the dock was closed, do not. Afterwards the
window is watched for two seconds: the longest time that it did not answer is the stall. Without a display it needs
Xvfb (`xvfb-run`).
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
    told = {
        "first opening": [one["openings"][0] for one in found],
        "later openings": [time for one in found for time in one["openings"][1:]],
        "stall after the first": [one["stall"] for one in found],
    }
    for what, times in told.items():
        if times:
            print(f"{what:22} {statistics.median(times):5.0f} ms  ({min(times):.0f} to {max(times):.0f})")
    missed = max(told["first opening"]) > GOAL_MS
    print(f"torch was {'' if any(one['torch'] for one in found) else 'not '}loaded")
    print(f"goal, every first opening in {GOAL_MS} ms: {'missed' if missed else 'met'}")
    if given.json is not None:
        given.json.write_text(json.dumps(told, indent=2) + "\n")


def child(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The times of one viewer."""
    command = [sys.executable, __file__, "--child", "--later", str(given.later), "--scans", str(given.scans)]
    done = subprocess.run(command, env={**os.environ, "MEDCL_RUNS": folder}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def fill(root: Path, runs: int) -> None:
    """Runs that have ended, as the dock lists them."""
    from napari_medcl.training.events import Evaluated, Finished, Started, Stepped
    from napari_medcl.training.run import create

    for number in range(runs):
        stage: Any = ("pretrain", "finetune")[number % 2]
        run = create(stage, {"folder": "scans"}, root / f"2026{number:04}-{stage}")
        run.append(
            Started(
                run=run.name,
                stage=stage,
                device="cpu",
                precision="float32",
                steps=200,
                minutes=None,
                cases=4,
                message="4 scans",
            )  # fmt: skip
        )
        for step in range(200):
            run.append(Stepped(step=step, progress=step / 200, terms={"dice": 1 / (step + 1)}, rate=1, remaining_s=1))
        if stage == "finetune":
            run.append(Evaluated(step=200, dice={"organ": 0.8}, mean=0.8, best=True))
        (run.folder / "checkpoints" / "last.safetensors").touch()
        run.append(Finished(step=200, reason="done", message="Done."))


def measure(later: int, scans: int) -> dict[str, Any]:
    """Times in milliseconds: of the openings, and the longest stall after the first."""
    import napari
    import numpy as np
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    for number in range(scans):
        scan = np.random.default_rng(number).random((24, 64, 64), np.float32)
        viewer.add_image(scan, name=f"scan {number}")
        viewer.add_labels((scan > 0.5).astype(int), name=f"mask {number}")
    rest()
    openings, stall = [], 0.0
    for number in range(1 + later):
        began = time.perf_counter()
        _, dock = viewer.window.add_plugin_dock_widget("medcl", "Train")
        pane = dock.stages["pretrain"]
        watch = Painted(pane.form)
        while not (watch.painted and pane.start.isEnabled()):
            QApplication.processEvents()
        QApplication.processEvents()
        openings.append(1000 * (time.perf_counter() - began))
        longest = rest()
        if number == 0:
            stall = 1000 * longest
        viewer.window.remove_dock_widget(dock)
        rest()
    viewer.close()
    return {"openings": openings, "stall": stall, "torch": "torch" in sys.modules}


def rest() -> float:
    """Lets the window work for a while; gives the longest time that it did not answer, in seconds."""
    from qtpy.QtWidgets import QApplication

    longest, end = 0.0, time.perf_counter() + _REST_S
    while (began := time.perf_counter()) < end:
        QApplication.processEvents()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.001)
    return longest


def Painted(widget: Any) -> Any:  # noqa: N802 - a class that is made late: Qt is not loaded in the parent
    """Watches whether a widget has been painted."""
    from qtpy.QtCore import QEvent, QObject

    class Watch(QObject):  # type: ignore[misc]
        painted = False

        def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802
            self.painted = self.painted or event.type() == QEvent.Type.Paint
            return False

    watch = Watch(widget)
    widget.installEventFilter(watch)
    return watch


if __name__ == "__main__":
    main()
