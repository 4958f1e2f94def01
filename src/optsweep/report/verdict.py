"""The findings in plain words: a headline per group, a sentence per comparison, and what to beware of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optsweep.inference.comparison import within
from optsweep.inference.looks import AUTO, Level, repeats_done, searches_in_words
from optsweep.inference.statistics import Interval, PairedT
from optsweep.report.arm_result import LOSS, ArmResult
from optsweep.report.caveats import caveats, notes, seeds_diverged
from optsweep.report.comparison import Comparison, Conclusion, Group
from optsweep.report.conditions import conditions, kinds_of_reasons, why_undecided
from optsweep.report.samples import unequal
from optsweep.report.wording import (
    capital,
    decimals,
    difference,
    fixed,
    interval_name,
    listed,
    number,
    p_value,
    plural,
    size,
    span,
    times,
)
from optsweep.tracking.names import Status
from optsweep.train.trial import Phase

_MOST_REASONS = 3  # that a headline spells out


@dataclass(frozen=True)
class Verdict:
    """What a group of arms says: headline first, then one sentence per comparison, then the caveats."""

    group: Group
    headline: str
    sentences: tuple[tuple[Comparison, str], ...]
    ranking: str
    conditions: tuple[str, ...]  # what can turn it
    budget: str  # where the arms' trials see unequal numbers of samples
    caveats: tuple[str, ...]
    notes: tuple[str, ...]  # what was said of the arms when they were built

    @property
    def text(self) -> str:
        """In one paragraph, without the single comparisons of several."""
        return " ".join(part for part in (self.headline, self.ranking, *self.conditions, self.budget) if part)


def verdict(group: Group) -> Verdict:
    """Put a group's findings into words."""
    sentences = tuple((comparison, sentence(comparison, group)) for comparison in group.comparisons)
    headline = provisional(group) + (sentences[0][1] if len(sentences) == 1 else _headline(group))
    ranking = _ranking(group) if len(group.arms) > 2 else ""
    beware = tuple(dict.fromkeys(caveats(group)))
    return Verdict(group, headline, sentences, ranking, conditions(group), unequal(group), beware, tuple(notes(group)))


def provisional(group: Group) -> str:
    """What comes before a headline while repeats are still to come; empty where none are."""
    planned = group.sweep.plan.repeats
    if planned == 1 or group.complete >= group.repeats:
        return ""
    said = repeats_done(group.complete, AUTO if planned == AUTO else group.repeats)
    return f"{capital(said)}. "


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
    parts += _undecided(by_outcome[Conclusion.UNDECIDED])
    corrected = f" (Holm-corrected over {plural(group.tested, 'comparison')})" if group.tested > 1 else ""
    over = f" ({held})" if (held := _over(group)) else ""
    against = f"{AT_CHOSEN}, against {baseline}" if chosen else f"against {baseline}"
    again = f" {measured_by_repeats(group)}" if chosen else ""
    return f"On {group.title}{over}, {against}: {'; '.join(parts)}{corrected}.{again}"


def _over(group: Group) -> str:
    """ "paired over 8 seeds, 30 test samples": what all comparisons hold over; of unlike ones the samples alone."""
    tested = [comparison for comparison in group.comparisons if comparison.test]
    over = {paired_over(comparison) for comparison in tested}
    paired = f"paired over {over.pop()}" if len(over) == 1 else ""
    samples = "" if paired and tested[0].over_samples else _test_samples(group.baseline)
    return ", ".join(part for part in (paired, samples) if part)


def _undecided(comparisons: Sequence[Comparison]) -> list[str]:
    """Per side and reason: who ends lower or higher, and why that decides nothing; of many reasons their kinds."""
    said = []
    for where in dict.fromkeys(map(side, comparisons)):
        of_side = [comparison for comparison in comparisons if side(comparison) == where]
        found: dict[str, list[str]] = {}
        for comparison in of_side:
            found.setdefault(why_undecided(comparison), []).append(comparison.candidate.label)
        if len(found) > _MOST_REASONS and all(comparison.behind is comparison.candidate for comparison in of_side):
            said.append(f"{plural(len(of_side), 'arm')} end {where}, but {kinds_of_reasons(of_side)}: not decided")
            continue
        said += [
            f"{listed(who) if len(who) <= 3 else plural(len(who), 'arm')} {'ends' if len(who) == 1 else 'end'} {where}"
            f", but {why}: not decided"
            for why, who in found.items()
        ]
    return said


def side(comparison: Comparison) -> str:
    """Where the candidate ends."""
    return "lower" if comparison.behind is comparison.baseline else "higher"


def _test_samples(arm: ArmResult) -> str:
    return "" if arm.num_test is None else plural(arm.num_test, "test sample")


_SAID = {  # of one arm, of several
    Conclusion.BETTER: ("is better", "are better"),
    Conclusion.SLIGHTLY_BETTER: ("is better, by less than δ", "are better, by less than δ"),
    Conclusion.WORSE: ("is worse", "are worse"),
    Conclusion.SLIGHTLY_WORSE: ("is worse, by less than δ", "are worse, by less than δ"),
    Conclusion.EQUAL: ("is equal within ±δ", "are equal within ±δ"),
    Conclusion.NO_DIFFERENCE: ("shows no difference", "show no difference"),
    Conclusion.UNTESTED: ("can't be judged", "can't be judged"),
}


_SAID_AT_CHOSEN = {
    **_SAID,
    Conclusion.BETTER: ("ends lower", "end lower"),
    Conclusion.SLIGHTLY_BETTER: ("ends lower, by less than δ", "end lower, by less than δ"),
    Conclusion.WORSE: ("ends higher", "end higher"),
    Conclusion.SLIGHTLY_WORSE: ("ends higher, by less than δ", "end higher, by less than δ"),
}

AT_CHOSEN = "at the settings that this search chose"


def measured_by_repeats(group: Group) -> str:
    """What the interval of one search leaves out, and what would measure it."""
    planned = group.sweep.plan.repeats
    if planned != 1:
        more = f"{searches_in_words(planned)} are planned, and will tell"
        return f"A repeat may move this by more than the interval; {more}."
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
    lost = f" But {arm.label} diverged on {seeds_diverged(arm)}." if arm.diverged_seeds else ""
    return f"{where}: its {'mean ' if test.n > 1 else ''}test {arm.measure} is {mean}{interval} over {what}.{lost}"


def sentence(comparison: Comparison, group: Group) -> str:
    """One comparison in words: outcome, difference with its interval, steps to target, cost."""
    return " ".join([outcome_sentence(comparison, group), *details(comparison)])


def details(comparison: Comparison) -> list[str]:
    """What follows the outcome: steps to target, cost."""
    said = [_target(comparison), _cost(comparison)]
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
    also = f" Only seeds that both finished count: {lost}." if lost else ""
    if lost and comparison.outcome is Conclusion.NO_DIFFERENCE:
        also = f" But {lost}{equal}."
    if comparison.at_chosen and comparison.outcome is not Conclusion.UNTESTED:
        said = _at_chosen(comparison)
        said = f"{where}{said}" if where else capital(said)
        open_yet = comparison.outcome is Conclusion.UNDECIDED
        but = f"; but {why_undecided(comparison)}: not decided" if open_yet else ""
        return f"{said}: {evidence}{but}.{also} {measured_by_repeats(group)}"
    match comparison.outcome:
        case Conclusion.BETTER | Conclusion.SLIGHTLY_BETTER | Conclusion.WORSE | Conclusion.SLIGHTLY_WORSE as shown:
            said = f"{where}{candidate} is {'better' if shown.better else 'worse'} than {baseline}"
            small = shown in (Conclusion.SLIGHTLY_BETTER, Conclusion.SLIGHTLY_WORSE)
            return f"{said}{f', by less than {number(comparison.delta)}' if small else ''}: {evidence}.{also}"
        case Conclusion.UNDECIDED:
            why = why_undecided(comparison)
            return (
                f"{where}{candidate} ends {side(comparison)} than {baseline}, {evidence}, but {why}: not decided.{also}"
            )
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
        case Conclusion.EQUAL:
            return f"{AT_CHOSEN}, {candidate} and {baseline} are equal within ±{number(comparison.delta)}"
        case Conclusion.NO_DIFFERENCE:
            return f"{AT_CHOSEN}, no difference between {candidate} and {baseline} is shown"
    small = comparison.outcome in (Conclusion.SLIGHTLY_BETTER, Conclusion.SLIGHTLY_WORSE)
    by = f", by less than {number(comparison.delta)}" if small else ""
    return f"{AT_CHOSEN}, {candidate} ends {side(comparison)} than {baseline}{by}"


def _evidence(comparison: Comparison) -> str:
    assert comparison.test is not None
    over = paired_over(comparison)
    unit, measure = comparison.baseline.unit, comparison.baseline.measure
    samples = "" if comparison.over_samples else _test_samples(comparison.baseline)
    said = comparison.test, comparison.p_holm, *comparison.means, unit, comparison.level
    return evidence(*said, over, samples, measure)


def paired_over(comparison: Comparison) -> str:
    """ "8 seeds; settings and test split held", "3 of 4 searches of 16 trials with 3 seeds each"."""
    plan = comparison.baseline.sweep.plan
    if comparison.searches > 1:
        planned = comparison.baseline.repeats
        count = f"{comparison.searches} of {planned}" if comparison.searches < planned else str(planned)
        fewest, most = min(comparison.seeds), max(comparison.seeds)
        seeds = plural(most, "seed") if fewest == most else f"{fewest} to {most} seeds"
        split = ", train/validation split redrawn" if comparison.baseline.resplit else ""
        each = f"{plural(plan.search.trials, 'trial')} with {seeds} each{split}"
        return f"{count} searches of {each}{_and_samples(comparison)}"
    text = plural(sum(comparison.seeds), "seed")
    if comparison.baseline.repeats > 1:
        text += f" of the first complete search of {comparison.baseline.repeats}"
    if comparison.over_samples:
        text += _and_samples(comparison)
        return f"{text}; settings held" if comparison.at_chosen else text
    return f"{text}; settings and test split held" if comparison.at_chosen else text


def _and_samples(comparison: Comparison) -> str:
    """ " and over 1,024 test samples", where interval and p are."""
    return f" and over {_test_samples(comparison.baseline)}" if comparison.over_samples else ""


def evidence(
    test: PairedT,
    p_holm: float | None,
    ours: float,
    theirs: float,
    unit: str,
    level: Level,
    over: str = "",
    samples: str = "",
    measure: str = LOSS,
) -> str:
    """The difference of two mean test losses over common seeds, its interval and p value, and the two means."""
    half = None if test.low is None or test.high is None else (test.high - test.low) / 2
    places = decimals(half, test.mean if test.mean else theirs)
    size_of = f"{difference(abs(test.mean), places)} {unit}".rstrip()
    word = "equal" if test.mean == 0 else f"{'lower' if test.mean < 0 else 'higher'} by {size_of}"
    text = (
        f"{'mean ' if test.n > 1 else ''}test {measure} {word} ({fixed(ours, places)} against {fixed(theirs, places)}"
    )
    if test.low is not None and test.high is not None:
        text += f"; {interval_name(level, 'of the difference')} {span(test.low, test.high, places, sign=True)}"
        text += f", {p_value(p_holm)}" + (" after Holm's correction" if p_holm != test.p else "")
    return f"{text}; paired over {over or plural(test.n, 'seed')}{f', {samples}' if samples else ''})"


def _target(comparison: Comparison) -> str:
    found = comparison.steps_ratio
    if found is None:
        return ""
    measure = comparison.baseline.measure
    if math.isinf(found.estimate):
        reached = sum(math.isfinite(ratio) for ratio in comparison.steps_ratios)
        of = f"{found.n} searches" if comparison.searches > 1 else plural(found.n, "seed")
        share = f"only {reached}" if reached else "none"
        return f"It reaches the baseline's final validation {measure} on {share} of {of}."
    also = f" and {_ratio_of(seconds, 'time')}" if (seconds := comparison.seconds_ratio) is not None else ""
    steps = _ratio_of(found, "steps", f"{comparison.steps_ratio_of}; ")
    return f"It reaches the baseline's final validation {measure} in {steps}{also}."


def _ratio_of(ratio: Interval, what: str, how: str = "") -> str:
    """ "0.5× the steps (geometric mean; 95 % interval 0.4 to 0.6)"."""
    said = f"{times(ratio.estimate)} the {what}"
    if ratio.low is None or ratio.high is None:
        return said
    return f"{said} ({how}95 % interval {number(ratio.low, 3)} to {number(ratio.high, 3)})"


def _cost(comparison: Comparison) -> str:
    candidate, baseline = comparison.candidate, comparison.baseline
    parts = []
    if comparison.time_ratio is not None:
        ms = f"{number(candidate.ms_per_step, 3)} against {number(baseline.ms_per_step, 3)} ms"
        parts.append(f"a step takes {_as(comparison.time_ratio, 'time')} ({ms})")
    if comparison.state_ratio is not None:
        both = f"{size(candidate.state_bytes)} against {size(baseline.state_bytes)}"
        verb = "" if parts else " takes"
        parts.append(f"its optimizer state{verb} {_as(comparison.state_ratio, 'bytes')} ({both})")
    said = listed(parts)
    return f"{capital(said)}." if said else ""


def _as(ratio: float, what: str) -> str:
    return f"the same {what}" if abs(ratio - 1) < 0.005 else f"{times(ratio)} the {what}"


def _ranking(group: Group) -> str:
    """What can be said about the lowest mean: never a lucky winner's name alone."""
    excluded = [arm.label for arm in group.arms if arm.test and arm.diverged_seeds]
    left_out = f" {listed(excluded)} diverged on some seeds and {'is' if len(excluded) == 1 else 'are'} not ranked."
    left_out = left_out if excluded else ""
    ranked = sum(1 for arm in group.arms if arm.test and not arm.diverged_seeds)
    if ranked < 2:
        return left_out.strip()
    if not group.lowest:
        return left_out.strip()
    first, *tied = group.lowest
    measure = group.baseline.measure
    if not tied:
        said = f"{first.label}'s mean test {measure} is below that of every other arm ({_tests(group)})."
    elif len(tied) == ranked - 1:
        said = f"No arm can be told from the arm with the lowest mean test {measure} ({_tests(group)})."
    else:
        shared = listed([first.label, *(arm.label for arm in tied)])
        lowest = f"The lowest mean test {group.baseline.measures} are those of {shared}"
        said = f"{lowest}; no difference is shown between the first and the rest."
    undecided = any(comparison.outcome is Conclusion.UNDECIDED for comparison in group.comparisons)
    return f"{'By the chosen settings alone: ' if undecided else ''}{said}{left_out}"


def _tests(group: Group) -> str:
    return f"all pairs tested, Holm-corrected; those with {group.baseline.label} also as above"


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
