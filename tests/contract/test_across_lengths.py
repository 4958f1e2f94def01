"""What the report says across run lengths, of made-up results with known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hand_sweeps import HALVING, NOISE, arm, by_length, found, seeds, sweep
from optsweep.inference.repeats import seed_index
from optsweep.report.across.frontier import Side
from optsweep.report.across.lengths import Method, interpolated, steps_needed
from optsweep.report.across.results import across_results
from optsweep.report.write import across_plans
from optsweep.tracking.reader import ArmRecord, SweepRecord
from optsweep.tracking.schema import ConfirmTerms


def test_steps_needed_is_linear_in_the_log_of_the_steps() -> None:
    lengths, losses = [100, 200, 400], [4.0, 3.0, 2.0]
    needed, bound = steps_needed(lengths, losses, 3.5)
    assert needed == pytest.approx(100 * math.sqrt(2))
    assert not bound
    assert steps_needed(lengths, losses, 4.0) == (100.0, "")
    assert steps_needed(lengths, losses, 2.0)[0] == pytest.approx(400)
    assert steps_needed(lengths, losses, 1.9) == (400.0, "<")
    assert steps_needed(lengths, losses, 4.1) == (100.0, ">")
    # not monotone: the fewest steps count, in the baseline's favour
    assert steps_needed(lengths, [4.0, 2.0, 3.0], 2.5)[0] == pytest.approx(100 * 2**0.75)


def test_interpolated_ratio_and_its_interval() -> None:
    base = {length: dict(enumerate(seeds(loss))) for length, loss in HALVING.items()}
    (one,) = interpolated({100: dict(enumerate(seeds(3.0)))}, base)  # type: ignore[arg-type]
    assert one.ratio.estimate == pytest.approx(0.5)
    assert one.ratio.low is None  # the same noise on both sides cancels
    assert one.ratio.n == 6
    noisy = dict(enumerate(seeds(3.0, NOISE[::-1])))
    (other,) = interpolated({100: noisy}, base)  # type: ignore[dict-item,arg-type]
    assert other.ratio.low is not None
    assert other.ratio.high is not None
    assert other.ratio.low < 0.5 < other.ratio.high
    (few,) = interpolated({100: {0: 3.0, 1: 3.1}}, {n: {0: x, 1: x} for n, x in HALVING.items()})
    assert few.ratio.low is None
    (beyond,) = interpolated({400: dict(enumerate(seeds(1.5)))}, base)  # type: ignore[arg-type]
    assert (beyond.ratio.estimate, beyond.bound, beyond.ratio.low) == (1.0, "<", None)


def test_interpolation_knows_only_the_seeds_that_both_have() -> None:
    base = {length: {seed: loss + 0.01 * seed for seed in range(4)} for length, loss in HALVING.items()}
    more = {seed: 3.0 + 0.01 * seed for seed in range(4)} | {4: 99.0, 5: 99.0}
    (one,) = interpolated({100: more}, base)
    assert one.ratio.estimate == pytest.approx(0.5)
    assert one.ratio.n == 4
    assert interpolated({100: {7: 3.0}}, base) == ()


def test_the_interval_of_an_interpolated_ratio_covers() -> None:
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        base = {n: dict(enumerate(loss + rng.normal(0, 0.05, 5))) for n, loss in HALVING.items()}
        (one,) = interpolated({200: dict(enumerate(2.5 + rng.normal(0, 0.05, 5)))}, base)
        assert one.ratio.low is not None
        assert one.ratio.high is not None
        covered.append(one.ratio.low <= math.sqrt(0.5) <= one.ratio.high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_run_lengths_say_the_steps_and_the_time() -> None:
    soap = by_length("soap", {100: 3.0, 200: 2.0, 400: 1.0}, ms=3.0)
    result = found(sweep(*by_length("adamw", HALVING), *soap))
    ((lengths, finding),) = result.run_lengths
    assert lengths.lengths == (100, 200, 400)
    assert [a.label for a in lengths.arms] == ["adamw", "soap"]
    assert [(r.num_steps, r.bound) for r in lengths.arms[1].ratios] == [(100, ""), (200, ""), (400, "<")]
    assert finding.sentences[0] == (
        "On charlm over 3 run lengths (100 to 400 steps, LR tuned for each), for the same test loss: soap needs 0.5× "
        "the steps of adamw (interpolated, at 2 of its 3 lengths; no interval; 6 seeds)."
    )
    assert lengths.time_ratios[lengths.arms[1].longest.style] == pytest.approx(1.5)
    assert not result.tasks


def test_an_arm_better_than_the_longest_run_has_only_a_bound() -> None:
    soap = [arm("soap", seeds(x, NOISE[::-1]), steps=n, axis=True) for n, x in {100: 1.5, 200: 1.2, 400: 1.0}.items()]
    ((_, finding),) = found(sweep(*by_length("adamw", HALVING), *soap)).run_lengths
    assert "needs less than 0.25× the steps" in finding.text
    assert "its runs of 100 steps end below the other's of 400" in finding.text
    assert any(
        "A bound is given where the paired difference of the two runs is shown" in note for note in finding.notes
    )


def test_a_bound_that_the_paired_test_does_not_show_is_not_given() -> None:
    lower = {100: 1.999, 200: 1.9985, 400: 1.998}
    soap = [arm("soap", seeds(x, NOISE[::-1]), steps=n, axis=True) for n, x in lower.items()]
    ((lengths, finding),) = found(sweep(*by_length("adamw", HALVING), *soap)).run_lengths
    assert [ratio.bound for ratio in lengths.candidates[0].ratios] == ["<"] * 3
    assert finding.sentences[0].endswith("no speed-up over adamw can be given.")
    fast = [arm("muon", seeds(x, NOISE[::-1]), steps=n, axis=True) for n, x in {100: 1.5, 200: 1.2}.items()]
    ((_, finding),) = found(sweep(*by_length("adamw", HALVING), *soap, *fast)).run_lengths
    assert "muon needs less than 0.25× the steps" in finding.text
    assert finding.sentences[0].endswith("; no speed-up of soap can be given.")


@pytest.mark.parametrize(("loss", "bound", "estimate"), [(2.0, ">", 4.0), (1e-12, "<", 0.5)])
def test_far_beyond_the_run_lengths_a_fitted_curve_gives_bounds(loss: float, bound: str, estimate: float) -> None:
    base = {100: 1e-9, 200: 0.985e-9, 400: 0.97e-9, 800: 0.955e-9}
    tiny = [value * 1e-12 for value in NOISE]
    arms = [arm("adamw", seeds(x, tiny), steps=n, axis=True) for n, x in base.items()]
    arms += [arm("soap", seeds(loss, tiny[::-1]), steps=400, axis=True)]
    arms += [arm("soap", seeds(base[200], tiny[::-1]), steps=100, axis=True)]
    ((lengths, finding),) = found(sweep(*arms)).run_lengths
    soap = lengths.candidates[0]
    assert soap.method is Method.FITTED
    assert soap.ratios[1].bound == bound
    assert soap.ratios[1].ratio.estimate == pytest.approx(estimate)
    assert soap.overall is not None
    assert soap.overall.estimate == pytest.approx(0.5, rel=0.05)
    assert any("by more than a factor of 4 only bounded" in note for note in finding.notes)


def test_looks_widen_the_intervals_of_run_lengths_and_tasks() -> None:
    fixed = two_lengths_and_tasks()
    auto = replace(fixed, plan=replace(fixed.plan, confirm=ConfirmTerms(seeds="auto")))
    plain, looked = found(fixed), found(auto)
    widths = []
    for result, said in ((plain, "95 % interval"), (looked, "97.9 % interval")):
        (lengths, finding), *_ = result.run_lengths
        ratio = lengths.candidates[0].ratios[0].ratio
        assert ratio.high is not None
        assert ratio.low is not None
        widths.append(ratio.high - ratio.low)
        assert said in finding.text
        assert all(
            said in plan.caption for held in across_plans(result) for plan in held if plan.name in ("speedup", "ranks")
        )
        assert lengths.level == result.tasks[0][0].level
    assert widths[0] < widths[1]
    assert "three looks planned, Pocock" in across_plans(looked)[0][1].caption


def two_lengths_and_tasks() -> SweepRecord:
    arms = [a for task in "ab" for a in by_length("adamw", HALVING, task=task)]
    return sweep(
        *arms,
        *(arm("soap", seeds(2.5, NOISE[::-1]), task=t, steps=100, axis=True) for t in "ab"),
        *(arm("soap", seeds(1.0, NOISE[::-1]), task=t, steps=400, axis=True) for t in "ab"),
    )


def test_the_same_losses_are_no_difference() -> None:
    noisy = [
        arm("soap", seeds(x, NOISE[::-1]), steps=n, axis=True) for n, x in {100: 3.99, 200: 3.0, 400: 2.001}.items()
    ]
    result = found(sweep(*by_length("adamw", HALVING), *noisy[1:]))
    ((_, finding),) = result.run_lengths
    assert "no difference in steps between soap and adamw is shown" in finding.text


def test_a_length_with_a_diverged_seed_is_left_out_and_named() -> None:
    soap = by_length("soap", {100: 3.0, 200: 2.0, 400: 1.0})
    soap[0] = arm("soap", [None, *seeds(3.0)[1:]], steps=100, axis=True, bracketed=False)
    ((lengths, finding),) = found(sweep(*by_length("adamw", HALVING), *soap)).run_lengths
    assert [r.num_steps for r in lengths.arms[1].ratios] == [200, 400]
    assert "Left out of the speed-up, because seeds diverged: soap at 100 steps." in finding.notes
    assert "LR not bracketed, so the loss may be lower than shown: soap at 100 steps." in finding.notes


def test_run_lengths_of_several_sweeps_and_what_keeps_them_apart() -> None:
    one = sweep(arm("adamw", seeds(4.0), steps=100), arm("soap", seeds(3.0), steps=100), name="one")
    two = sweep(arm("adamw", seeds(3.0), steps=200), arm("soap", seeds(2.0), steps=200), name="two")
    ((lengths, _),) = found(one, two).run_lengths
    assert lengths.lengths == (100, 200)
    other = sweep(*(arm(o, seeds(3.0), steps=200, facts={"batch_size": 64}) for o in ("adamw", "soap")), name="two")
    assert not found(one, other)
    ((_, finding),) = found(one, two, sweep(*two.arms, name="again")).run_lengths
    assert "again's runs of 200 steps are left out: there were others before." in finding.notes


def test_one_long_run_against_the_frontier() -> None:
    curve = {100: 3.9, 200: 2.8, 400: 2.1}
    free = [
        arm("free", seeds(2.0), steps=n, axis=True, schedule="schedule_free", reached=curve if n == 400 else None)
        for n in (100, 400)
    ]
    ((lengths, finding),) = found(sweep(*by_length("adamw", HALVING), *free)).run_lengths
    (frontier,) = lengths.frontier
    assert frontier.num_steps == (100, 200)
    assert [d.mean for d in frontier.differences] == pytest.approx([-0.1, -0.2])
    assert frontier.counts == {Side.BELOW: 2}
    assert "runs of 2 shorter lengths: below it at 2." in finding.sentences[1]


def test_over_several_searches_the_frontier_pairs_their_means() -> None:
    def searched(one: ArmRecord) -> ArmRecord:  # two searches of three seeds
        trials = [replace(t, seed=seed_index(t.seed // 3, t.seed % 3)) for t in one.trials]
        return replace(one, trials=tuple(trials))

    free = [
        arm("free", seeds(2.0), steps=n, axis=True, schedule="schedule_free", reached={200: 2.3, n: 2.0})
        for n in (200, 400)
    ]
    one = sweep(*map(searched, [*by_length("adamw", {200: 2.1, 400: 2.0}), *free]))
    plan = replace(one.plan, repeats=2, confirm=ConfirmTerms(seeds=3))
    ((lengths, _),) = found(replace(one, plan=plan)).run_lengths
    (frontier,) = lengths.frontier
    (held,) = frontier.differences
    assert held.n == 2
    assert held.mean == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("curve", "lost", "text"),
    [
        ({100: 3.9, 200: 2.8, 400: 2.1}, "free", "not judged at 2, where the lower one has diverged seeds"),
        ({100: 3.9, 200: 2.8, 400: 2.1}, "adamw", "below it at 2"),
        ({100: 4.1, 200: 3.2, 400: 2.1}, "free", "above it at 2"),
        ({100: 4.1, 200: 3.2, 400: 2.1}, "adamw", "above it at 1 and not judged at 1, where"),
    ],
)
def test_what_has_diverged_seeds_is_not_the_lower_one(curve: dict[int, float], lost: str, text: str) -> None:
    def ends(optimizer: str, loss: float, steps: int) -> list[float | None]:
        held = seeds(loss)
        return [*held[:-1], None] if lost == optimizer and steps in (100, 400) else held

    arms = [arm("adamw", ends("adamw", loss, n), steps=n, axis=True) for n, loss in HALVING.items()]
    arms += [
        arm("free", ends("free", 2.0, n), steps=n, axis=True, schedule="schedule_free", reached=curve)
        for n in (100, 400)
    ]
    result = found(sweep(*arms))
    ((_, finding),) = result.run_lengths
    assert text in finding.sentences[1]
    (stated,) = across_results(result)["run_lengths"][0]["frontier"]
    assert sum(stated["counts"].values()) == len(stated["differences"]) == 2
    assert [point["side"] for point in stated["differences"]].count("below") == stated["counts"].get("below", 0)
    assert stated["diverged_seeds"] == (lost == "free")
    assert "corrected over lengths, not over arms" in across_plans(result)[0][0].caption


def test_four_lengths_are_fitted() -> None:
    def curve(steps: float) -> float:
        return 10 / math.sqrt(steps) + 1

    base = {n: curve(n) for n in (100, 200, 400, 800)}
    soap = {n: curve(n / 0.7) for n in base}
    noise = [value / 20 for value in NOISE]
    arms = [arm("adamw", seeds(loss, noise), steps=n, axis=True) for n, loss in base.items()]
    arms += [arm("soap", seeds(loss, noise[::-1]), steps=n, axis=True, ms=3.0) for n, loss in soap.items()]
    ((lengths, finding),) = found(sweep(*arms)).run_lengths
    fitted = lengths.arms[1]
    assert fitted.method is Method.FITTED
    assert lengths.curve is not None
    assert lengths.curve.beta == pytest.approx(0.5, rel=1e-3)
    assert [ratio.ratio.estimate for ratio in fitted.ratios] == pytest.approx([0.7] * 4, rel=1e-3)
    assert [ratio.extrapolated for ratio in fitted.ratios] == [False, False, False, True]
    assert fitted.overall is not None
    assert fitted.overall.estimate == pytest.approx(0.7, rel=1e-3)
    assert fitted.overall.low is not None
    assert fitted.overall.high is not None
    assert fitted.overall.low < 0.7 < fitted.overall.high
    assert "soap needs 0.7× the steps of adamw (fitted at 3 of its 4 lengths; 95 % interval 0." in finding.text
    assert "; 6 seeds), which is 1.05× the time" in finding.text
    (drawn,) = across_plans(found(sweep(*arms)))
    assert [plan.name for plan in drawn] == ["frontier", "speedup", "fit"]


def test_losses_that_do_not_fall_are_interpolated() -> None:
    arms = by_length("adamw", {100: 2.0, 200: 2.1, 400: 2.2, 800: 2.3})
    ((lengths, _),) = found(sweep(*arms, *by_length("soap", {100: 2.0, 200: 1.9}))).run_lengths
    assert lengths.arms[1].method is Method.INTERPOLATED
