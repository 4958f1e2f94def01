"""A real sweep in MLflow's pages, as `optsweep ui` opens them: curves at once, prepared views, links, every screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from browsing import Served, all_of, complaints, emulate, fetched, sized
from optsweep.tracking import links
from patience import PATIENCE_SECONDS

ARMS = ["adamw + cosine", "soap + schedule_free"]
_TRACES = """
return [...document.querySelectorAll(".js-plotly-plot")].flatMap((plot) => plot.data ?? [])
  .filter((trace) => trace.hoverinfo !== "skip" && trace.metricKey)
  .map((trace) => [trace.name, trace.metricKey, trace.y.filter((value) => value !== null).length]);
"""
_NOT_YET = (
    NoSuchElementException,
    StaleElementReferenceException,
    ElementNotInteractableException,
    ElementClickInterceptedException,
)
_OWN = "ResizeObserver loop completed"  # MLflow's page sizes charts while it is sized; a browser mentions it


@pytest.fixture
def mlflow(chromium: WebDriver, served: Served) -> Iterator[Served]:
    """The server; whatever a test does there, nothing comes from elsewhere and nothing is complained of."""
    sized(chromium, 1280, 2400)
    emulate(chromium)
    chromium.get("about:blank")
    complaints(chromium)
    yield served
    assert {urlsplit(address).netloc for address in fetched(chromium)} <= {urlsplit(served.address).netloc, ""}
    assert [said for said in complaints(chromium) if _OWN not in said] == []


def patiently(driver: WebDriver, done: Any) -> Any:
    """MLflow's page takes seconds where a machine is busy, comes in parts, and draws them anew meanwhile."""
    return WebDriverWait(driver, PATIENCE_SECONDS, 0.1, _NOT_YET).until(lambda _: done())


def shows(driver: WebDriver, *words: str, within: str = "main") -> str:
    """Wait until it does; returns all that is to be read then."""

    def read() -> str:
        said = driver.find_element(By.TAG_NAME, within).text
        return said if all(word in said for word in words) else ""

    found: str = patiently(driver, read)
    return found


def traces(driver: WebDriver) -> set[tuple[str, str]]:
    """(run, metric) of every curve with points."""
    return {(name, key) for name, key, points in driver.execute_script(_TRACES) if points > 1}


def entered(driver: WebDriver, link: str) -> bool:
    """By keyboard, as by a click."""
    driver.find_element(By.LINK_TEXT, link).send_keys(Keys.ENTER)
    return True


def clicked(driver: WebDriver, css: str) -> bool:
    driver.find_element(By.CSS_SELECTOR, css).click()
    return True


def brightness(driver: WebDriver, tag: str) -> int:
    """Of its background: from 0, black, to 765, also where it has none yet."""
    colour = driver.find_element(By.TAG_NAME, tag).value_of_css_property("background-color")
    *rgb, opacity = f"{colour.partition('(')[2].rstrip(')')},1".split(",")[:4]
    return sum(map(int, rgb)) if float(opacity) else 765


def view(served: Served, name: str) -> str:
    experiment = urlsplit(urlsplit(served.address).fragment).path.split("/")[2]
    return served.page(links.sweep_page(experiment, name))


def opened(driver: WebDriver, address: str) -> None:
    driver.get(address)
    patiently(driver, lambda: all_of(driver, ".js-plotly-plot .main-svg"))


def test_both_arms_with_both_ends_are_there_without_a_click(mlflow: Served, chromium: WebDriver) -> None:
    wanted = {(arm, f"val/loss{end}") for arm in ARMS for end in ("", "_low", "_high")}
    chromium.get(mlflow.address)
    patiently(chromium, lambda: wanted <= traces(chromium))
    patiently(chromium, lambda: len(all_of(chromium, "path.interval")) >= len(ARMS))  # filled between both ends
    titles = ("Validation loss (nats): mean", "Test loss", "Learning rate", "Score")
    said = shows(chromium, *titles, "Is soap + schedule_free better than adamw + cosine on digits_mlp? ")
    places = [said.find(words) for words in titles]
    assert places == sorted(places)
    assert "optsweep.trial" not in said


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("search", ["Loss at the end against what was tried", "log10_lr vs. val/loss", "Parallel Coordinates"]),
        ("seeds", ["Validation loss (nats): mean over runs, lowest to highest", "Group: adamw"]),
        ("cost", ["Cost: ms/step", "cost/state_bytes", "cost/ms_per_step vs. test/loss"]),
    ],
)
def test_a_prepared_view_shows_what_it_is_called(
    mlflow: Served, chromium: WebDriver, name: str, shown: list[str]
) -> None:
    opened(chromium, view(mlflow, name))
    shows(chromium, *shown)


def test_a_chart_is_found_by_its_name_and_read_off(mlflow: Served, chromium: WebDriver) -> None:
    opened(chromium, mlflow.address)
    patiently(chromium, lambda: len(traces(chromium)) > 6)
    looked_for = chromium.find_element(By.CSS_SELECTOR, "input[placeholder='Search metric charts']")
    looked_for.send_keys("train/lr")
    patiently(chromium, lambda: {key for _, key in traces(chromium)} == {"train/lr"})

    def read_off() -> bool:
        plot = chromium.find_element(By.CSS_SELECTOR, ".js-plotly-plot .nsewdrag")
        ActionChains(chromium).move_to_element(plot).perform()
        return any(arm in chromium.find_element(By.TAG_NAME, "body").text for arm in ARMS)

    patiently(chromium, read_off)


def test_an_arm_s_page_has_its_setting_and_little_else_to_read(mlflow: Served, chromium: WebDriver) -> None:
    opened(chromium, mlflow.address)
    patiently(chromium, lambda: entered(chromium, ARMS[0]))
    said = shows(chromium, "weight_decay", "lr", "val/loss_low", "cost/ms_per_step", "outcome", within="body")
    for machine in ('{"', "optsweep.sheet", "fingerprint", "optsweep.space"):
        assert machine not in said


def test_the_description_leads_to_report_and_views(mlflow: Served, chromium: WebDriver) -> None:
    opened(chromium, mlflow.address)
    patiently(chromium, lambda: clicked(chromium, "[data-component-id*=expand_button]"))
    shows(chromium, "The report", "verdict", "search", "seeds", "cost")
    led = {link.text: link.get_attribute("href") or "" for link in all_of(chromium, "main p a")}
    assert {"The report", "verdict", "search", "seeds", "cost"} <= led.keys()
    for address in led.values():
        assert parse_qs(urlsplit(urlsplit(address).fragment).query)["workflowType"] == ["machine_learning"]
    width = "return document.querySelector('main p img')?.naturalWidth ?? 0"
    patiently(chromium, lambda: chromium.execute_script(width) > 100)
    chromium.get(led["The report"])
    patiently(chromium, lambda: all_of(chromium, "iframe"))


def test_a_phone_has_room_for_the_curves(mlflow: Served, chromium: WebDriver) -> None:
    sized(chromium, 390)
    opened(chromium, mlflow.address)

    def has_room() -> bool:
        box = chromium.find_element(By.CSS_SELECTOR, ".js-plotly-plot .nsewdrag").rect
        return bool(box["width"] > 200 and box["x"] + box["width"] <= 390)

    patiently(chromium, has_room)


def test_a_dark_screen_has_a_dark_page(mlflow: Served, chromium: WebDriver) -> None:
    emulate(chromium, dark=True)
    forget = {"origin": urljoin(mlflow.address, "/").rstrip("/"), "storageTypes": "local_storage"}
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", forget)  # of a screen that was light
    try:
        opened(chromium, mlflow.address)
        patiently(chromium, lambda: brightness(chromium, "main") < 200)
    finally:
        chromium.execute_cdp_cmd("Storage.clearDataForOrigin", forget)
