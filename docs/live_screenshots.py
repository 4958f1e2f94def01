"""Films the live page of a real sweep: three pictures, at its start, in the middle and at the end.

    python docs/live_screenshots.py [--out docs/images] [--width 1280] [--dark]

Needs Debian's chromium and chromium-driver, and `pip install optsweep[browser]`. It takes about two minutes; one worker
is killed on the way, and one arm's learning rates reach far enough for some trials to diverge.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gallery import small_png
from screenshots import Driver, browser, use_screen

from optsweep.search.studies import Studies

HEIGHT = 1700
SWEEP = (
    *("-m", "optimizer=sgd,adamw", "schedule=cosine,constant", "weight_decay=none", "task=digits_mlp"),
    *("search.trials=8", "confirm.seeds=4", "trainer.steps=4000", "trainer.rungs=20", "sweep.name=live"),
    *("search.space.lr.low=1e-3", "search.space.lr.high=30", "hydra.launcher.workers=2"),
)
SHARES = (0.15, 0.85)
"""Of the trials that are done, at the first pictures; the third is of the final report."""


def main(arguments: Sequence[str]) -> None:
    """Run the sweep in a folder of its own, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _started(Path(folder), *SWEEP, out=subprocess.DEVNULL) as sweep:
        _wait_until_it_trains(Path(folder), sweep)
        serve = ("ui", "live", "--live", "--port", "5080", "--no-browser")
        with _started(Path(folder), *serve, out=subprocess.PIPE) as page, browser() as driver:
            use_screen(driver, options.width, HEIGHT, dark=options.dark)
            driver.get(_address(page))
            _film(driver, Path(folder), out)


@contextmanager
def _started(folder: Path, *arguments: str, out: int) -> Iterator[subprocess.Popen[str]]:
    """A command, which is interrupted if it hasn't ended."""
    command = [sys.executable, "-m", "optsweep", *arguments]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=out) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def _wait_until_it_trains(folder: Path, sweep: subprocess.Popen[str]) -> None:
    while not (folder / "mlruns/optuna.db").is_file() or not _holders(folder):
        if sweep.poll() is not None:
            raise SystemExit(f"the sweep has ended with {sweep.returncode} before it trained")
        time.sleep(0.5)


def _address(page: subprocess.Popen[str]) -> str:
    assert page.stdout is not None
    return next(line.strip() for line in page.stdout if line.startswith("http"))


def _holders(folder: Path) -> list[str]:
    """Processes that hold trials of the sweep."""
    studies = Studies.open(f"sqlite:///{folder}/mlruns/optuna.db", "live")
    return [sign.process for sign in studies.signs_of_life(300.0) if sign.trials]


def _film(driver: Driver, folder: Path, out: Path) -> None:
    for number, share in enumerate(SHARES, 1):
        _wait_for(driver, share)
        if number == len(SHARES):
            _kill_a_worker(folder, driver)
            _wait_for(driver, share)
        _shoot(driver, out / f"live-{number}.png")
    while driver.find_elements("id", "now"):
        time.sleep(0.5)
    time.sleep(2)
    _shoot(driver, out / f"live-{len(SHARES) + 1}.png")


def _wait_for(driver: Driver, share: float) -> None:
    bar = "const bar = document.querySelector('progress'); return bar.value / bar.max"
    while driver.execute_script(bar) < share or not driver.find_elements("css selector", "#now_val:not(.past) .u-over"):
        time.sleep(0.2)


def _kill_a_worker(folder: Path, driver: Driver) -> None:
    """And say how long it takes until that is seen."""
    found = re.search(r"process (\d+)", _holders(folder)[0])
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    begin = time.monotonic()
    seen = "return [...document.querySelectorAll('#now .badge.bad')].some((held) => held.textContent === 'dead')"
    while not driver.execute_script(seen):
        time.sleep(0.02)
    print(f"a killed worker is seen after {time.monotonic() - begin:.1f} s")


def _shoot(driver: Driver, path: Path) -> None:
    driver.execute_script("scrollTo(0, 0)")
    time.sleep(1)
    path.write_bytes(small_png(driver.get_screenshot_as_png()))
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
