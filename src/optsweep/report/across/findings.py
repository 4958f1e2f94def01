"""What a report says across its groups, put into words: over run lengths, and over tasks.

A group is one task in one setting; `verdict.py` speaks of each alone. Nothing here changes what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optsweep.inference.comparison import differences, holm, paired
from optsweep.inference.looks import Level
from optsweep.inference.loss_curve import MIN_LENGTHS
from optsweep.inference.statistics import Interval
from optsweep.report.across.factorial import Factorial, factorials
from optsweep.report.across.frontier import OnFrontier, Side
from optsweep.report.across.lengths import FURTHEST, LengthArm, Method, RunLengths, run_lengths
from optsweep.report.across.tasks import OverTasks, over_tasks
from optsweep.report.arm_result import ArmResult, measured
from optsweep.report.comparison import Conclusion, Group
from optsweep.report.verdict import AT_CHOSEN
from optsweep.report.wording import listed, number, p_value, percent, plural, plus_minus_difference, times
from optsweep.train.trial import Phase

_LOOSE = 0.05  # of the fall of the loss over the run lengths: a worse fit is a caveat
_NAMED = 3  # candidates of which each is spoken; of more, only what stands out


@dataclass(frozen=True)
class Statement:
    """What a family of groups says: the sentences, the most important first, and what to beware of."""

    sentences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """In one paragraph."""
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Across:
    """All findings beyond single comparisons; empty for groups without anything in common and for no square of arms."""

    run_lengths: tuple[tuple[RunLengths, Statement], ...]
    tasks: tuple[tuple[OverTasks, Statement], ...]
    factorials: tuple[tuple[Factorial, Statement], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.run_lengths or self.tasks or self.factorials)

    def around(self, verdicts: Sequence[str]) -> tuple[str, ...]:
        """All paragraphs as they are read: what holds over groups, their own verdicts, then effects within one."""
        over = (*self.run_lengths, *self.tasks)
        return *(found.text for _, found in over), *verdicts, *(found.text for _, found in self.factorials)


def across(groups: Sequence[Group]) -> Across:
    """What the groups of a report say together."""
    return Across(
        tuple((lengths, _on_run_lengths(lengths)) for lengths in run_lengths(groups)),
        tuple((tasks, _on_tasks(tasks)) for tasks in over_tasks(groups)),
        tuple((crossed, _on_factorial(crossed)) for crossed in factorials(groups)),
    )


# -- run lengths ---------------------------------------------------------------------------------------------------


def _on_run_lengths(lengths: RunLengths) -> Statement:
    first, last = lengths.lengths[0], lengths.lengths[-1]
    where = (
        f"On {lengths.title} over {len(lengths.lengths)} run lengths ({first:,} to {last:,} steps, LR tuned for each)"
    )
    said = [(arm, text) for arm in lengths.candidates if (text := _needs(arm, lengths))]
    silent = [arm.label for arm in lengths.candidates if all(arm is not other for other, _ in said)]
    measure = lengths.baseline.longest.measure
    sentences = []
    if not lengths.candidates:
        sentences.append(f"{where} only {lengths.baseline.label} was run.")
    elif not said:
        sentences.append(f"{where} no speed-up over {lengths.baseline.label} can be given.")
    else:
        texts = [text for _, text in said]
        texts += [f"no speed-up of {listed(silent, 'or')} can be given"] if silent else []
        sentences.append(f"{where}, for the same test {measure}: {'; '.join(texts)}.")
    sentences += [_of_frontier(found, lengths) for found in lengths.frontier]
    notes = list(lengths.notes)
    if any(arm.method is Method.INTERPOLATED for arm, _ in said):
        notes.append(
            f"Interpolated: between {lengths.baseline.label}'s run lengths the {measure} is taken to be linear in the "
            f"logarithm of the steps. A fitted curve needs {MIN_LENGTHS} lengths without a diverged seed, and "
            f"{lengths.baseline.longest.measures} that fall with the length."
        )
    if any(not any(ratio.within for ratio in arm.ratios) for arm, _ in said):
        notes.append(
            "A bound is given where the paired difference of the two runs is shown at p < "
            f"{number(lengths.level.alpha, 3)}, corrected over lengths, not over arms."
        )
    notes += _of_fit(lengths)
    if any(run.confirm and len(run.test_losses) < 2 for arm in lengths.arms for run in arm.runs.values()):
        notes.append("A length with one seed has no interval.")
    return Statement(tuple(sentences), tuple(notes))


def _needs(arm: LengthArm, lengths: RunLengths) -> str:
    """ "soap needs 0.61× the steps of adamw (fitted; 95 % interval 0.55 to 0.68), 0.79× the time"."""
    steps = f"the steps of {lengths.baseline.label}"
    if arm.overall is not None:
        interval = _interval(arm.overall, lengths.level)
        inside = sum(ratio.within for ratio in arm.ratios)
        at = "" if inside == len(arm.ratios) else f" at {inside} of its {plural(len(arm.ratios), 'length')}"
        said = f"{arm.method}{at}; {interval or 'no interval'}; {plural(arm.overall.n, 'seed')}"
        if arm.overall.low is not None and arm.overall.high is not None and arm.overall.low <= 1 <= arm.overall.high:
            return f"no difference in steps between {arm.label} and {lengths.baseline.label} is shown ({said})"
        seconds = lengths.time_ratios.get(arm.longest.style)
        also = f", which is {times(arm.overall.estimate * seconds)} the time" if seconds is not None else ""
        return f"{arm.label} needs {times(arm.overall.estimate)} {steps} ({said}){also}"
    if not arm.ratios:
        return ""
    if not any(ratio.within for ratio in arm.ratios):
        return _beyond(arm, lengths)
    return _between(arm, lengths)


def _of_fit(lengths: RunLengths) -> list[str]:
    """A curve that misses the losses by much of what they fall, and what was read beyond it."""
    found = []
    baseline = lengths.baseline.longest
    if (curve := lengths.curve) is not None:
        ends = curve.loss([curve.shortest, curve.longest])
        fall = float(ends[0] - ends[1])
        if 0 < fall < curve.rmse / _LOOSE:
            found.append(
                f"The fitted curve misses {lengths.baseline.label}'s mean {baseline.measures} by "
                f"{number(curve.rmse, 2)} (root mean square), {curve.rmse / fall:.0%} of what they fall by."
            )
    fitted = [arm for arm in lengths.candidates if arm.method is Method.FITTED]
    if far := [arm.label for arm in fitted if not all(ratio.within for ratio in arm.ratios)]:
        found.append(
            f"Lengths of {listed(far)} whose {baseline.measure} lies beyond {lengths.baseline.label}'s runs are in the "
            f"table, but not in the speed-up above: there the curve is extrapolated, and by more than a factor of "
            f"{FURTHEST} only bounded."
        )
    return found


def _between(arm: LengthArm, lengths: RunLengths) -> str:
    """Ratios of several lengths without a fit over them: their range, and at how many of the lengths they hold."""
    held = [found.ratio for found in arm.ratios if not found.bound]
    of = f"of its {plural(len(arm.ratios), 'length')}"
    at = f"{arm.method}, at {len(held)} {of}"
    known = [ratio for ratio in held if ratio.low is not None]
    if known and all((ratio.low or 0) <= 1 <= (ratio.high or 0) for ratio in known):
        at = f"{arm.method}, with an interval at {len(known)} {of}"
        return f"no difference in steps between {arm.label} and {lengths.baseline.label} is shown ({at})"
    if not known:
        at += "; no interval"
    elif len(held) == 1:
        at += f"; {_interval(held[0], lengths.level)}"
    seeds = sorted({ratio.n for ratio in held})
    at += f"; {plural(seeds[0], 'seed')}" if len(seeds) == 1 else f"; {seeds[0]} to {seeds[-1]} seeds"
    low, high = (times(end(ratio.estimate for ratio in held)) for end in (min, max))
    return (
        f"{arm.label} needs {low if low == high else f'{low} to {high}'} the steps of {lengths.baseline.label} ({at})"
    )


def _beyond(arm: LengthArm, lengths: RunLengths) -> str:
    """The baseline's runs enclose none of the arm's losses: its steps over those of their near end are a bound.

    A bound has to be shown: by the paired test of the two runs, corrected over the arm's lengths.
    """
    theirs = [n for n, run in lengths.baseline.runs.items() if run.test and not run.diverged_seeds]
    first, last = min(theirs), max(theirs)
    steps = f"the steps of {lengths.baseline.label}"
    if below := [n for n, mean in _shown(arm, lengths, last).items() if mean < 0]:
        runs = f"its runs of {min(below):,} steps end below the other's of {last:,}"
        return f"{arm.label} needs less than {times(min(below) / last)} {steps} ({runs})"
    if above := [n for n, mean in _shown(arm, lengths, first).items() if mean > 0]:
        runs = f"its runs of {max(above):,} steps end above the other's of {first:,}"
        return f"{arm.label} needs more than {times(max(above) / first)} {steps} ({runs})"
    return ""


def _shown(arm: LengthArm, lengths: RunLengths, theirs: int) -> dict[int, float]:
    """By length: mean differences of the arm's runs from the baseline's of `theirs` steps that are shown."""
    baseline = lengths.baseline.runs[theirs]
    tests = {}
    for n in (found.num_steps for found in arm.ratios):
        tests[n] = paired(differences(arm.runs[n], baseline), arm.runs[n], baseline, lengths.level)
    p_values = holm(test.p if test else None for test in tests.values())
    return {
        n: test.mean
        for (n, test), p in zip(tests.items(), p_values, strict=True)
        if test is not None and p is not None and p < lengths.level.alpha
    }


def _interval(interval: Interval, level: Level) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{percent(level.confidence)} interval {number(interval.low, 3)} to {number(interval.high, 3)}"


_SIDES = {
    Side.BELOW: "below it at {}",
    Side.ABOVE: "above it at {}",
    Side.OPEN: "not shown to differ from it at {}",
    Side.DIVERGED: "not judged at {}, where the lower one has diverged seeds",
}


def _of_frontier(found: OnFrontier, lengths: RunLengths) -> str:
    parts = [_SIDES[side].format(count) for side, count in found.counts.items()]
    of = plural(len(found.num_steps), "shorter length")
    return (
        f"The validation curve of {found.arm.label}'s one run of {found.arm.num_steps:,} steps, against the "
        f"frontier of {lengths.baseline.label}'s runs of {of}: {listed(parts)}."
    )


# -- tasks ---------------------------------------------------------------------------------------------------------


def _on_tasks(tasks: OverTasks) -> Statement:
    where = f"Over {plural(len(tasks.tasks), 'task')}" + (f" ({tasks.title})" if tasks.title else "")
    baseline, *candidates = tasks.arms
    sentences = []
    if len(candidates) <= _NAMED:
        records = [f"{arm.label} {record(counts)}" for arm, counts in zip(candidates, tasks.outcomes[1:], strict=True)]
        sentences.append(f"{where}, against {baseline.label}: {'; '.join(records)}.")
    else:
        sentences.append(f"{where}, against {baseline.label}: {_summary(tasks)}.")
    if tasks.mean_ranks:
        sentences.append(_ranked(tasks))
    notes = list(tasks.notes)
    own = [task for task in tasks.solvable if task.target is not None and not task.target.of_task]
    if own:
        measure, which = measured(task.arms[0] for task in own), listed([task.task for task in own])
        notes.append(
            f"The target of {which} is {baseline.label}'s median final validation {measure}, which flatters the "
            "others a little: it was seen in the same data."
        )
    unsolvable = [task.task for task in tasks.tasks if task.target is None]
    if unsolvable:
        notes.append(f"No target for {listed(unsolvable)}: {baseline.label} has no finished run there.")
    return Statement(tuple(sentences), tuple(notes))


_RECORD = {
    Conclusion.BETTER: "better on {}",
    Conclusion.SLIGHTLY_BETTER: "better, by less than δ, on {}",
    Conclusion.WORSE: "worse on {}",
    Conclusion.SLIGHTLY_WORSE: "worse, by less than δ, on {}",
    Conclusion.EQUAL: "equal within ±δ on {}",
    Conclusion.NO_DIFFERENCE: "no difference shown on {}",
    Conclusion.UNDECIDED: "not decided on {}",
    Conclusion.UNTESTED: "not judged on {}",
}


def record(counts: Mapping[Conclusion, int]) -> str:
    """ "better on 2, no difference shown on 1"."""
    return listed([text.format(counts[outcome]) for outcome, text in _RECORD.items() if outcome in counts])


def _summary(tasks: OverTasks) -> str:
    """Of many candidates: who is better or worse on how many tasks, and how many are neither."""
    parts = []
    shown = [
        (sum(n for of, n in counts.items() if of.better), sum(n for of, n in counts.items() if of.worse))
        for counts in tasks.outcomes
    ]
    for place, outcome in enumerate(("better", "worse")):
        found = [(counts[place], arm.label) for arm, counts in zip(tasks.arms, shown, strict=True) if counts[place]]
        found.sort(key=lambda held: -held[0])
        named = [f"{label} on {count}" for count, label in found[:_NAMED]]
        rest = len(found) - len(named)
        named += [f"{plural(rest, 'other arm')} on some"] if rest > 0 else []
        if named:
            parts.append(f"{outcome} are {listed(named)}" if len(found) > 1 else f"{outcome} is {named[0]}")
    silent = sum(not any(counts) for counts in shown[1:])
    if silent:
        parts.append(f"{plural(silent, 'arm')} neither better nor worse on any")
    return "; ".join(parts)


def _ranked(tasks: OverTasks) -> str:
    """The lowest mean rank, and whose interval reaches it: never a lucky winner's name alone."""
    held = sorted(zip(tasks.mean_ranks, tasks.arms, strict=True), key=lambda pair: pair[0].estimate)
    (first, best), others = held[0], held[1:]
    if first.low is None or first.high is None:
        each = listed([f"{arm.label} {number(rank.estimate, 3)}" for rank, arm in held[:_NAMED]])
        return f"Mean rank by test {tasks.measure}, without an interval: {each}{' …' if len(held) > _NAMED else ''}."
    tied: list[ArmResult] = [arm for rank, arm in others if (rank.low or math.inf) <= first.high]
    text = (
        f"The lowest mean rank by test {tasks.measure} is {best.label}'s, {number(first.estimate, 3)} among "
        f"{len(held)} arms ({_interval(first, tasks.level)})"
    )
    if not tied:
        return f"{text}; no other arm's interval reaches it."
    reach = "reaches it" if len(tied) == 1 else "reach it"
    who = listed([arm.label for arm in tied]) if len(tied) <= _NAMED else f"{len(tied)} other arms"
    return f"{text}; the interval{'s' if len(tied) > 1 else ''} of {who} {reach}."


# -- two choices crossed -------------------------------------------------------------------------------------------


def _on_factorial(crossed: Factorial) -> Statement:
    base = crossed.arms[0]
    first, second = (
        factor if other == "none" else f"{factor} instead of {other}"
        for factor, other in zip(crossed.factors, crossed.instead_of, strict=True)
    )
    effects = (*crossed.alone, crossed.together, crossed.interaction)
    one, other, both, beyond = map(plus_minus_difference, effects)
    unit = f"in {base.unit}; " if base.unit else ""
    one_search = not crossed.over_searches and base.sweep.planned(Phase.SEARCH) > 0
    held = [AT_CHOSEN] if one_search else []
    held += [f"on these {plural(base.num_test, 'test sample')}"] if base.num_test is not None else []
    lead = (
        f"On {', '.join(filter(None, (crossed.title, listed(held))))}, {first} alone changes the mean test "
        f"{base.measure} by {one}, {second} alone by {other}, both together by {both} "
        f"({unit}±: half of the {percent(crossed.level.confidence)} t interval over {crossed.num_differences})."
    )
    p = f" ({p_value(crossed.interaction.p)})" if crossed.interaction.p is not None else ""
    if crossed.shown:
        how = "more" if (crossed.interaction.mean < 0) == (crossed.together.mean < 0) else "less"
        verdict = f"Together they do {how} than the sum of what each does alone: a difference of {beyond}{p}."
    else:
        verdict = f"No interaction is shown: both together differ from the sum of each alone by {beyond}{p}."
    notes = []
    if loose := [arm.label for arm in crossed.arms if arm.unbracketed]:
        notes.append(f"Not bracketed: {listed(loose)}. A wider search may change these effects.")
    if one_search:
        notes.append("These are effects at the settings that one search chose; another may move them by more than ±.")
    return Statement((lead, verdict), tuple(notes))
