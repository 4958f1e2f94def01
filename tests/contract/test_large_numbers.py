"""Losses of any size: readable in sentences, tables and on axes, and who lost seeds stands beside them."""

from __future__ import annotations

import re

import pytest

from hand_figures import confirmed, group, made
from hand_verdicts import arm, page, said
from optsweep.inference.statistics import Interval
from optsweep.report.figures import outcome
from optsweep.report.figures.canvas import blank, style
from optsweep.report.wording import decimals, difference, fixed, plus_minus, span

HUGE = 821208673392001024.0
LONG = re.compile(r"\d{9}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (plus_minus(Interval(HUGE, None, None, 1)), "8.212×10¹⁷"),
        (plus_minus(Interval(HUGE, HUGE - 1.2e16, HUGE + 1.2e16, 2)), "8.21×10¹⁷ ± 1.2×10¹⁶"),
        (plus_minus(Interval(1.2345e9, 1.2345e9 - 300, 1.2345e9 + 300, 2)), "1.23450000×10⁹ ± 300"),
        (plus_minus(Interval(1237283.0, 1237283.0 - 34510, 1237283.0 + 34510, 2)), "1237283 ± 34510"),
        (difference(-HUGE, -16, sign=True), "−8.2×10¹⁷"),
        (fixed(0.6, -16), "0.60"),
        (fixed(0.0, -16), "0"),
        (span(-HUGE, 2.0, -16, sign=True), "−8.2×10¹⁷ to +2"),
        (fixed(float("inf"), 2), "∞"),
    ],
)
def test_numbers_are_written_out_up_to_seven_digits(text: str, expected: str) -> None:
    assert text == expected


def test_an_uncertainty_without_end_is_none() -> None:
    assert decimals(float("inf"), 2.0) == decimals(None, 2.0)
    assert decimals(None, 5e-324) == 0  # a thousandth of which is no number


def test_the_only_arm_says_its_lost_seed_beside_its_mean() -> None:
    text = said(arm("adamw", [None, HUGE])).text
    assert "its test loss is 8.212×10¹⁷ nats over 1 seed. But adamw diverged on 1 of 2 seeds." in text
    assert not LONG.search(text)


def test_so_does_a_shown_difference() -> None:
    lost = [None, 8.2e17, 8.1e17, 8.4e17, 8.3e17]
    v = said(arm("adamw", lost), arm("soap", [0.5, 0.6, 0.55, 0.7, 0.6]))
    assert "soap is better than adamw: mean test loss lower by 8.25×10¹⁷ nats (0.61 against 8.25×10¹⁷;" in v.headline
    assert "). Only seeds that both finished count: adamw diverged on 1 of 5 seeds." in v.headline
    assert not LONG.search(v.headline)


def test_the_table_says_it_in_the_cell_of_the_mean() -> None:
    cell = re.search(r'data-th="Test loss, nats".*?</td>', page(said(arm("adamw", [None, HUGE]))), re.DOTALL)
    assert cell is not None
    assert "8.212×10¹⁷" in cell.group()
    assert "1 diverged" in cell.group()


def test_figures_say_whose_dots_are_missing() -> None:
    arms = [made({"optimizer": "a"}, confirmed(1.0, 1.1)), made({"optimizer": "b"}, confirmed(HUGE, float("inf")))]
    lost = " Diverged, so without a dot: task=t optimizer=b schedule=constant (1 of 2 seeds)."
    captions = {plan.name: plan.caption for plan in outcome.plans(group(*arms))}
    assert captions["difference"].endswith(lost)
    assert captions["test_loss"].endswith(lost)


@pytest.mark.parametrize(("top", "expected"), [(8e17, "2e17"), (8e-9, "2e−9"), (8.0, "2")])
def test_each_tick_has_its_power_and_none_stands_in_a_panel_s_title(top: float, expected: str) -> None:
    with style():
        figure, (axes,) = blank()
        axes.set_ylim(0.0, top)
        axes.set_yticks([0.0, top / 4, top / 2])
        figure.draw_without_rendering()
        assert axes.yaxis.get_offset_text().get_text() == ""
        assert axes.get_yticklabels()[1].get_text() == expected
