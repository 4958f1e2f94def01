"""Figures one can touch, in a browser: read off, switched, zoomed, by mouse and keyboard, wide, narrow and dark."""

from __future__ import annotations

from contextlib import suppress

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browsing import Open, all_of, chart, emulate, ink, texts, wait


def test_a_pointer_reads_off_every_arm(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    assert texts(chromium, "#val_loss .value") == ["", ""]
    ActionChains(chromium).move_to_element(chart(chromium)).perform()
    wait(chromium, lambda: texts(chromium, "#val_loss .at") != [""])
    step = int(texts(chromium, "#val_loss .at")[0].removeprefix("at step "))
    assert 150 < step < 260
    above = 2 * (1 - step / 400) ** 2  # conftest.py's curves, whose seeds' noise has a mean of zero
    assert [text.partition(" ± ")[0] for text in texts(chromium, "#val_loss .value")] == [
        f"{2.0 + above:.4f}",
        f"{2.2 + above:.4f}",
    ]
    assert {text.partition(" ± ")[2] for text in texts(chromium, "#val_loss .value")} == {"0.0094"}


def test_an_arm_is_switched_in_every_chart_by_legend_and_by_table(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    before = ink(chromium)
    legend = all_of(chromium, "#val_loss .arms button")[1]
    table = all_of(chromium, "#arms .switch")[1]
    assert "adamw + cosine" in (table.get_attribute("aria-label") or "")
    legend.click()
    assert {button.get_attribute("aria-pressed") for button in (legend, table)} == {"false"}
    assert ink(chromium) != before
    table.click()
    assert {button.get_attribute("aria-pressed") for button in (legend, table)} == {"true"}
    ActionChains(chromium).move_to_element(all_of(chromium, "#arms th")[1]).perform()  # not above an arm's switch
    wait(chromium, lambda: ink(chromium) == before)


def test_zoom_and_axes_and_back(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    plot, before = chart(chromium), ink(chromium)
    log_y, log_x, reset = all_of(chromium, "#val_loss .tools button")
    assert not reset.is_enabled()
    ActionChains(chromium).move_to_element_with_offset(plot, -60, 0).click_and_hold().move_by_offset(
        120, 0
    ).release().perform()
    wait(chromium, reset.is_enabled)
    assert ink(chromium) != before
    reset.click()
    assert not reset.is_enabled()
    ActionChains(chromium).move_to_element(log_x).perform()
    wait(chromium, lambda: ink(chromium) == before)
    for flag in (log_y, log_x):
        flag.click()
        assert flag.get_attribute("aria-pressed") == "true"
        assert ink(chromium) != before
        flag.click()
        wait(chromium, lambda: ink(chromium) == before)


def test_everything_by_keyboard(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    place = chromium.find_element(By.CSS_SELECTOR, "#val_loss .canvas")
    place.send_keys(Keys.END)
    said = chromium.find_element(By.CSS_SELECTOR, ".said")
    assert "at step 400: soap + cosine 2.0000 ± " in (said.get_attribute("textContent") or "")
    place.send_keys(Keys.LEFT)
    place.send_keys(Keys.DOWN, Keys.DOWN)
    heard = said.get_attribute("textContent") or ""
    assert heard.startswith("at step 390: adamw + cosine")
    assert "soap" not in heard, "of one arm that was chosen"
    place.send_keys("+")
    reset = all_of(chromium, "#val_loss .tools button")[2]
    assert reset.is_enabled()
    place.send_keys(Keys.ESCAPE)
    assert not reset.is_enabled()


def test_of_many_arms_the_nearest_is_named_and_the_best_can_be_left_alone(browse: Open, chromium: WebDriver) -> None:
    browse("twelve")
    assert texts(chromium, "#val_loss .name")[:2] == ["soap + cosine", "soap + wsd"]
    assert texts(chromium, "#val_loss .tag") == ["baseline"]
    ActionChains(chromium).move_to_element_with_offset(chart(chromium), 0, 90).perform()
    wait(chromium, lambda: all_of(chromium, "#val_loss .near"))
    (near,) = texts(chromium, "#val_loss .near .name")
    assert near in texts(chromium, "#val_loss .at")[0]
    *_, best = all_of(chromium, "#val_loss .tools button")
    best.click()
    assert len(all_of(chromium, "#val_loss .arms [aria-pressed=true]")) == 7
    cells = chromium.find_element(By.ID, "grid").find_elements(By.CSS_SELECTOR, "svg text")
    assert {"2.000", "2.360"} <= {cell.text for cell in cells}, "the lowest and the highest"


def test_no_column_of_the_table_is_out_of_sight(browse: Open, chromium: WebDriver) -> None:
    browse("twelve")
    assert chromium.execute_script(
        "return [...document.querySelectorAll('#arms .scroll')].every((held) => held.scrollWidth <= held.clientWidth)"
    )


@pytest.mark.parametrize("name", ["two", "twelve"])
def test_a_phone_shows_all_of_it(browse: Open, chromium: WebDriver, name: str) -> None:
    browse(name, 390)
    assert chromium.execute_script("return document.documentElement.scrollWidth") == 390
    widths = "return [...document.querySelectorAll('.touch *')].every((e) => e.getBoundingClientRect().right <= 390)"
    assert chromium.execute_script(widths)


def test_colours_follow_the_page_into_the_dark(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    light = ink(chromium)
    emulate(chromium, dark=True)
    wait(chromium, lambda: ink(chromium) != light)
    changed = ink(chromium)
    browse("two", dark=True)
    assert ink(chromium) == changed


def height(driver: WebDriver, css: str) -> float:
    """Of what is on a page whose scripts don't run; 0 where there is none, or the page is only just being made."""
    with suppress(WebDriverException):  # ids of nodes are good until then
        root = driver.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        if found := driver.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": css})["nodeId"]:
            return float(driver.execute_cdp_cmd("DOM.getBoxModel", {"nodeId": found})["model"]["height"])
    return 0.0


def test_paper_and_a_browser_without_scripts_have_the_figures_as_drawn(browse: Open, chromium: WebDriver) -> None:
    browse("two")
    drawn, live = (chromium.find_element(By.CSS_SELECTOR, f"#val_loss {css}") for css in (".plot", ".touch"))
    assert (drawn.is_displayed(), live.is_displayed()) == (False, True)
    emulate(chromium, media="print")
    assert (drawn.is_displayed(), live.is_displayed()) == (True, False)
    emulate(chromium)
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.refresh()
        wait(chromium, lambda: height(chromium, "#val_loss .plot svg") > 100)
        assert height(chromium, "#val_loss .touch") == 0
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        chromium.refresh()
