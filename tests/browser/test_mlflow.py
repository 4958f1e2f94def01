"""A real sweep in MLflow's pages, as `optsweep ui` opens them: curves at once, prepared views, links, every screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from browsing import Served, all_of, complaints, emulate, fetched, sized, texts, wait
from optsweep.tracking import links

ARMS = ["adamw + cosine", "soap + schedule_free"]
_TRACES = """
return [...document.querySelectorAll(".js-plotly-plot")].flatMap((plot) => plot.data ?? [])
  .filter((trace) => trace.hoverinfo !== "skip" && trace.metricKey)
  .map((trace) => [trace.name, trace.metricKey, trace.y.filter((value) => value !== null).length]);
"""
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
    """MLflow's page takes seconds where a machine is busy."""
    return WebDriverWait(driver, 30, 0.1).until(lambda _: done())


def traces(driver: WebDriver) -> set[tuple[str, str]]:
    """(run, metric) of every curve with points."""
    return {(name, key) for name, key, points in driver.execute_script(_TRACES) if points > 1}


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
    said = chromium.find_element(By.TAG_NAME, "main").text
    places = [said.find(words) for words in ("Validation loss (nats): mean", "Test loss", "Learning rate", "Score")]
    assert -1 not in places
    assert places == sorted(places)
    assert "Is soap + schedule_free better than adamw + cosine on digits_mlp? " in said
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
    main = chromium.find_element(By.TAG_NAME, "main")
    for words in shown:
        patiently(chromium, lambda words=words: words in main.text)


def test_a_chart_is_found_by_its_name_and_read_off(mlflow: Served, chromium: WebDriver) -> None:
    opened(chromium, mlflow.address)
    patiently(chromium, lambda: len(traces(chromium)) > 6)
    looked_for = chromium.find_element(By.CSS_SELECTOR, "input[placeholder='Search metric charts']")
    looked_for.send_keys("train/lr")
    patiently(chromium, lambda: {key for _, key in traces(chromium)} == {"train/lr"})
    plot = chromium.find_element(By.CSS_SELECTOR, ".js-plotly-plot .nsewdrag")
    ActionChains(chromium).move_to_element(plot).perform()
    patiently(chromium, lambda: any(arm in chromium.find_element(By.TAG_NAME, "body").text for arm in ARMS))


def test_an_arm_s_page_has_its_setting_and_little_else_to_read(mlflow: Served, chromium: WebDriver) -> None:
    opened(chromium, mlflow.address)
    arm = patiently(chromium, lambda: chromium.find_elements(By.LINK_TEXT, ARMS[0]))[0]
    arm.send_keys(Keys.ENTER)  # by keyboard, as by a click
    patiently(chromium, lambda: "weight_decay" in chromium.find_element(By.TAG_NAME, "body").text)
    said = chromium.find_element(By.TAG_NAME, "body").text
    for word in ("lr", "val/loss_low", "cost/ms_per_step", "outcome"):
        assert word in said
    for machine in ('{"', "optsweep.sheet", "fingerprint", "optsweep.space"):
        assert machine not in said


def test_the_description_leads_to_report_and_views(mlflow: Served, chromium: WebDriver) -> None:
    opened(chromium, mlflow.address)
    chromium.find_element(By.CSS_SELECTOR, "[data-component-id*=expand_button]").click()
    led = {link.text: link.get_attribute("href") or "" for link in all_of(chromium, "main p a")}
    assert {"The report", "verdict", "search", "seeds", "cost"} <= led.keys()
    for address in led.values():
        assert parse_qs(urlsplit(urlsplit(address).fragment).query)["workflowType"] == ["machine_learning"]
    image = chromium.find_element(By.CSS_SELECTOR, "main p img")
    patiently(chromium, lambda: chromium.execute_script("return arguments[0].naturalWidth", image) > 100)
    chromium.get(led["The report"])
    patiently(chromium, lambda: all_of(chromium, "iframe"))


def test_a_phone_has_room_for_the_curves(mlflow: Served, chromium: WebDriver) -> None:
    sized(chromium, 390)
    opened(chromium, mlflow.address)
    box = patiently(chromium, lambda: all_of(chromium, ".js-plotly-plot .nsewdrag"))[0].rect
    assert box["width"] > 200
    assert box["x"] + box["width"] <= 390


def test_a_dark_screen_has_a_dark_page(mlflow: Served, chromium: WebDriver) -> None:
    emulate(chromium, dark=True)
    forget = {"origin": urljoin(mlflow.address, "/").rstrip("/"), "storageTypes": "local_storage"}
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", forget)  # of a screen that was light
    try:
        opened(chromium, mlflow.address)
        wait(chromium, lambda: texts(chromium, "main"))
        main = chromium.find_element(By.TAG_NAME, "main").value_of_css_property("background-color")
        assert sum(map(int, main.partition("(")[2].rstrip(")").split(",")[:3])) < 200, main
    finally:
        chromium.execute_cdp_cmd("Storage.clearDataForOrigin", forget)
