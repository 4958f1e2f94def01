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
from collections.abc import Sequence
from pathlib import Path

from gallery import small_png
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By

from optsweep.search.studies import Studies

DRIVER = "/usr/bin/chromedriver"
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
    with tempfile.TemporaryDirectory() as folder:
        sweep = _start(folder, *SWEEP)
        page = _page_of(folder)
        try:
            _film(page, sweep, Path(folder), out, options.width, dark=options.dark)
        finally:
            for process in (page, sweep):
                process.send_signal(signal.SIGINT)
                process.wait(60)


def _start(folder: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "optsweep", *arguments]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _page_of(folder: str) -> subprocess.Popen[str]:
    """The live page's server, once the sweep has begun."""
    while not (Path(folder) / "mlruns/optuna.db").is_file() or not _holders(Path(folder)):
        time.sleep(0.5)
    return _start(folder, "ui", "live", "--live", "--port", "5080", "--no-browser")


def _holders(folder: Path) -> list[str]:
    """Processes that hold trials of the sweep."""
    studies = Studies.open(f"sqlite:///{folder}/mlruns/optuna.db", "live")
    return [sign.process for sign in studies.signs_of_life(300.0) if sign.trials]


def _film(
    page: subprocess.Popen[str], sweep: subprocess.Popen[str], folder: Path, out: Path, width: int, *, dark: bool
) -> None:
    assert page.stdout is not None
    address = re.search(r"http://\S+", page.stdout.readline())
    assert address is not None
    driver = _browser(width, dark=dark)
    try:
        driver.get(address[0])
        for number, share in enumerate(SHARES, 1):
            _wait_for(driver, share)
            if number == len(SHARES):
                _kill_a_worker(folder, driver)
                _wait_for(driver, share)
            _shoot(driver, out / f"live-{number}.png", width)
        while driver.find_elements(By.ID, "now"):
            time.sleep(0.5)
        time.sleep(2)
        _shoot(driver, out / f"live-{len(SHARES) + 1}.png", width)
    finally:
        driver.quit()


def _browser(width: int, *, dark: bool) -> WebDriver:
    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    size = {"width": width, "height": 1700, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return driver


def _wait_for(driver: WebDriver, share: float) -> None:
    bar = "const bar = document.querySelector('progress'); return bar.value / bar.max"
    while driver.execute_script(bar) < share or not driver.find_elements(
        By.CSS_SELECTOR, "#now_val:not(.past) .u-over"
    ):
        time.sleep(0.2)


def _kill_a_worker(folder: Path, driver: WebDriver) -> None:
    """And say how long it takes until that is seen."""
    found = re.search(r"process (\d+)", _holders(folder)[0])
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    begin = time.monotonic()
    seen = "return [...document.querySelectorAll('#now .badge.bad')].some((held) => held.textContent === 'dead')"
    while not driver.execute_script(seen):
        time.sleep(0.02)
    print(f"a killed worker is seen after {time.monotonic() - begin:.1f} s")


def _shoot(driver: WebDriver, path: Path, width: int) -> None:
    driver.execute_script("scrollTo(0, 0)")
    time.sleep(1)
    png: bytes = driver.get_screenshot_as_png()
    path.write_bytes(small_png(png))
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
