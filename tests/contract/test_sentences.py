"""Every sentence that a verdict can say, and a case in which it is said: those that no other test has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hand_verdicts import BASE, JITTER, arm, said, trial
from optsweep.inference.repeats import seed_index
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve
from optsweep.tracking.schema import Chosen
from optsweep.train.trial import Phase

SEARCH = {"search": {"trials": 8}}
GROWN = {"repeats": 1, "trials": 16, "seeds": 8}


def by(name: str, shift: float, turn: int = 0, scale: float = 1.0, **known: Any) -> ArmRecord:
    """An arm with the baseline's losses, a shift, and jitter of its own."""
    jitter = [*JITTER[turn:], *JITTER[:turn]]
    return arm(name, [loss + shift + scale * more for loss, more in zip(BASE, jitter, strict=True)], **known)


def searched(one: ArmRecord, count: int = 8) -> ArmRecord:
    """With so many search trials that finished."""
    extra = [trial(one.name, n, 2.0, phase=Phase.SEARCH, run_id=f"{one.name}-s{n}") for n in range(count)]
    return replace(one, trials=(*extra, *one.trials))


def over(name: str, *searches: Sequence[float]) -> ArmRecord:
    """An arm with the test losses of several searches, whose trials are not shown."""
    held = [
        trial(name, seed_index(repeat, seed), loss)
        for repeat, losses in enumerate(searches)
        for seed, loss in enumerate(losses)
    ]
    chosen = Chosen({"lr": 5e-4}, 2.0, 1, {"lr": {"low": True, "high": True}}, {"lr": (1e-4, 1e-3)}, (0,))
    return arm(name, trials=tuple(held), chosen_again=(chosen,) * (len(searches) - 1))


def curved(name: str, shift: float, values: Sequence[float]) -> ArmRecord:
    one = by(name, shift)
    curve = {names.VAL_LOSS: Curve(np.array([100, 200, 300, 400]), np.array(values, dtype=np.float64))}
    return replace(one, trials=tuple(replace(t, curves=curve) for t in one.trials))


A = by("a", 0.0, scale=0.0)
UNBRACKETED = Chosen({"lr": 5e-4}, 2.0, 1, {"lr": {"low": True, "high": False}}, {"lr": (1e-4, 1e-3)}, (0,))
ABOVE = Chosen({"lr": 5e-3}, 2.0, 1, {"lr": {"low": True, "high": True}}, {"lr": (1e-4, 1e-2)}, (0,))
FAR = [loss + step for loss, step in zip(BASE, [0.1, 0.101, 0.099, 0.1, 0.102, 0.098, 3.0, 3.1], strict=True)]
SKEWED = [2 - np.log(1 - (n + 0.5) / 20) for n in range(20)]
TWO, NEAR = [[2.0, 2.1], [2.2, 2.3]], [[1.9, 2.0], [2.1, 2.2]]
AT_CHOSEN = "At the settings"


@pytest.mark.parametrize(
    ("arms", "plan", "text"),
    [
        ([A, by("b", 0.1, scale=0.0)], {}, "differ by the same amount on every seed, so there is no variance"),
        ([over("a", *TWO), over("b", *NEAR)], {"repeats": 2, "seeds": 2}, "differ by the same amount in every search"),
        ([A, arm("b", trials=(trial("b", 50, 2.0),))], {}, "they have no seed in common"),
        ([A, arm("b")], {}, "it has no trials yet"),
        (
            [A, arm("b", trials=(trial("b", 0, None, Status.DIVERGED, phase=Phase.SEARCH),))],
            {},
            "all 1 search trial diverged",
        ),
        ([A, searched(arm("b"), 1)], {}, "it has no confirm trials yet"),
        ([A, arm("b", [None])], {}, "it diverged on its one seed"),
        ([A, arm("b", trials=(trial("b", 0, None, Status.RUNNING),))], {}, "none of its confirm trials has finished"),
        ([arm("a", [2.0]), arm("b", [2.1])], {}, "shows nothing yet: test loss higher by"),
        ([arm("a", [2.0]), arm("b", [2.1])], {}, ", without an interval."),
        ([by("a", 0), by("b", 0, 3), by("c", 0, 5)], {}, "No arm can be told from the arm with the lowest mean"),
        ([by("a", 0), by("b", 0, 3), by("c", 1, 5)], {}, "The lowest mean test losses are those of"),
        ([A, by("b", -0.1), by("c", -0.2)], {}, "b and c are better"),
        ([A, by("b", 0.1), by("c", 0.2)], {}, "b and c are worse"),
        ([A, by("b", 0), by("c", 0, 3)], {}, "b and c show no difference"),
        ([A, by("b", 0), arm("c")], {}, "c can't be judged"),
        ([A, by("b", -0.1), by("c", 0)], {"confirm": {"seeds": 8, "delta": 0.05}}, "c is equal within ±δ"),
        ([A, by("b", 0, 3), by("c", 0)], {"confirm": {"seeds": 8, "delta": 0.05}}, "b and c are equal within ±δ"),
        ([A, by("b", -0.1), by("c", -0.9)], {"confirm": {"seeds": 8, "delta": 0.5}}, "b is better, by less than δ"),
        ([A, by("b", 0.1), by("c", 0.2)], {"confirm": {"seeds": 8, "delta": 0.5}}, "are worse, by less than δ"),
        ([A, by("b", -0.1)], {"confirm": {"seeds": 8, "delta": 0.5}}, "b is better than a, by less than 0.5"),
        ([*map(searched, (A, by("b", -0.1), by("c", -0.2)))], SEARCH, "against a: b and c end lower"),
        (
            [*map(searched, (A, by("b", -0.1), by("c", 0.1)))],
            {**SEARCH, "confirm": {"seeds": 8, "delta": 0.5}},
            "b ends lower, by less than δ; c ends higher, by less than δ",
        ),
        ([A, by("b", -0.1)], {}, "A step takes the same time"),
        ([A, by("b", -0.1)], {}, "its optimizer state the same bytes"),
        ([A, by("b", -0.1, timing=None)], {}, "Its optimizer state takes the same bytes"),
        (
            [*(replace(searched(one), chosen=UNBRACKETED) for one in (by("a", 0), by("b", 0, 3)))],
            SEARCH,
            "so they may be better than it looks",
        ),
        (
            [*(replace(by(name, 0, turn), chosen=UNBRACKETED) for turn, name in enumerate("abcde"))],
            {},
            "4 other arms are not, so they may be better",
        ),
        ([A, arm("b", FAR)], {}, "lie far from the others, without which the interval is"),
        (
            [over("a", *[[2.0]] * 8), over("b", *[[2.1 + 0.01 * (r % 3) + 5 * (r == 4)] for r in range(8)])],
            {"repeats": 8, "seeds": 1},
            "are uneven: search 4 lies far from the others",
        ),
        (
            [arm("a", [2.0] * len(SKEWED)), arm("b", SKEWED)],
            {},
            "are skewed, so the test errs more often",
        ),
        ([over("a", *TWO), over("b", [1.9, 2.0], [2.0, 2.2])], {"repeats": 2, "seeds": 2}, "Two searches: an interval"),
        (
            [over("a", *TWO), over("b", [1.9, 2.0], [2.0, 2.2])],
            {"repeats": 2, "seeds": 2},
            "The intervals hold for repeating search and seeds; the test split is the same in all.",
        ),
        ([A, by("b", -0.1)], {}, "The intervals hold for the chosen settings; how lucky the search was is not part"),
        (
            [A, replace(by("b", -0.1), chosen=ABOVE)],
            {},
            "The best lr lies above the suggested range: b (5e-3;",
        ),
        ([replace(A, chosen=UNBRACKETED)], {}, "Not bracketed, nothing worse was tried beyond the chosen value: a"),
        (
            [A, arm("b", [*BASE[:7], None])],
            {},
            "Diverged on some seeds, so the mean is over the others: b (1 of",
        ),
        (
            [A, arm("b", trials=(*by("b", 0.1).trials[:7], trial("b", 7, None, Status.CRASHED)))],
            {},
            "Crashed and without a result: b (1 trial)",
        ),
        (
            [curved("a", 0, [3, 2.6, 2.2, 2.0]), curved("b", -0.1, [3.5, 3, 2.3, 1.9])],
            {},
            "The median validation losses stood the other way round until late in the run: b (until step 300 of 400).",
        ),
        (
            [arm("a", BASE[:5]), arm("b", [1.9, 1.951, 1.849, 1.92, 1.88])],
            {"confirm": {"seeds": "auto"}},
            "confirm.seeds=auto ended at 5 seeds, the first of its looks",
        ),
        (
            [over("a", *[[2 + 0.1 * (r % 3)] for r in range(8)]), over("b", *[[2 + 0.1 * (r % 4)] for r in range(8)])],
            {"repeats": "auto", "repeat_looks": [3, 4, 6, 8], "seeds": 1},
            "sweep.repeats=auto ended at 8 searches, the most it runs, with the comparison not decided.",
        ),
        (
            [over("a", [2.0], [2.1], [2.2]), over("b", [1.0], [1.11], [1.21])],
            {"repeats": "auto", "repeat_looks": [3, 4, 6, 8], "seeds": 1},
            "sweep.repeats=auto ended at 3 searches, the first of its looks at which every comparison was decided.",
        ),
        (
            [over("a", [2.0], [2.1], [2.2]), over("b", [2.1], [2.1], [2.1])],
            {"repeats": "auto", "repeat_looks": [3, 4, 6, 8], "seeds": 1},
            "Provisional: 3 repeats of at most 8. On charlm, no difference",
        ),
        (
            [over("a", [2.0], [2.1], [2.2]), over("b", [1.0], [1.11], [1.21])],
            {"repeats": "auto", "repeat_looks": [3, 4, 6, 8], "seeds": 1},
            "98.3 % interval of the difference (four looks planned, at searches)",
        ),
        (
            [A, by("b", -0.1)],
            {"grown": [{"repeats": 1, "trials": 0, "seeds": 4}]},
            "The sweep grew after a verdict had been seen (over 4 seeds), a look that the level doesn't count.",
        ),
        (
            [over("a", *TWO), over("b", [1.9, 2.0], [2.0, 2.2])],
            {"repeats": 2, "seeds": 2, "grown": [GROWN, {"repeats": 2, "trials": 16, "seeds": 1}]},
            "(over 2 × (16 trials + 1 seed)), a look",
        ),
    ],
)
def test_it_is_said(arms: Sequence[ArmRecord], plan: Mapping[str, Any], text: str) -> None:
    found = said(*arms, **plan)
    everything = " ".join([found.text, *(sentence for _, sentence in found.sentences), *found.caveats])
    assert text in everything, everything


def test_to_repeat_a_single_search_is_no_further_look() -> None:
    arms = [over("a", *TWO), over("b", [1.9, 2.0], [2.0, 2.2])]
    assert "grew after" not in said(*arms, repeats=2, seeds=2, grown=[GROWN]).text
