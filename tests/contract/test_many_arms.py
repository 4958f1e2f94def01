"""Reports of many arms: which have a colour, in what order they stand, what is said of them together."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from hand_figures import confirmed, group, made
from hand_sweeps import NOISE, arm, seeds, sweep
from optsweep.inference.statistics import mean_interval
from optsweep.report.comparison import compare
from optsweep.report.figures.curves import band
from optsweep.report.figures.touch import Sampled, Touch, shared
from optsweep.report.styles import MOST_COLOURS
from optsweep.report.templates import data
from optsweep.report.verdict import verdict
from optsweep.tracking import names
from optsweep.tracking.reader import UNREAD, Curve

LETTERS = "abcdefghijkl"


def test_of_many_arms_the_baseline_and_the_best_have_a_colour() -> None:
    arms = [arm(letter, seeds(9.0 - place / 10)) for place, letter in enumerate(LETTERS)]
    (found,) = compare([sweep(*arms, baseline=arms[4].name)])
    coloured = [held.arm.choices["optimizer"] for held in found.arms if held.style < MOST_COLOURS]
    assert coloured == ["e", *"ghijkl"], "the six lowest, and the baseline"
    assert found.baseline.style == 0
    assert sorted(held.style for held in found.arms) == [*range(7), *range(8, 13)]
    (few,) = compare([sweep(*arms[:MOST_COLOURS], baseline=arms[4].name)])
    assert [held.style for held in few.arms] == list(range(MOST_COLOURS)), "in the order of the plan"


def test_a_diverged_seed_costs_an_arm_its_place_and_its_colour() -> None:
    lost = arm("lost", [*seeds(1.0)[:-1], None])
    arms = [
        lost,
        *(arm(letter, seeds(9.0 - place / 10)) for place, letter in enumerate(LETTERS)),
        arm("none", [None] * 6),
    ]
    (found,) = compare([sweep(*arms, baseline=arms[1].name)])
    order = [held.arm.choices["optimizer"] for held in found.by_result]
    assert order == [*reversed(LETTERS), "lost", "none"]
    assert [comparison.candidate for comparison in found.comparisons_by_result] == [
        held for held in found.by_result if held is not found.baseline
    ]
    assert found.arms[0].style >= MOST_COLOURS


def test_notes_are_said_once_and_apart_from_what_to_beware_of() -> None:
    note, other = "muon, aux: head.bias", "the batch is the whole split"
    arms = [
        replace(arm(letter, seeds(2.0)), warnings=((note,) if letter < "d" else ()) + (other,)) for letter in "abcd"
    ]
    arms[3] = replace(arms[3], warnings=(UNREAD, other))
    found = verdict(compare([sweep(*arms)])[0])
    labels = [held.label for held in arms]
    assert found.notes == (
        f"{labels[0]}, {labels[1]} and {labels[2]}: {note}",
        f"All arms: {other}",
    )
    assert f"{labels[3]}: {UNREAD}" in found.caveats
    assert not any(note in caveat or other in caveat for caveat in found.caveats)


def test_a_headline_counts_many_arms_that_decide_nothing() -> None:
    arms = [arm("adamw", seeds(2.0, NOISE[::-1])), *(arm(letter, seeds(3.0), bracketed=False) for letter in "abcd")]
    few, many = (verdict(compare([sweep(*arms[:count])])[0]).headline for count in (4, 5))
    assert few.count("not decided") == 3
    assert "4 arms end higher, but are not bracketed: not decided" in many


def test_a_band_is_the_t_interval_of_the_mean_at_each_step() -> None:
    values = np.array([[3.0, 2.0, 1.0], [3.3, 2.2, 1.0], [3.1, 2.5, 1.0]])
    curves = [confirmed(1.0, curves={names.VAL_LOSS: Curve(np.array([1, 5, 9]), row)})[0] for row in values]
    trials = [replace(trial, seed=seed, slot=seed) for seed, trial in enumerate(curves)]
    found = band(group(made({}, trials)).arms[0], names.VAL_LOSS)
    assert found is not None
    for step, column in enumerate(values.T[:2]):
        interval = mean_interval(column)
        assert (found.low[step], found.high[step]) == pytest.approx((interval.low, interval.high))
    assert (found.mean[2], found.half[2], found.n) == (1.0, 0.0, "3 seeds")
    searches = [replace(trials[seed], seed=seed + 1_000_000 * (seed > 0)) for seed in range(3)]
    again = band(group(made({}, searches)).arms[0], names.VAL_LOSS)
    assert again is not None
    assert again.mean[1] == pytest.approx((2.0 + (2.2 + 2.5) / 2) / 2)
    assert again.n == "2 searches"


def test_curves_of_unlike_steps_share_an_axis() -> None:
    ours = Sampled(np.array([0.0, 10.0]), np.array([4.0, 2.0]), np.array([0.4, 0.2]), "2 seeds")
    theirs = Sampled(np.array([5.0, 20.0]), np.array([3.0, 0.0]), None, "")
    x, (first, second) = shared({"a": ours, "b": theirs})
    assert x == [0, 5, 10, 20]
    assert first.values == [4.0, 3.0, 2.0, None]
    assert first.half[:3] == pytest.approx([0.4, 0.3, 0.2])
    assert second.values == [None, 3.0, 2.0, 0.0]
    steps = np.arange(1.0, 5001.0)
    many, (line,) = shared({"a": Sampled(steps, 1 / steps, None, "")})
    assert (len(many), many[0], many[-1], line.values[0]) == (240, 1, 5000, 1.0)


def test_no_text_ends_the_script_that_holds_the_data() -> None:
    touch = Touch([1, 2], "steps", "</script><b>&", shared({"a": _POINTS})[1], marks={"]]>": math.inf})
    text = data(touch.as_json({"a": 3}))
    assert not set("<>&") & set(text)
    held = json.loads(text)
    assert held["yLabel"] == "</script><b>&"
    assert held["lines"][0]["arm"] == 3
    assert held["lines"][0]["y"] == [1, 0.12346], "five digits"


_POINTS = Sampled(np.array([1.0, 2.0]), np.array([1.0, 0.123456789]), None, "")
