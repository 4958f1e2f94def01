"""What tests do in a browser: wait, look, and pretend to another screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from patience import PATIENCE_SECONDS

Open = Callable[..., None]
"""Opens a page by its name, at a width, light or dark."""

_AT_REST = """
const done = arguments[0], drawn = () => document.querySelector("#val_loss canvas").toDataURL();
let before = drawn(), same = 0;
const look = () => {
  const now = drawn();
  same = now === before ? same + 1 : 0;
  before = now;
  if (same < 5) requestAnimationFrame(look); else done();
};
requestAnimationFrame(look);
"""
"""Sizes are told to whoever draws in the frame in which they change, however late that is."""


@dataclass(frozen=True)
class Served:
    """A real sweep, as `optsweep ui` serves it."""

    address: str  # that it said
    report: Path

    def page(self, path: str) -> str:
        """The address of one of the server's pages."""
        return urljoin(self.address, path)


def sized(driver: WebDriver, width: int, height: int = 900) -> None:
    """A screen that is so wide; a phone's where it is narrow."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def emulate(driver: WebDriver, *, dark: bool = False, media: str = "") -> None:
    """Light or dark, on a screen or on paper; where one scrolls to is there at once."""
    known = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in known.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def chart(driver: WebDriver) -> WebElement:
    """The validation losses, which are drawn once they come into sight."""
    driver.execute_script("document.querySelector('#val_loss').scrollIntoView()")
    wait(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "#val_loss .u-over"))
    driver.execute_async_script(_AT_REST)
    return driver.find_element(By.CSS_SELECTOR, "#val_loss .u-over")


def wait(driver: WebDriver, done: Callable[[], Any]) -> None:
    WebDriverWait(driver, PATIENCE_SECONDS, 0.02).until(lambda _: done())


def all_of(driver: WebDriver, css: str) -> list[WebElement]:
    found: list[WebElement] = driver.find_elements(By.CSS_SELECTOR, css)
    return found


def texts(driver: WebDriver, css: str) -> list[str]:
    return [element.get_attribute("textContent") or "" for element in all_of(driver, css)]


def ink(driver: WebDriver) -> str:
    """The chart as it is drawn."""
    found: str = driver.execute_script("return document.querySelector('#val_loss canvas').toDataURL()")
    return found


def complaints(driver: WebDriver) -> list[str]:
    """What the browser's console says is wrong, since it was asked last."""
    untyped: Any = driver
    said: list[dict[str, str]] = untyped.get_log("browser")
    return [entry["message"] for entry in said if entry["level"] == "SEVERE"]


def fetched(driver: WebDriver) -> list[str]:
    """Addresses that the page has asked for."""
    found: list[str] = driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    return found
