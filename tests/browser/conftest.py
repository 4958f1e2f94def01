"""A headless Chromium, made-up pages and a real sweep: `make test-browser` runs these tests, `make test` doesn't."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from browsing import Open, Served, chart, complaints, emulate, fetched, sized
from hand_sweeps import NOISE, arm, sweep
from optsweep.report import write
from optsweep.tracking import names
from optsweep.tracking.reader import ArmRecord, Curve
from patience import PATIENCE_SECONDS
from sweeping import run

SWEEP = [
    *("recipe=adamw_cosine,soap_schedulefree", "task=digits_mlp", "task.width=8", "search.trials=4"),
    *("search.over=[lr,weight_decay]", "confirm.seeds=3", "trainer.steps=60", "sweep.name=small"),
]
DRIVER = "/usr/bin/chromedriver"  # Debian's, of the same version as its browser
_SMALL_MEMORY = ("--disable-dev-shm-usage",)  # a container has 64 MB of what is shared otherwise


def made(optimizer: str, schedule: str, final: float) -> ArmRecord:
    """An arm whose curves end near a loss, each seed a little beside the others."""
    found = arm(optimizer, [final + noise for noise in NOISE], schedule=schedule)
    steps = np.arange(10, 401, 10)
    values = final + 2 * (1 - steps / 400) ** 2
    trials = [
        replace(trial, curves={names.VAL_LOSS: Curve(steps, values + noise)})
        for trial, noise in zip(found.trials, NOISE, strict=True)
    ]
    return replace(found, name=f"{optimizer},{schedule}", label=f"{optimizer} + {schedule}", trials=tuple(trials))


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of two arms and one of twelve."""
    arms = [
        made(optimizer, schedule, 2.0 + 0.1 * row + 0.03 * column)
        for row, optimizer in enumerate(("soap", "muon", "adamw", "lion"))
        for column, schedule in enumerate(("cosine", "wsd", "linear"))
    ]
    found = {}
    for name, held in (("two", [arms[6], arms[0]]), ("twelve", [arms[6], *arms[:6], *arms[7:]])):
        found[name] = write.write([sweep(*held)], "sqlite:///none.db", tmp_path_factory.mktemp(name)).index
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[WebDriver]:
    """The browser; each test opens its page anew."""
    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *_SMALL_MEMORY):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(PATIENCE_SECONDS)
    yield driver
    driver.quit()


@pytest.fixture
def browse(chromium: WebDriver, pages: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a page at a width; whatever a test does there, nothing is fetched and nothing is complained of."""

    def open_page(name: str, width: int = 1280, *, dark: bool = False) -> None:
        sized(chromium, width)
        emulate(chromium, dark=dark)
        page = pages[name] if name in pages else request.getfixturevalue("served").report
        chromium.get(page.as_uri())
        chart(chromium)

    yield open_page
    assert fetched(chromium) == []
    assert complaints(chromium) == []


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A sweep of two arms, which takes half a minute, and MLflow's server on it."""
    folder = tmp_path_factory.mktemp("served")
    run(folder, "-m", *SWEEP)
    command = [sys.executable, "-m", "optsweep", "ui", "small", "--no-browser", "--port", "5300"]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        address = next(line for line in server.stdout if line.startswith("http"))
        yield Served(address.strip(), folder / "reports" / "small" / "index.html")
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_SECONDS) == 0
