"""The findings in plain words: a headline per group, a sentence per comparison, and what to beware of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optsweep.inference.comparison import within
from optsweep.inference.looks import Level
from optsweep.inference.statistics import Interval, PairedT
from optsweep.report.caveats import caveats, seeds_diverged
from optsweep.report.comparison import ArmResult, Comparison, Conclusion, Group
from optsweep.report.samples import unequal
from optsweep.report.wording import decimals, fixed, interval_name, listed, number, p_value, plural, size, span, times
from optsweep.tracking.names import Status
from optsweep.train.trial import Phase


@dataclass(frozen=True)
class Verdict:
    """What a group of arms says: headline first, then one sentence per comparison, then the caveats."""

    group: Group
    headline: str
    sentences: tuple[tuple[Comparison, str], ...]
    ranking: str
    budget: str  # where the arms' trials see unequal numbers of samples
    caveats: tuple[str, ...]

    @property
    def text(self) -> str:
        """In one paragraph, without the single comparisons of several."""
        return " ".join(part for part in (self.headline, self.ranking, self.budget) if part)


def verdict(group: Group) -> Verdict:
    """Put a group's findings into words."""
    sentences = tuple((comparison, sentence(comparison, group)) for comparison in group.comparisons)
    headline = sentences[0][1] if len(sentences) == 1 else _headline(group)
    ranking = _ranking(group) if len(group.arms) > 2 else ""
    return Verdict(group, headline, sentences, ranking, unequal(group), tuple(dict.fromkeys(caveats(group))))


def _headline(group: Group) -> str:
    if not group.comparisons:
        return _alone(group.baseline, group)
    by_outcome = {outcome: [c for c in group.comparisons if c.outcome is outcome] for outcome in Conclusion}
    baseline = group.baseline.label
    chosen = any(comparison.at_chosen and comparison.test for comparison in group.comparisons)
    parts = []
    for outcome, (of_one, of_several) in (_SAID_AT_CHOSEN if chosen else _SAID).items():
        found = [comparison.candidate.label for comparison in by_outcome[outcome]]
        if found:
            who = listed(found) if len(found) <= 3 else plural(len(found), "arm")
            parts.append(f"{who} {of_one if len(found) == 1 else of_several}")
    corrected = f" (Holm-corrected over {plural(group.tested, 'comparison')})" if group.tested > 1 else ""
    against = f"{AT_CHOSEN}, against {baseline}" if chosen else f"against {baseline}"
    again = f" {measured_by_repeats(group)}" if chosen else ""
    return f"On {group.title}, {against}: {'; '.join(parts)}{corrected}.{again}"


_SAID = {  # of one arm, of several
    Conclusion.BETTER: ("is better", "are better"),
    Conclusion.WORSE: ("is worse", "are worse"),
    Conclusion.EQUAL: ("is equal within ±δ", "are equal within ±δ"),
    Conclusion.NO_DIFFERENCE: ("shows no difference", "show no difference"),
    Conclusion.UNTESTED: ("can't be judged", "can't be judged"),
}


_SAID_AT_CHOSEN = {
    **_SAID,
    Conclusion.BETTER: ("ends lower", "end lower"),
    Conclusion.WORSE: ("ends higher", "end higher"),
}

AT_CHOSEN = "at the settings that this search chose"


def measured_by_repeats(group: Group) -> str:
    """What the interval of one search leaves out, and what would measure it."""
    planned = group.sweep.plan.repeats
    if planned > 1:
        return f"A repeat may move this by more than the interval; {planned} searches are planned, and will tell."
    return "A repeat may move this by more than the interval; sweep.repeats=4 measures it."


def _alone(arm: ArmResult, group: Group) -> str:
    """The sentence of a group with one arm."""
    where = f"On {group.title} there is one arm, {arm.label}, so there is nothing to compare"
    test = arm.test
    if test is None:
        return f"{where}, and {_why_no_test(arm)}."
    places = decimals(test.half_width, test.estimate)
    interval = ""
    if test.low is not None and test.high is not None:
        interval = f", 95 % interval {span(test.low, test.high, places)}"
    mean = f"{fixed(test.estimate, places)} {arm.unit}".rstrip()
    what = plural(test.n, "seed") if test.n == len(arm.test_losses) else f"{test.n} searches"
    return f"{where}: its {'mean ' if test.n > 1 else ''}test loss is {mean}{interval} over {what}."


def sentence(comparison: Comparison, group: Group) -> str:
    """One comparison in words: outcome, difference with its interval, cost, what wasn't bracketed."""
    return " ".join([outcome_sentence(comparison, group), *details(comparison)])


def details(comparison: Comparison) -> list[str]:
    """What follows the outcome: steps to target, cost, arms that weren't bracketed."""
    said = [_target(comparison), _cost(comparison), _edges(comparison)]
    return [part for part in said if part]


def outcome_sentence(comparison: Comparison, group: Group) -> str:
    """The outcome with its evidence."""
    candidate, baseline = comparison.candidate.label, comparison.baseline.label
    where = f"On {group.title}, " if len(group.comparisons) == 1 else ""
    if comparison.test is None:
        silent = [arm for arm in (comparison.candidate, comparison.baseline) if not arm.test_losses]
        why = listed([f"{arm.label}: {_why_no_test(arm)}" for arm in silent]) or "they have no seed in common"
        return f"{where}{candidate} and {baseline} can't be compared yet ({why})."
    evidence = _evidence(comparison)
    diverged = [arm for arm in (comparison.candidate, comparison.baseline) if arm.diverged_seeds]
    lost = listed([f"{arm.label} diverged on {seeds_diverged(arm)}" for arm in diverged])
    equal = ", so they can't be called equal" if within(comparison.test, comparison.delta) else ""
    also = f" But {lost}{equal}." if lost and comparison.outcome is Conclusion.NO_DIFFERENCE else ""
    if comparison.at_chosen and comparison.outcome is not Conclusion.UNTESTED:
        said = _at_chosen(comparison)
        said = f"{where}{said}" if where else f"{said[0].upper()}{said[1:]}"
        return f"{said}: {evidence}.{also} {measured_by_repeats(group)}"
    match comparison.outcome:
        case Conclusion.BETTER:
            return f"{where}{candidate} is better than {baseline}: {evidence}."
        case Conclusion.WORSE:
            return f"{where}{candidate} is worse than {baseline}: {evidence}."
        case Conclusion.EQUAL:
            return f"{where}{candidate} and {baseline} are equal within ±{number(comparison.delta)}: {evidence}."
        case Conclusion.NO_DIFFERENCE:
            return f"{where}no difference between {candidate} and {baseline} is shown: {evidence}.{also}"
    if comparison.test.p is not None:
        lead = candidate if comparison.test.mean < 0 else baseline
        return (
            f"{where}{lead} ends lower on the seeds that both finished, but {lost}, so it can't be called better: "
            f"{evidence}."
        )
    also = f" But {lost}." if lost else ""
    if comparison.test.zero_variance:
        every = "in every search" if comparison.searches > 1 else "on every seed"
        return (
            f"{where}{candidate} and {baseline} differ by the same amount {every}, so there is no variance to "
            f"test against: {evidence}.{also}"
        )
    return f"{where}one seed of {candidate} and {baseline} shows nothing yet: {evidence}, without an interval.{also}"


def _at_chosen(comparison: Comparison) -> str:
    """The outcome of one search, as far as it goes: never that an optimizer is better."""
    candidate, baseline = comparison.candidate.label, comparison.baseline.label
    match comparison.outcome:
        case Conclusion.BETTER:
            return f"{AT_CHOSEN}, {candidate} ends lower than {baseline}"
        case Conclusion.WORSE:
            return f"{AT_CHOSEN}, {candidate} ends higher than {baseline}"
        case Conclusion.EQUAL:
            return f"{AT_CHOSEN}, {candidate} and {baseline} are equal within ±{number(comparison.delta)}"
    return f"{AT_CHOSEN}, no difference between {candidate} and {baseline} is shown"


def _evidence(comparison: Comparison) -> str:
    assert comparison.test is not None
    over = paired_over(comparison)
    unit, level = comparison.baseline.unit, comparison.level
    return evidence(comparison.test, comparison.p_holm, *comparison.means, unit, level, over)


def paired_over(comparison: Comparison) -> str:
    """ "8 seeds; settings and test split held", "3 of 4 searches of 16 trials with 3 seeds each"."""
    plan = comparison.baseline.sweep.plan
    if comparison.searches > 1:
        count = f"{comparison.searches} of {plan.repeats}" if comparison.searches < plan.repeats else str(plan.repeats)
        fewest, most = min(comparison.seeds), max(comparison.seeds)
        seeds = plural(most, "seed") if fewest == most else f"{fewest} to {most} seeds"
        return f"{count} searches of {plural(plan.search.trials, 'trial')} with {seeds} each"
    text = plural(sum(comparison.seeds), "seed")
    if plan.repeats > 1:
        text += f" of the first complete search of {plan.repeats}"
    return f"{text}; settings and test split held" if comparison.at_chosen else text


def evidence(
    test: PairedT, p_holm: float | None, ours: float, theirs: float, unit: str, level: Level, over: str = ""
) -> str:
    """The difference of two mean test losses over common seeds, its interval and p value, and the two means."""
    half = None if test.low is None or test.high is None else (test.high - test.low) / 2
    places = decimals(half, test.mean if test.mean else theirs)
    size_of = f"{fixed(abs(test.mean), places)} {unit}".rstrip()
    word = "equal" if test.mean == 0 else f"{'lower' if test.mean < 0 else 'higher'} by {size_of}"
    text = f"{'mean ' if test.n > 1 else ''}test loss {word} ({fixed(ours, places)} against {fixed(theirs, places)}"
    if test.low is not None and test.high is not None:
        text += f"; {interval_name(level, 'of the difference')} {span(test.low, test.high, places, sign=True)}"
        text += f", {p_value(p_holm)}" + (" after Holm's correction" if p_holm != test.p else "")
    return f"{text}; paired over {over or plural(test.n, 'seed')})"


def _target(comparison: Comparison) -> str:
    found = comparison.steps_ratio
    if found is None:
        return ""
    if math.isinf(found.estimate):
        reached = sum(math.isfinite(ratio) for ratio in comparison.steps_ratios)
        of = f"{found.n} searches" if comparison.searches > 1 else plural(found.n, "seed")
        return f"It reaches the baseline's final validation loss on only {reached} of {of}."
    also = f" and {_ratio_of(seconds, 'time')}" if (seconds := comparison.seconds_ratio) is not None else ""
    return f"It reaches the baseline's final validation loss in {_ratio_of(found, 'steps', 'median; ')}{also}."


def _ratio_of(ratio: Interval, what: str, how: str = "") -> str:
    """ "0.5× the steps (median; interval 0.4 to 0.6)"."""
    said = f"{times(ratio.estimate)} the {what}"
    if ratio.low is None or ratio.high is None:
        return said
    return f"{said} ({how}interval {number(ratio.low, 3)} to {number(ratio.high, 3)})"


def _cost(comparison: Comparison) -> str:
    candidate, baseline = comparison.candidate, comparison.baseline
    parts = []
    if comparison.time_ratio is not None:
        ms = f"{number(candidate.ms_per_step, 3)} against {number(baseline.ms_per_step, 3)} ms"
        parts.append(f"a step takes {_as(comparison.time_ratio, 'time')} ({ms})")
    if comparison.state_ratio is not None:
        both = f"{size(candidate.state_bytes)} against {size(baseline.state_bytes)}"
        parts.append(f"its optimizer state {_as(comparison.state_ratio, 'bytes')} ({both})")
    said = listed(parts)
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _as(ratio: float, what: str) -> str:
    return f"the same {what}" if abs(ratio - 1) < 0.005 else f"{times(ratio)} the {what}"


def _edges(comparison: Comparison) -> str:
    """Arms whose best value has nothing worse beyond it: a wider search could still improve them."""
    parts = []
    for arm in (comparison.candidate, comparison.baseline):
        sides: dict[str, list[str]] = {}
        for key, side in arm.unbracketed:
            sides.setdefault(key, []).append(side)
        edges = listed([f"{key} on the {listed(found)} side" for key, found in sides.items()])
        if edges:
            parts.append(f"{arm.label} is not bracketed ({edges}), so it may be better than it looks")
    return f"But {'; '.join(parts)}." if parts else ""


def _ranking(group: Group) -> str:
    """What can be said about the lowest mean: never a lucky winner's name alone."""
    excluded = [arm.label for arm in group.arms if arm.test and arm.diverged_seeds]
    left_out = f" {listed(excluded)} diverged on some seeds and {'is' if len(excluded) == 1 else 'are'} not ranked."
    left_out = left_out if excluded else ""
    ranked = sum(1 for arm in group.arms if arm.test and not arm.diverged_seeds)
    if ranked < 2:
        return left_out.strip()
    first, *tied = group.lowest
    if not tied:
        said = f"{first.label}'s mean test loss is below that of every other arm (all pairs tested, Holm-corrected)."
    elif len(tied) == ranked - 1:
        said = "No arm can be told from the arm with the lowest mean test loss (all pairs tested, Holm-corrected)."
    else:
        shared = listed([first.label, *(arm.label for arm in tied)])
        said = (
            f"The lowest mean test losses are those of {shared}; no difference is shown between the first and the rest."
        )
    return said + left_out


def _why_no_test(arm: ArmResult) -> str:
    if not arm.arm.trials:
        return "it has no trials yet"
    if not arm.confirm:
        search = arm.arm.of(Phase.SEARCH)
        if search and all(trial.status is Status.DIVERGED for trial in search):
            return f"all {plural(len(search), 'search trial')} diverged"
        return "it has no confirm trials yet" if arm.num_seeds else "no confirm seeds were asked for"
    if arm.diverged_seeds == len(arm.confirm):
        return f"it diverged on {'its one seed' if len(arm.confirm) == 1 else f'all {len(arm.confirm)} seeds'}"
    return "none of its confirm trials has finished"
