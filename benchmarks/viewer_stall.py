"""How late the viewer answers while a run goes on and the user scrolls, and how fast the run is meanwhile.

    python benchmarks/viewer_stall.py [--seconds 60] [--scan FILE] [--data FOLDER] [--json FILE]

A napari window shows a scan whose slices are scrolled 20 times a second. A timer of 5 ms in the window's event loop
tells how much later than asked for it is called: what a key press would have to wait. Each line of the table is such a
window for some time: bare and with the dock that watches runs, without a run and with one that was started as the dock
starts it. Then the window is closed, and the same command runs alone.

"cores" is what the window's process computes itself. Without a graphics card (under Xvfb) nearly all of it is the
drawing of the slices in software, which a run then has to share the cores with: compare the lines with each other.
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
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_medcl.training.run import Run

GOAL_P99_MS, GOAL_WORST_MS, GOAL_SPEED = 20, 100, 0.9
_PROBE_MS, _SCROLL_MS = 5, 50
_WARM_UP_S = 10.0
_CONFIG = {"dims": "2d", "minutes": 120, "evaluations": 1, "patch": [64, 64], "width": 8, "batch": 4, "device": "cpu"}
_BARE, _SHOWN = "no dock, no run, scrolled", "run in the dock"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="time for each line")
    parser.add_argument("--scan", type=Path, help="what is scrolled; without it a made-up volume")
    parser.add_argument("--data", type=Path, help="scans with masks to train on; without it made-up ones")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(watched(given, given.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = {**_CONFIG, "folder": str(given.data or made_up(folder / "data"))}
        (folder / "settings.json").write_text(json.dumps(config))
        command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
        environment = {**os.environ, "MEDCL_RUNS": str(folder / "runs"), "XDG_CONFIG_HOME": str(folder / "napari")}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        found.append(alone(given, folder))
    report(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


def report(found: list[dict[str, Any]]) -> None:
    print(f"{'':36} {'p50 ms':>7} {'p99 ms':>7} {'worst':>7} {'cores':>6} {'steps/s':>8} {'load':>5}")
    for one in found:
        late = one.get("late", [])
        told = [f"{value:7.1f}" for value in (*percentiles(late), max(late))] if late else [" " * 7] * 3
        cores, speed = (f"{one[key]:.2f}" if key in one else "" for key in ("cores", "speed"))
        print(f"{one['what']:36} {' '.join(told)} {cores:>6} {speed:>8} {one['load']:5.1f}")
    by_name = {one["what"]: one for one in found}
    late = by_name[f"{_SHOWN}, scrolled"]["late"]
    met = percentiles(late)[1] <= GOAL_P99_MS and max(late) <= GOAL_WORST_MS
    print(f"goal, 99 of 100 within {GOAL_P99_MS} ms and all within {GOAL_WORST_MS} ms: {'met' if met else 'missed'}")
    bare = by_name[_BARE]["late"]
    more = [percentiles(late)[1] - percentiles(bare)[1], max(late) - max(bare)]
    print(f"more than the bare viewer: 99th percentile {more[0]:+.1f} ms, worst {more[1]:+.1f} ms")
    share = by_name[f"{_SHOWN}, not scrolled"]["speed"] / by_name["the command alone"]["speed"]
    print(
        f"goal, at least {GOAL_SPEED:.0%} of the speed alone: {share:.0%}, {'met' if share >= GOAL_SPEED else 'missed'}"
    )


def percentiles(late: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    cuts = statistics.quantiles(late, n=100, method="inclusive")
    return cuts[49], cuts[98]


def watched(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All that is measured with a window."""
    import napari

    from napari_medcl.training import launch

    viewer = napari.Viewer()
    if given.scan is not None:
        viewer.open(given.scan, plugin="medcl")
    else:
        viewer.add_image(np.random.default_rng(0).random((64, 256, 256), np.float32), scale=(2, 1, 1))
    window = Window(viewer, given.seconds)
    found = [window.measure(_BARE)]
    _, dock = viewer.window.add_plugin_dock_widget("medcl", "Runs")
    found.append(window.measure("dock, no run, scrolled"))
    config = json.loads((folder / "settings.json").read_text())
    run = launch.start("finetune", config, folder / "runs" / "shown", now=True)
    try:
        await_steps(run, window.rest)
        found.append(window.measure("run, dock shows none, scrolled", run=run))
        dock.show_run(run)
        found.append(window.measure(f"{_SHOWN}, scrolled", run=run))
        found.append(window.measure(f"{_SHOWN}, not scrolled", run=run, scrolled=False))
    finally:
        run.ask("stop")
        while run.is_alive():
            time.sleep(0.2)
    viewer.close()
    return found


class Window:
    """A viewer whose event loop is watched."""

    def __init__(self, viewer: Any, seconds: float) -> None:
        self._viewer, self._seconds = viewer, seconds

    def rest(self, seconds: float) -> None:
        """Lets the window work."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(round(1000 * seconds), loop.quit)
        loop.exec_() if hasattr(loop, "exec_") else loop.exec()

    def measure(self, what: str, run: Run | None = None, scrolled: bool = True) -> dict[str, Any]:
        """How late the event loop is, in milliseconds at every call of the probe."""
        from qtpy.QtCore import Qt, QTimer

        self.rest(_WARM_UP_S / 2)
        late: list[float] = []
        last = time.perf_counter()

        def look() -> None:
            nonlocal last
            now = time.perf_counter()
            late.append(max(0.0, 1000 * (now - last) - _PROBE_MS))
            last = now

        probe, scroll = QTimer(), QTimer()
        probe.setTimerType(Qt.TimerType.PreciseTimer)
        probe.timeout.connect(look)
        scroll.timeout.connect(self._scroll)
        busy, began = time.process_time(), time.perf_counter()
        last = began
        probe.start(_PROBE_MS)
        if scrolled:
            scroll.start(_SCROLL_MS)
        since = time.time()
        self.rest(self._seconds)
        probe.stop()
        scroll.stop()
        cores = (time.process_time() - busy) / (time.perf_counter() - began)
        found = {"what": what, "late": late, "cores": cores, "load": os.getloadavg()[0]}
        return found if run is None else {**found, "speed": speed(run, since)}

    def _scroll(self) -> None:
        dims = self._viewer.dims
        last = int(dims.nsteps[0]) - 1
        count = int(time.perf_counter() * 1000 / _SCROLL_MS) % (2 * last)
        dims.set_current_step(0, min(count, 2 * last - count))


def alone(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The speed of the command when no window is open."""
    from napari_medcl.training.run import Run

    run = Run(folder / "runs" / "alone")
    words = ["finetune", "--config", str(folder / "settings.json"), "--run", str(run.folder), "--now"]
    with subprocess.Popen([sys.executable, "-m", "napari_medcl", *words], stdout=subprocess.DEVNULL) as process:
        await_steps(run, time.sleep)
        since = time.time()
        time.sleep(given.seconds)
        found = {"what": "the command alone", "speed": speed(run, since), "load": os.getloadavg()[0]}
        run.ask("stop")
        process.wait()
    return found


def await_steps(run: Run, rest: Any) -> None:
    """Waits until the run has made some steps."""
    from napari_medcl.training.events import Stepped

    while not isinstance(run.last_event(), Stepped):
        rest(0.2)
    rest(_WARM_UP_S)


def speed(run: Run, since: float) -> float:
    """Steps of the run in a second, since then."""
    from napari_medcl.training.events import Stepped

    said = [event for event in run.events()[0] if isinstance(event, Stepped) and event.time >= since]
    return (said[-1].step - said[0].step) / (said[-1].time - said[0].time)


def made_up(folder: Path) -> Path:
    """Scans with a bright ball that is labelled."""
    import nibabel as nib

    random = np.random.default_rng(0)
    axes = np.ogrid[:160, :160, :16]
    for number in range(6):
        centre = random.uniform(0.3, 0.7, 3) * (160, 160, 16)
        ball = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, (35, 35, 5), strict=True)) < 1
        scan = random.normal(0, 0.3, ball.shape) + ball
        for side, array in (("imagesTr", scan.astype(np.float32)), ("labelsTr", ball.astype(np.uint8))):
            (folder / side).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 8, 1])), folder / side / f"case_{number}.nii.gz")
    return folder


if __name__ == "__main__":
    main()
