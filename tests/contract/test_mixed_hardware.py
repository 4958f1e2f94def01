"""Trials of one sweep on different machines: refused unless `sweep.allow` lets them, and then said in the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hand_verdicts import BASE, arm, page, said, shifted
from optsweep.report.verdict import Verdict
from optsweep.tracking.reader import ArmRecord
from optsweep.tracking.schema import Timing

A, B = "NVIDIA A100", "Tesla T4"


def on(name: str, losses: Sequence[float], devices: Sequence[str], **known: Any) -> ArmRecord:
    """An arm whose seeds ran on these devices, the last one from there on."""
    plain = arm(name, losses, **known)
    found = [*devices, *[devices[-1]] * (len(losses) - len(devices))]
    trials = (replace(trial, device=device) for trial, device in zip(plain.trials, found, strict=True))
    return replace(plain, trials=tuple(trials))


def condition(v: Verdict) -> str:
    """The verdict's only condition on machines, which is in its text."""
    (text,) = [text for text in v.conditions if "ran on" in text]
    assert text in v.text
    assert not any("ran on" in caveat for caveat in v.caveats)
    return text


def test_arms_on_different_cards_are_compared_with_the_caveat_that_the_card_may_be_it() -> None:
    v = said(on("adamw", BASE, [A]), on("soap", shifted(-0.1), [B]))
    assert condition(v) == (
        "But what the optimizer does can't be told from what the device does, since they changed together: "
        "the seeds of soap "
        "ran on Tesla T4 (8), and those of adamw on NVIDIA A100 (8)."
    )


def test_each_arm_that_shares_no_card_with_the_baseline_is_named_with_its_numbers() -> None:
    v = said(on("adamw", BASE, [A]), on("soap", shifted(-0.1), [B]), on("lion", shifted(0.1), [A]))
    assert condition(v).endswith(
        ": the seeds of soap ran on Tesla T4 (8), and those of the baseline, adamw, on NVIDIA A100 (8)."
    )


def test_where_some_trials_ran_elsewhere_their_number_is_said_and_that_of_seeds_compared_across() -> None:
    v = said(on("adamw", BASE, [A]), on("soap", shifted(-0.1), [B, B, B, A]))
    assert condition(v) == (
        "Trials ran on different devices: of adamw 8 on NVIDIA A100; of soap 5 on NVIDIA A100 and 3 on Tesla T4; "
        "compared across devices: 3 of 8 seeds."
    )
    same = said(on("adamw", BASE, [B, A]), on("soap", shifted(-0.1), [B, A]))
    assert condition(same).endswith("soap 7 on NVIDIA A100 and 1 on Tesla T4.")


def test_of_many_arms_the_verdict_has_the_sum_and_the_caveats_have_each() -> None:
    v = said(on("adamw", BASE, [A]), *(on(name, shifted(0.1), [B, A]) for name in "abcd"))
    (text,) = [text for text in v.conditions if "ran on" in text]
    assert text.startswith(
        "Trials ran on different devices: 36 on NVIDIA A100 and 4 on Tesla T4, those of 4 of 5 arms on several; "
        "compared across devices: a 1 of 8 seeds, "
    )
    (each,) = [text for text in v.caveats if "ran on" in text]
    assert each.startswith(
        "Trials ran on different devices: of adamw 8 on NVIDIA A100; of a 7 on NVIDIA A100 and 1 on "
    )
    assert "NVIDIA A100 (36 trials)" in page(v)
    assert "Tesla T4 (4 trials)" in page(v)


def test_one_arm_alone_says_where_it_ran_and_one_device_is_worth_no_word() -> None:
    v = said(on("adamw", BASE, [A, B]))
    assert "Trials ran on different devices: of adamw 7 on Tesla T4 and 1 on NVIDIA A100." in v.caveats
    for devices in ([A], [""], ["", A]):
        plain = said(on("adamw", BASE, devices), on("soap", shifted(-0.1), devices))
        assert not [text for text in (*plain.conditions, *plain.caveats) if "ran on" in text]


def test_versions_that_differ_are_said_in_the_same_words() -> None:
    arms = [on("adamw", BASE, [A]), on("soap", shifted(-0.1), [A])]
    both = ("torch 2.11.0, Python 3.12.1", "torch 2.12.0, Python 3.12.1")
    held = [replace(a, trials=tuple(replace(t, versions=v) for t in a.trials)) for a, v in zip(arms, both, strict=True)]
    (text,) = [text for text in said(*held).conditions if "ran with" in text]
    assert text.startswith("But what the optimizer does can't be told from what the versions do, since they changed")
    assert text.endswith(f": the seeds of soap ran with {both[1]} (8), and those of adamw with {both[0]} (8).")


@pytest.mark.parametrize(("device", "compared"), [(A, True), ("", True), (B, False)])
def test_times_are_compared_on_one_device_only(device: str, compared: bool) -> None:
    timing = Timing(3.0, 2.9, 3.1, 50, device)
    v = said(on("adamw", BASE, [A], timing=Timing(2.0, 1.9, 2.1, 50, A)), on("soap", shifted(-0.1), [A], timing=timing))
    assert ("a step takes 1.5×" in v.headline.lower()) == compared
    (comparison,) = v.group.comparisons
    assert (comparison.time_ratio is not None) == compared
    found = [text for text in v.caveats if "timed" in text]
    assert found == (
        []
        if compared
        else [
            "Steps were timed on NVIDIA A100 for the baseline and on another device for soap (Tesla T4): their times "
            "aren't compared."
        ]
    )
