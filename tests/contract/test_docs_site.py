"""The docs as a site: it builds without a warning, fetches nothing, and says of the code what the code says."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import commands
import pytest

from messages import messages, said
from optsweep.inference.comparison import Conclusion
from optsweep.report.page import badge

ROOT = Path(__file__).parents[2]
QUOTED = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M)


def test_the_page_of_commands_is_what_the_code_says() -> None:
    assert not commands.stale(), "run `python docs/commands.py`"


def test_every_error_in_troubleshooting_is_one_that_the_code_says() -> None:
    known = messages()
    assert len(QUOTED) > 50
    assert [line for line in QUOTED if not said(line, known)] == []


@pytest.mark.parametrize(
    "line", ["task.modle: the model has no parameter", "model has no parameter", "the disk is …; no"]
)
def test_an_error_that_the_code_does_not_say_is_found(line: str) -> None:
    assert not said(line, messages())


def test_every_badge_of_a_verdict_is_explained() -> None:
    explained = re.findall(r"^\| ([^|]+) \| ", (ROOT / "docs" / "report.md").read_text(encoding="utf-8"), re.M)
    words = {word for cell in explained for word in (cell, *re.split(r", (?=worse)|; ", cell))}
    outcomes: list[Any] = [SimpleNamespace(outcome=outcome) for outcome in Conclusion]
    assert {badge(outcome)[1] for outcome in outcomes} <= words


def test_the_site_builds_without_a_word_and_fetches_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("material")
    build, config = pytest.importorskip("mkdocs.commands.build"), pytest.importorskip("mkdocs.config")
    loaded = config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    with caplog.at_level(logging.INFO, logger="mkdocs"):
        build.build(loaded)
    usual = ("Cleaning site directory", "Building documentation to", "Documentation built in")
    assert [r.getMessage() for r in caplog.records if not r.getMessage().startswith(usual)] == []
    pages = {str(path.relative_to(tmp_path)): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    assert {"index.html", "tutorial.html", "reference.html", "gallery/index.html", "CHANGELOG.html"} <= pages.keys()
    fetched = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
    assert {name: found for name, page in pages.items() if (found := fetched.findall(page))} == {}
    assert "data:image/svg+xml;base64," in pages["tutorial.html"]  # the verdict's figure, as the notebook showed it
    assert 'href="own-model.html"' in pages["index.html"]  # a link of README.md to docs/own-model.md
