"""Looks and their level: known values, the rate of false positives, and when seeds end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

from optsweep.inference.comparison import Conclusion, judge
from optsweep.inference.groups import group
from optsweep.inference.looks import AUTO, LOOKS, Level, in_words, nominal_level, num_seeds


@pytest.mark.parametrize(("count", "bound"), [(1, 1.960), (2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413), (10, 2.555)])
def test_the_level_of_equally_spaced_looks_is_pocock_s(count: int, bound: float) -> None:
    # Jennison & Turnbull 2000, table 2.1, α = 0.05; for K = 3 that is the well-known 0.0221
    level = nominal_level(tuple(range(1, count + 1)))
    assert stats.norm.isf(level / 2) == pytest.approx(bound, abs=6e-4)
    if count == 3:
        assert round(level, 4) == 0.0221


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_level_of_our_looks_solves_the_multivariate_normal(alpha: float) -> None:
    n = np.array(LOOKS)
    correlation = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
    bound = np.full(len(n), stats.norm.isf(nominal_level(LOOKS, alpha) / 2))
    within = stats.multivariate_normal(np.zeros(len(n)), correlation, seed=0).cdf(bound, lower_limit=-bound)
    assert 1 - within == pytest.approx(alpha, abs=1e-5)


def test_three_looks_err_about_as_often_as_one_and_naive_looks_do_not() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(40_000, LOOKS[-1]))

    def false_positives(looks: tuple[int, ...], alpha: float) -> float:
        p = [stats.ttest_1samp(differences[:, :look], 0, axis=1).pvalue for look in looks]
        return float((np.array(p) < alpha).any(0).mean())

    assert false_positives(LOOKS, nominal_level()) == pytest.approx(0.055, abs=0.006)
    assert false_positives(LOOKS, 0.05) > 0.10


def test_levels() -> None:
    assert Level.of(()) == Level(0.05)
    assert Level.of(()).confidence == 0.95
    assert Level.of(LOOKS).alpha == nominal_level() < 0.05


def wanted(most: int, *, complete: bool = True, decided: bool = False) -> int:
    return num_seeds(AUTO, most, lambda look: complete, lambda: decided)


def test_seeds_grow_from_look_to_look_until_decided() -> None:
    assert wanted(0, complete=False) == 5
    assert wanted(5, complete=False) == 5
    assert wanted(5) == 10
    assert wanted(5, decided=True) == 5
    assert wanted(7, complete=False) == 10  # the look at 10 is on its way
    assert wanted(10) == wanted(20) == 20
    assert wanted(20, decided=True) == 20


def test_a_fixed_number_is_its_own_answer_and_auto_goes_on_from_it() -> None:
    assert num_seeds(8, 3, lambda look: True, lambda: False) == 8
    assert wanted(8, complete=False) == 10
    assert wanted(30) == 20  # nothing to add


def test_in_words() -> None:
    assert in_words(1) == "1 confirm seed"
    assert in_words(8) == "8 confirm seeds"
    assert in_words(AUTO) == "5, 10 or 20 confirm seeds"


@dataclass(frozen=True)
class OfSeeds:
    test_losses: Mapping[int, float]
    diverged_seeds: int = 0
    test_blocks: Mapping[int, Sequence[float]] = field(default_factory=dict)


BASE = [2.00, 2.05, 1.95, 2.02, 1.98]
JITTER = [0.010, -0.012, 0.004, -0.006, 0.009]


def shifted(by: float, spread: float = 1.0, diverged: int = 0) -> OfSeeds:
    losses = {i: BASE[i] + by + spread * JITTER[i] for i in range(diverged, 5)}
    return OfSeeds(losses, diverged)


@pytest.mark.parametrize(
    ("candidate", "baseline_diverged", "outcome", "decided"),
    [
        (shifted(-0.1), 0, Conclusion.BETTER, True),
        (shifted(0.1), 0, Conclusion.WORSE, True),
        (shifted(0.001), 0, Conclusion.NO_DIFFERENCE, False),
        (shifted(-0.1, diverged=1), 0, Conclusion.UNTESTED, True),  # leads, and can't be called better
        (shifted(-0.01, diverged=1), 0, Conclusion.NO_DIFFERENCE, True),
        (shifted(0.005, diverged=1), 0, Conclusion.NO_DIFFERENCE, False),  # may yet be shown to be worse
        (shifted(0.1, diverged=1), 0, Conclusion.WORSE, True),
        (shifted(0.005, diverged=1), 1, Conclusion.NO_DIFFERENCE, True),  # the baseline leads and has diverged
        (shifted(0.0, spread=0.0), 0, Conclusion.UNTESTED, True),  # no variance
        (OfSeeds({}, 5), 0, Conclusion.UNTESTED, True),
        (OfSeeds({}), 0, Conclusion.UNTESTED, True),  # its search only diverged
    ],
)
def test_decided(candidate: OfSeeds, baseline_diverged: int, outcome: Conclusion, decided: bool) -> None:
    baseline = OfSeeds({i: BASE[i] for i in range(baseline_diverged, 5)}, baseline_diverged)
    (finding,) = judge([candidate], baseline, Level.of(LOOKS), None)
    assert (finding.outcome, finding.decided) == (outcome, decided)


DELTA = 0.1
SHIFTS = {  # of the candidate, and how much its differences scatter
    "clearly lower": (-0.3, 1.0),
    "clearly higher": (0.3, 1.0),
    "lower by less than delta": (-0.05, 1.0),
    "higher by less than delta": (0.05, 1.0),
    "lower within delta": (-0.003, 1.0),
    "higher within delta": (0.003, 1.0),
    "lower by chance": (-0.03, 15.0),
    "higher by chance": (0.03, 15.0),
    "without variance": (0.0, 0.0),
}
# by who has a diverged seed: nobody, the candidate, the baseline, both; and whether further seeds are needed: "…"
TABLE = {
    "clearly lower": "B U B U",
    "clearly higher": "W W U U",
    "lower by less than delta": "b U B U",
    "higher by less than delta": "w W U U",
    "lower within delta": "E N N… N",
    "higher within delta": "E N… N N",
    "lower by chance": "N… N N… N",
    "higher by chance": "N… N… N N",
    "without variance": "U U U U",
}


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("diverged", [(0, 0), (3, 0), (0, 3), (3, 3)])
def test_no_conclusion_forgets_a_diverged_seed(case: str, diverged: tuple[int, int]) -> None:
    shift, spread = SHIFTS[case]
    noise = np.random.default_rng(0).permutation(np.tile([-0.012, -0.006, 0.006, 0.012], 3))
    ours = {seed: 2 + shift + spread * float(noise[seed]) for seed in range(diverged[0], 12)}
    theirs = dict.fromkeys(range(12 - diverged[1]), 2.0)
    (found,) = judge([OfSeeds(ours, diverged[0])], OfSeeds(theirs, diverged[1]), Level.of(LOOKS), DELTA)
    expected = TABLE[case].split()[2 * bool(diverged[1]) + bool(diverged[0])]
    shown = [c for c in Conclusion if c is not Conclusion.UNDECIDED]  # which is of reports
    outcome = dict(zip("BbWwENU", shown, strict=True))[expected[0]]
    assert (found.outcome, found.decided) == (outcome, "…" not in expected)


@pytest.mark.parametrize(("by", "decided"), [(-0.1, True), (0.1, False)])
def test_one_shared_seed_may_yet_show_a_diverging_arm_to_be_worse(by: float, decided: bool) -> None:
    (found,) = judge([shifted(by, diverged=4)], OfSeeds(dict(enumerate(BASE))), Level.of(LOOKS), DELTA)
    assert (found.outcome, found.decided) == (Conclusion.UNTESTED, decided)


def test_equal_within_delta_is_decided_and_comparisons_are_corrected_together() -> None:
    baseline = OfSeeds(dict(enumerate(BASE)))
    (equal,) = judge([shifted(0.0)], baseline, Level.of(LOOKS), 0.1)
    assert (equal.outcome, equal.decided) == (Conclusion.EQUAL, True)
    alone = judge([shifted(-0.02)], baseline, Level.of(LOOKS), None)[0]
    assert alone.decided
    together = judge([shifted(-0.02), *[shifted(0.001)] * 3], baseline, Level.of(LOOKS), None)
    assert [finding.decided for finding in together] == [False] * 4


@dataclass(frozen=True)
class Named:
    name: str
    choices: Mapping[str, str] = field(default_factory=dict)


def test_a_group_without_the_named_baseline_has_its_like_or_the_first_by_name() -> None:
    arms = [Named(f"{o} {t}", {"task": t, "optimizer": o}) for t in "xy" for o in ("soap", "adamw")]
    assert [peers.baseline.name for peers in group(arms, "soap x")] == ["soap x", "soap y"]
    assert [peers.baseline.name for peers in group(arms[:-1], "adamw x")] == ["adamw x", "soap y"]
    assert [peers.baseline.name for peers in group(arms[::-1], None)] == ["adamw y", "adamw x"]
