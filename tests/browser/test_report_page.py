"""The report's page in a browser: open to everybody (axe-core), sorted by a click or a key, led on to MLflow."""

from __future__ import annotations

from importlib.metadata import files
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browsing import Open, all_of, texts, wait

GRAVE = {"serious", "critical"}
_ALL_IN_SIGHT = """
document.querySelectorAll("details").forEach((held) => (held.open = true));
const style = document.createElement("style");
style.textContent = "* { content-visibility: visible !important }";
document.head.append(style);
"""
_RUN = "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found));"


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core, as a package for another client of browsers brings it."""
    (held,) = (file for file in files("axe-playwright-python") or [] if file.name == "axe.min.js")
    return held.read_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["small", "twelve"])
def test_nothing_shuts_anybody_out(
    browse: Open, chromium: WebDriver, axe: str, name: str, width: int, dark: bool
) -> None:
    browse(name, width, dark=dark)
    chromium.execute_script(_ALL_IN_SIGHT)
    chromium.execute_script(axe)
    found = chromium.execute_async_script(_RUN)
    assert found["passes"]
    assert [
        (rule["impact"], rule["id"], [node["html"][:200] for node in rule["nodes"]])
        for rule in found["violations"]
        if rule["impact"] in GRAVE
    ] == []


def test_a_table_is_sorted_by_a_click_and_by_a_key(browse: Open, chromium: WebDriver) -> None:
    browse("twelve")
    arms = "#arms tbody th"
    before = texts(chromium, arms)
    head = next(button for button in all_of(chromium, "#arms thead button") if button.text.startswith("Test loss"))
    column = head.find_element(By.XPATH, "..")
    head.click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert texts(chromium, arms) == before, "which is how it begins: the best first"
    head.send_keys(Keys.ENTER)
    assert column.get_attribute("aria-sort") == "descending"
    assert texts(chromium, arms) == before[::-1]


def test_every_way_to_mlflow_leads_to_its_pages_for_training(browse: Open, chromium: WebDriver) -> None:
    browse("small")
    led = [link.get_attribute("href") or "" for link in all_of(chromium, "a[href^=http]")]
    assert len(led) > 20
    assert {urlsplit(address).netloc for address in led if "workflowType=machine_learning" not in address} == set()


def test_one_gets_to_the_verdict_by_keyboard_alone(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    chromium.refresh()  # as one comes to it, before anything has been scrolled to
    chromium.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = chromium.switch_to.active_element
    assert skip.text == "Skip to the verdict"
    skip.send_keys(Keys.ENTER)
    wait(chromium, lambda: chromium.current_url.endswith("#verdict"))
