"""Pages of 36 arms and 1,000 trials in Chromium: MLflow's and the report's, first paint and frames under a pointer.

Needs Debian's chromium and chromium-driver and the extra `browser`. Headless and without a GPU, so that what is painted
is painted by the CPU. The store is made up (tests/synthetic_store.py). Also the size of a page of two arms, and
from `optsweep ui` to their curves with both ends of their intervals, with the memory of all its processes.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from benchmarks.side_by_side import Figure, SkippedError

from optsweep.launch.tracked.curves import summarise_arms
from optsweep.launch.tracked.home import prepare_views
from optsweep.report import write_report
from optsweep.tracking import store
from optsweep.tracking.writer import Tracker
from synthetic_store import DEFAULT, arm, fill

OPTIMIZERS = ("adamw", "soap", "lion", "muon", "lamb", "sgd", "adagrad", "rmsprop", "adam")
SCHEDULES = ("cosine", "linear", "wsd", "schedule_free")
ROUNDS = 5
FRAMES = 240
PORT = 5480

_CURVES = """
const drawn = [...document.querySelectorAll(".js-plotly-plot")].flatMap((plot) => plot.data ?? []);
return new Set(drawn.filter((trace) => trace.metricKey?.startsWith("val/loss")).map((t) => t.name + t.metricKey)).size;
"""

_HOVER = """
const [frames, done] = arguments;
const over = document.querySelector("#val_loss .u-over"), box = over.getBoundingClientRect();
let count = 0, last = null;
const between = [];
const frame = (now) => {
  if (last !== null) between.push(now - last);
  last = now;
  const clientX = box.left + box.width * (0.5 + 0.45 * Math.sin(count / 17));
  const clientY = box.top + box.height * (0.5 + 0.45 * Math.sin(count / 11));
  over.dispatchEvent(new MouseEvent("mousemove", { clientX, clientY, bubbles: true, movementX: 3, movementY: 3 }));
  if (++count <= frames) requestAnimationFrame(frame);
  else done(between);
};
requestAnimationFrame(frame);
"""


def run(device: torch.device) -> Iterator[Figure]:
    """Six figures."""
    try:
        from selenium import webdriver  # noqa: F401
    except ImportError:
        raise SkippedError("needs selenium: pip install 'optsweep[browser]'") from None
    if shutil.which("chromedriver") is None:
        raise SkippedError("needs Debian's chromium and chromium-driver")
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        store.check(uri)
        arms = [
            arm("charlm", o, s, final=2 + place / 40 + at / 90)
            for place, o in enumerate(OPTIMIZERS)
            for at, s in enumerate(SCHEDULES)
        ]
        fill(uri, "many", arms, trials=20, seeds=8, rungs=100, num_steps=2000)
        fill(uri, "two", DEFAULT, trials=16, seeds=8, rungs=40)
        for name, held in (("many", arms), ("two", DEFAULT)):
            _summarised(uri, name, [a.name for a in held])
        many, two = (write_report(uri, [name], Path(folder) / name, attach=False).index for name in ("many", "two"))
        bytes_of = {page: page.stat().st_size / 1e6 for page in (many, two)}
        begun = [_from_the_command(uri, "two", 2) for _ in range(3)]
        listed = [_from_the_command(uri, "many", 10) for _ in range(3)]  # arms, as many as MLflow draws
        paints, frames = zip(*(_looked_at(many) for _ in range(ROUNDS)), strict=True)
    seconds = [whole for whole, _, _ in begun]
    yield _figure("two arms: `optsweep ui` to curves and bands", f"{median(seconds):.1f} s", "–", seconds, 10, "s")
    memory = [held for _, _, held in begun]
    yield _figure("its memory, all processes", f"{median(memory):.0f} MB", "–", memory, 700, "MB")
    opened = [page for _, page, _ in listed]
    yield _figure("36 arms, 1,000 trials: MLflow's page", f"{median(opened):.1f} s", "–", opened, 5, "s")
    beside = f"{bytes_of[many]:.1f} MB"
    yield _figure("36 arms, 1,000 trials: first paint", f"{median(paints):.0f} ms", beside, paints, 1000, "ms")
    slow = f"95 % of frames within {median(sorted(f)[int(0.95 * len(f))] for f in frames):.1f} ms"
    rates = [1000 * len(held) / sum(held) for held in frames]
    yield _figure("36 arms: hover", f"{median(rates):.1f} frames a second", slow, rates, 59, "/s", at_least=True)
    size = bytes_of[two]
    yield _figure("two arms: the page", f"{size:.2f} MB", "–", [size], 1.5, "MB")


def _summarised(uri: str, sweep: str, arms: Sequence[str]) -> None:
    """As the end of a sweep leaves its arms."""
    tracker = Tracker(uri, sweep)
    summarise_arms(tracker, {name: tracker.arm_run(name, name) for name in arms})
    prepare_views(uri, sweep)


def _from_the_command(uri: str, sweep: str, arms: int) -> tuple[float, float, float]:
    """Seconds from `optsweep ui`, and from the address, to three curves of so many arms; megabytes of the server.

    The browser is there already; no click is made.
    """
    command = [sys.executable, "-m", "optsweep", "ui", sweep, "--no-browser", f"--port={PORT}", f"--tracking-uri={uri}"]
    with _browser() as driver:
        begun = time.monotonic()
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            address = next(line for line in server.stdout if line.startswith("http"))
            answered = time.monotonic()
            driver.get(address.strip())
            while driver.execute_script(_CURVES) < 3 * arms:
                time.sleep(0.05)
            seen = time.monotonic()
            tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            held = sum(process.memory_info().rss for process in tree) / 1e6
            server.send_signal(signal.SIGINT)
    return seen - begun, seen - answered, held


def _looked_at(page: Path) -> tuple[float, list[float]]:
    """Milliseconds to the first paint, and between frames while a pointer moves over a chart."""
    with _browser() as driver:
        driver.get(page.as_uri())
        paint = driver.execute_script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
        driver.execute_script("document.querySelector('#val_loss').scrollIntoView({ behavior: 'instant' })")
        time.sleep(1)
        driver.set_script_timeout(60)
        return paint, driver.execute_async_script(_HOVER, FRAMES)


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or ""))
    try:
        yield driver
    finally:
        driver.quit()


def _figure(
    what: str, ours: str, against: str, found: Sequence[float], target: float, unit: str, *, at_least: bool = False
) -> Figure:
    known: dict[str, Any] = {"rounds": len(found), "expected": "", "target": target, "unit": unit}
    return Figure(what, ours, against, median(found), min(found), max(found), at_least=at_least, **known)
