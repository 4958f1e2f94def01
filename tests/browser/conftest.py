"""A headless Chromium, and pages of made-up sweeps in it. `make test-browser` runs these tests; `make test` doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from hand_sweeps import NOISE, arm, sweep
from optsweep.report import write
from optsweep.tracking import names
from optsweep.tracking.reader import ArmRecord, Curve

DRIVER = "/usr/bin/chromedriver"  # Debian's, of the same version as its browser


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
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()
