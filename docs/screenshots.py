"""Takes the docs' screenshots of real sweeps: python docs/screenshots.py [NAME …] [--folder DIR].

Two sweeps of a few minutes are run in DIR (default: a temporary folder); one that has finished there isn't run again.
Needs Debian's chromium and chromium-driver and the extra `browser`. A new picture is one more line in SHOTS.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from gallery import small_png

from optsweep.tracking import links

IMAGES = Path(__file__).resolve().parent / "images"
MOST_BYTES = 200_000  # of one picture
PATIENCE = 40  # seconds for what a page draws
PORT = 5410

SWEEPS = {
    "soap_or_adamw": [
        *("-cn", "soap_schedulefree_vs_adamw_cosine", "search.trials=8", "sweep.repeats=1", "confirm.seeds=5"),
    ],
    "grid": [
        *("-m", "optimizer=adamw,soap,lion,muon", "schedule=cosine,linear,wsd,schedule_free", "task=digits_mlp"),
        *("search.trials=6", "confirm.seeds=4", "trainer.steps=100"),
    ],
}
Driver = Any  # selenium's, which only this script and the browser tests need
Action = Callable[[Driver], None]


@dataclass(frozen=True)
class Shot:
    """One picture: of which sweep and page, on what screen, after doing what."""

    name: str  # of the file
    sweep: str
    view: str = ""  # of MLflow; else the report
    width: int = 1280
    height: int = 900
    dark: bool = False
    ready: str = "#val_loss"  # what has to be there
    before: Action = lambda driver: None


def to(css: str) -> Action:
    """Bring something to the top."""
    return lambda driver: driver.execute_script(f"document.querySelector({css!r}).scrollIntoView()")


def touched(css: str, x: float, y: float) -> Action:
    """Let the pointer rest in a chart that is in sight, at shares of its size."""

    def act(driver: Driver) -> None:
        from selenium.webdriver import ActionChains

        to(css)(driver)
        over = _wait(driver, lambda: driver.find_elements("css selector", f"{css} .u-over"))[0]
        at = (round((x - 0.5) * over.size["width"]), round((y - 0.5) * over.size["height"]))
        to(css)(driver)  # what is above it has been laid out by now
        ActionChains(driver).move_to_element_with_offset(over, *at).perform()
        _wait(driver, lambda: driver.find_element("css selector", f"{css} .at").text)

    return act


MLFLOW: dict[str, Any] = {"ready": ".js-plotly-plot .main-svg", "height": 1000}
SHOTS = (
    Shot("report_top", "soap_or_adamw", height=1000),
    Shot("report_touched", "soap_or_adamw", height=800, before=touched("#val_loss", 0.55, 0.6)),
    Shot("report_dark", "soap_or_adamw", height=1000, dark=True),
    Shot("report_phone", "soap_or_adamw", width=390, height=844),
    Shot("report_many_arms", "grid", height=900, before=touched("#val_loss", 0.6, 0.7)),
    Shot("report_heat_map", "grid", height=760, before=to("#grid")),
    Shot("mlflow_verdict", "soap_or_adamw", "verdict", **MLFLOW),
    Shot("mlflow_search", "soap_or_adamw", "search", **MLFLOW),
)
"""All of them, by what they show. Those of a sweep that is running are live_screenshots.py's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 where a picture is larger than one may be, 2 for a name that there isn't."""
    parser = argparse.ArgumentParser(description="Take the docs' screenshots of real sweeps.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of pictures (default: all)")
    parser.add_argument("--folder", type=Path, help="where the sweeps are, or are run (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write (default: docs/images)")
    options = parser.parse_args(arguments)
    wanted = [shot for shot in SHOTS if shot.name in options.names or not options.names]
    if unknown := set(options.names) - {shot.name for shot in SHOTS}:
        print(f"there is no picture {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for sweep in dict.fromkeys(shot.sweep for shot in wanted):
            _run(folder, sweep)
        with browser() as driver, _server(folder) as address:
            sizes = [_take(driver, shot, folder, address, options.out) for shot in wanted]
    return 1 if max(sizes) > MOST_BYTES else 0


def _run(folder: Path, sweep: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "reports" / sweep / "index.html").is_file():
        command = [sys.executable, "-m", "optsweep", *SWEEPS[sweep], f"sweep.name={sweep}"]
        subprocess.run(command, cwd=folder, check=True)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """`optsweep ui` there, and its address."""
    command = [sys.executable, "-m", "optsweep", "ui", "--no-browser", "--port", str(PORT)]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield urljoin(next(line for line in server.stdout if line.startswith("http")), "/")
        server.send_signal(signal.SIGINT)


@contextmanager
def browser() -> Iterator[Driver]:
    """Chromium, without a window."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def use_screen(driver: Driver, width: int, height: int, *, dark: bool) -> None:
    """Show pages on such a screen from now on, a narrow one as a phone does."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    known = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in known.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _take(driver: Driver, shot: Shot, folder: Path, address: str, out: Path) -> int:
    """Bytes of the picture."""
    use_screen(driver, shot.width, shot.height, dark=shot.dark)
    driver.get("about:blank")
    driver.get(_page(shot, folder, address))
    _wait(driver, lambda: driver.find_elements("css selector", shot.ready))
    shot.before(driver)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{shot.name}.png"
    file.write_bytes(small_png(_at_rest(driver)))
    print(f"{file} ({file.stat().st_size / 1000:.0f} kB)")
    return file.stat().st_size


def _page(shot: Shot, folder: Path, address: str) -> str:
    if not shot.view:
        return (folder / "reports" / shot.sweep / "index.html").as_uri()
    from mlflow import MlflowClient

    experiment = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db").get_experiment_by_name(shot.sweep)
    assert experiment is not None
    assert urlsplit(address).port
    return urljoin(address, links.sweep_page(experiment.experiment_id, shot.view))


def _wait(driver: Driver, done: Callable[[], Any]) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, PATIENCE, 0.1).until(lambda _: done())


def _at_rest(driver: Driver) -> bytes:
    """The picture, once a second has changed nothing in it."""
    last, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(1)
        found: bytes = driver.get_screenshot_as_png()
        if found == last:
            break
        last = found
    return last


if __name__ == "__main__":
    sys.exit(main())
