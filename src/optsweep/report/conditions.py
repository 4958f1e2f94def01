"""What can turn a verdict, said where the verdict is: on the page, in the terminal and in results.json alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optsweep.inference import statistics
from optsweep.inference.looks import AUTO
from optsweep.inference.steadiness import outlying, skewed
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Comparison, Conclusion, Group
from optsweep.report.machines import machines
from optsweep.report.wording import decimals, fixed, interval_name, listed, plural, span
from optsweep.tracking.schema import Size

FEW_TRIALS = 8
_NAMED = 3  # arms of which each is named; of more, the baseline and a count


def conditions(group: Group) -> tuple[str, ...]:
    """Sentences, the most important first."""
    if not group.comparisons:
        return ()
    said = [*_ended(group), *_more_looks(group), *machines(group), *_bracketing(group), *_trials(group)]
    for comparison in group.comparisons:
        said += [*_samples(comparison), *_validation(comparison), *_uneven(comparison)]
    return tuple(said)


def edges(arm: ArmResult) -> str:
    """ "adamw is not bracketed (lr on the high side)"; empty where it is."""
    sides: dict[str, list[str]] = {}
    for key, side in arm.unbracketed:
        sides.setdefault(key, []).append(side)
    where = listed([f"{key} on the {listed(found)} side" for key, found in sides.items()])
    return f"{arm.label} is not bracketed ({where})" if where else ""


def why_undecided(comparison: Comparison) -> str:
    """What the arm that ends higher was denied, so that its loss decides nothing."""
    behind = comparison.behind
    ahead = comparison.candidate if behind is comparison.baseline else comparison.baseline
    ours, theirs = (arm.num_searched for arm in (behind, ahead))
    fewer = f"{behind.label} had {plural(ours, 'search trial')} against {theirs}" if ours < theirs else ""
    return listed([reason for reason in (edges(behind), fewer) if reason])


def kinds_of_reasons(comparisons: Sequence[Comparison]) -> str:
    """The same of several comparisons with candidates that end higher, without naming them."""
    kinds = [
        ("are not bracketed", any(edges(comparison.behind) for comparison in comparisons)),
        ("had fewer search trials", any(not edges(comparison.behind) for comparison in comparisons)),
    ]
    return " or ".join(kind for kind, holds in kinds if holds)


def _ended(group: Group) -> Iterator[str]:
    """How far auto went, and why it went no further."""
    if group.stopped_at is None:
        return
    key, unit = ("sweep.repeats", "searches") if group.level.over_searches else ("confirm.seeds", "seeds")
    at = f"{key}=auto ended at {group.stopped_at} {unit}"
    open_yet = [comparison.candidate.label for comparison in group.comparisons if not comparison.decided]
    if not open_yet:
        yield f"{at}, the first of its looks at which every comparison was decided."
    elif group.stopped_at >= group.level.looks[-1]:
        which = "the comparison" if len(group.comparisons) == 1 else listed(open_yet)
        yield f"{at}, the most it runs, with {which} not decided."


def _more_looks(group: Group) -> Iterator[str]:
    """Looks that the level doesn't count: a verdict before all repeats are there, and one before the plan grew.

    After a single search nothing is called better, so that a sweep that is repeated then has not been looked at before.
    """
    if 1 < group.complete < group.repeats:
        yield "The level is for all planned repeats: to stop here because of what is seen would err more often."
    plan = group.sweep.plan
    seen = [size for size in plan.grown if plan.repeats == 1 or size.repeats != 1]
    if seen:
        each = listed([_size_in_words(size) for size in dict.fromkeys(seen)])
        yield f"The sweep grew after a verdict had been seen (over {each}), a look that the level doesn't count."


def _size_in_words(size: Size) -> str:
    """ "16 trials + 8 seeds", "4 × (16 trials + 3 seeds)"."""
    parts = [plural(size.trials, "trial")] if size.trials else []
    text = " + ".join([*parts, f"{size.seeds} seeds" if size.seeds == AUTO else plural(size.seeds, "seed")])
    return text if size.repeats == 1 else f"{size.repeats} × ({text})"


def _bracketing(group: Group) -> Iterator[str]:
    """Arms that a wider search could still improve, but those that have just been said to leave something undecided."""
    told = [c.behind for c in group.comparisons if c.outcome is Conclusion.UNDECIDED]
    open_arms = [arm for arm in group.arms if arm.unbracketed and all(arm is not other for other in told)]
    if not open_arms:
        return
    named = open_arms if len(open_arms) <= _NAMED else [arm for arm in open_arms if arm is group.baseline]
    others = len(open_arms) - len(named)
    also = [f"{plural(others, 'other arm' if named else 'arm')} {'is' if others == 1 else 'are'} not"] if others else []
    one = len(open_arms) == 1
    yield f"But {'; '.join([*map(edges, named), *also])}, so {'it' if one else 'they'} may be better than it looks."


def _trials(group: Group) -> Iterator[str]:
    done = {arm.label: arm.num_searched for arm in group.arms}
    counts = sorted(set(done.values()))
    if len(counts) > 1:
        each = listed([f"{label} {count}" for label, count in done.items()])
        yield f"The arms have had unequal numbers of search trials: {each if len(done) <= 4 else _span(counts)}."
    if 0 < counts[0] < FEW_TRIALS:
        yield f"Few search trials: {counts[0]}; under {FEW_TRIALS} the choice is mostly luck."


def _span(counts: Sequence[int]) -> str:
    return f"{counts[0]} to {counts[-1]}"


def _samples(comparison: Comparison) -> Iterator[str]:
    """Where the seeds agree and the test samples are too few, or too different, to say so of others."""
    if not comparison.over_samples or comparison.outcome not in (Conclusion.NO_DIFFERENCE, Conclusion.EQUAL):
        return
    alone = statistics.paired_t(list(comparison.differences.values()), comparison.level.confidence)
    if alone.low is not None and alone.high is not None and not alone.low <= 0 <= alone.high:
        places = decimals((alone.high - alone.low) / 2, alone.mean)
        yield (
            f"On these test samples {comparison.candidate.label} ends {'lower' if alone.mean < 0 else 'higher'} than "
            f"{comparison.baseline.label} ({interval_name(comparison.level)} over seeds alone "
            f"{span(alone.low, alone.high, places, sign=True)}); other samples may say otherwise."
        )


def _validation(comparison: Comparison) -> Iterator[str]:
    """Where validation says the reverse, and its interval leaves out zero."""
    test, val = comparison.test, comparison.val_test
    if test is None or val is None or val.low is None or val.high is None:
        return
    if test.mean * val.mean >= 0 or val.low <= 0 <= val.high:
        return
    places = decimals((val.high - val.low) / 2, val.mean)
    by = f"{'lower' if val.mean < 0 else 'higher'} by {fixed(abs(val.mean), places)}"
    interval = f"{interval_name(comparison.level)} {span(val.low, val.high, places, sign=True)}"
    yield (
        f"But validation says the reverse: there {comparison.candidate.label} ends {by} than "
        f"{comparison.baseline.label} ({interval})."
    )


def _uneven(comparison: Comparison) -> Iterator[str]:
    """Seeds that the t test leans on, or that hide a difference from it."""
    held = comparison.differences
    pair = f"{comparison.candidate.label} − {comparison.baseline.label}"
    if far := outlying(held):
        rest = statistics.paired_t([v for seed, v in held.items() if seed not in far], comparison.level.confidence)
        one, several = ("search", "searches") if comparison.searches > 1 else ("seed", "seeds")
        seeds = f"{one if len(far) == 1 else several} {listed([str(seed) for seed in far])}"
        text = f"The differences {pair} are uneven: {seeds} {'lies' if len(far) == 1 else 'lie'} far from the others"
        if rest.low is not None and rest.high is not None:
            places = decimals((rest.high - rest.low) / 2, rest.mean)
            text += f", without which the interval is {span(rest.low, rest.high, places, sign=True)}"
        yield f"{text}."
    elif skewed(held):
        yield f"The differences {pair} are skewed, so the test errs more often than its level says."
