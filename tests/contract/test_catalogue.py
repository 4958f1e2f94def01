"""docs/catalogue.md is what docs/catalogue.py would write, and every choice has its entry."""

from __future__ import annotations

import catalogue
import pytest

from arms import names_in
from drive import CONF

DOCS = CONF.parent / "docs"
MOST_BYTES = 20 * 1024


def test_page_and_pictures_are_what_the_script_would_write() -> None:
    assert catalogue.stale() == [], "run `python docs/catalogue.py`"


@pytest.mark.parametrize("group", ["optimizer", "schedule", "warmup", "weight_decay", "averaging", "recipe", "task"])
def test_every_choice_has_an_entry(group: str) -> None:
    text = (DOCS / "catalogue.md").read_text(encoding="utf-8")
    for name in names_in(group):
        assert f"\n### {name}" in text or f"\n| {name} |" in text, name


def test_every_schedule_has_a_small_picture() -> None:
    for name in names_in("schedule"):
        assert (DOCS / "catalogue" / f"{name}.svg").stat().st_size < MOST_BYTES


def test_a_formula_is_that_of_its_own_rule() -> None:
    formulas = {
        name: catalogue.formula(catalogue.rule_of(name)) for name in names_in("optimizer") if name != "external"
    }
    assert all(formulas.values())
    assert formulas["sgd"] == "direction = g"
    assert "dampening" in formulas["momentum"]
    assert "dampening" not in formulas["nesterov"]
    assert formulas["adadelta"].count("\n") == 1
