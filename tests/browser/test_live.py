"""The live page in a browser: it grows without being loaded again, shows what goes wrong, and becomes the report."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from living import ADAMW, DEAD, JUMPS, SGD, WELL, Living, record_of, tracking
from optsweep.launch.browse.ui import listen
from optsweep.launch.live import server as live_server
from optsweep.launch.live.reading import Watching
from optsweep.launch.live.report import LiveFinding
from optsweep.launch.live.server import Feed, LiveServer
from optsweep.launch.live.state import Snapshot
from optsweep.report.comparison import compare
from optsweep.train.trial import End
from patience import PATIENCE_SECONDS
from servers.parts import free_port


class Told(Watching):
    """Looks at real studies; what their runs say is up to the test."""

    def find(self, *seeds: int, reported: bool = False) -> None:
        """So many confirm seeds of each arm are there."""
        record = record_of(*seeds)
        self._finding = LiveFinding(record, compare([record]), reported)

    def _read_runs(self, snapshot: Snapshot) -> None:
        pass


def wait(driver: WebDriver, done: Callable[[], Any]) -> None:
    WebDriverWait(driver, PATIENCE_SECONDS, 0.02).until(lambda _: done())


def count(driver: WebDriver, css: str) -> int:
    return len(driver.find_elements(By.CSS_SELECTOR, css))


def click(driver: WebDriver, css: str, place: int = 0) -> None:
    driver.execute_script("document.querySelectorAll(arguments[0])[arguments[1]].click()", css, place)


def pressed(driver: WebDriver, css: str) -> list[str]:
    found: list[str] = driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((held) => held.getAttribute('aria-pressed'))", css
    )
    return found


def ink(driver: WebDriver) -> str:
    found: str = driver.execute_script("return document.querySelector('#val_loss canvas').toDataURL()")
    return found


def texts(driver: WebDriver, css: str) -> list[str]:
    """At once: what changes by itself may be gone between two questions."""
    found: list[str] = driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((held) => held.textContent)", css
    )
    return found


@dataclass
class Page:
    """A sweep in the middle, with its page in the browser."""

    living: Living
    watching: Told
    feed: Feed
    server: Leaving
    driver: WebDriver

    def row(self, place: int) -> list[str]:
        return texts(self.driver, f"#now tbody tr:nth-child({place}) td")

    def shows(self, css: str, text: str) -> None:
        """Wait until it does."""
        wait(self.driver, lambda: any(text in found for found in texts(self.driver, css)))


class Leaving(LiveServer):
    """A server that takes its connections with it, as a process does that ends."""

    def __init__(self, feed: Feed, listening: socket.socket) -> None:
        self.held: list[socket.socket] = []
        super().__init__(feed, listening)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.held.append(request)
        super().process_request(request, client_address)

    def leave(self) -> None:
        self.shutdown()
        self.server_close()
        for request in self.held:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


def serving(feed: Feed, port: int) -> Leaving:
    server = Leaving(feed, listen(port))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tracking(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def page(
    tmp_path: Path, runs: str, chromium: WebDriver, pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    monkeypatch.setattr(live_server, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(live_server, "final_report", lambda *known: pages["two"].read_text(encoding="utf-8"))
    living = Living(tmp_path)
    watching = Told(living.storage, runs, "s")
    watching.find(2, 2)
    feed = Feed(watching)
    feed.start()
    port = free_port()  # which is given up for a while
    server = serving(feed, port)
    found = Page(living, watching, feed, server, chromium)
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get_log("browser")
    chromium.get(f"http://127.0.0.1:{port}/")
    chromium.execute_script("window.first = true")
    yield found
    chromium.get("about:blank")
    found.server.leave()


def test_it_grows_and_becomes_the_report_without_being_loaded_again(page: Page) -> None:
    living, driver = page.living, page.driver
    page.shows("#now .lead", "0 of 12 trials done")
    living.tell(living.pop(SGD), value=0.25)
    wait(driver, lambda: page.row(1)[1] == "1 of 6" and page.row(1)[-1] == "0.25")
    living.tell(living.pop(ADAMW), End.DIVERGED)
    page.shows("#now .incidents li", "adamw + cosine · search 0")
    page.shows("#now .badge.bad", "diverged")
    living.show(living.pop(ADAMW), WELL)
    living.show(living.pop(SGD), JUMPS)
    page.shows("#now_val .name", "sgd + cosine · search 1")
    page.shows("#now .badge.open", "jumps")
    living.pop(ADAMW, DEAD)
    page.shows("#now .badge.bad", "dead")
    assert driver.execute_script("return window.first") is True
    living.finish()
    page.watching.find(5, 5, reported=True)
    wait(driver, lambda: not count(driver, "#now") and count(driver, "#val_loss"))
    assert driver.find_element(By.ID, "verdict-h").text == "Verdict"
    assert [entry["message"] for entry in driver.get_log("browser")] == []


def test_the_report_below_is_another_and_what_one_did_there_stays(page: Page) -> None:
    driver = page.driver
    driver.execute_script("document.querySelector('#val_loss').scrollIntoView({ behavior: 'instant' })")
    wait(driver, lambda: count(driver, "#val_loss .u-over"))
    click(driver, "#val_loss .arms button", 1)
    click(driver, "#val_loss .tools button")
    driver.execute_script("document.querySelector('#trials details').open = false")
    click(driver, "#arms thead th:nth-child(2) button")
    before = ink(driver)
    page.shows("#val_loss figcaption", "n = 2")
    page.watching.find(5, 5)
    page.shows("#val_loss figcaption", "n = 5")
    wait(driver, lambda: ink(driver) != before)
    assert pressed(driver, "#val_loss .arms button") == ["true", "false"]
    assert pressed(driver, "#val_loss .tools button")[0] == "true"
    page.shows("#trials summary", "(10)")
    assert driver.execute_script("return document.querySelector('#trials details').open") is False
    assert count(driver, "#arms thead th:nth-child(2)[aria-sort=ascending]") == 1
    assert count(driver, "#arms .switch[aria-pressed=false]") == 1
    assert driver.execute_script("return window.first") is True
    assert [entry["message"] for entry in driver.get_log("browser")] == []


def test_it_goes_on_when_its_server_is_back(page: Page) -> None:
    driver, port = page.driver, page.server.server_address[1]
    page.shows("#now .lead", "0 of 12 trials done")
    assert not driver.find_element(By.CSS_SELECTOR, ".away").is_displayed()
    page.server.leave()
    wait(driver, lambda: driver.find_element(By.CSS_SELECTOR, ".away").is_displayed())
    page.living.tell(page.living.pop(SGD))
    page.server = serving(page.feed, int(port))
    page.shows("#now .lead", "1 of 12 trials done")
    assert not driver.find_element(By.CSS_SELECTOR, ".away").is_displayed()
    assert driver.execute_script("return window.first") is True


def test_on_a_phone_nothing_is_out_of_sight(page: Page) -> None:
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.living.show(page.living.pop(SGD), JUMPS)
    page.shows("#now_val .name", "sgd + cosine · search 0")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") == 390
