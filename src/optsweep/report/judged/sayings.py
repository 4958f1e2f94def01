"""The findings about runs in plain words: a sentence per comparison, a headline, and the conditions of all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from optsweep.inference import comparison as paired_runs
from optsweep.inference.comparison import Conclusion
from optsweep.inference.statistics import mean_interval
from optsweep.inference.steadiness import outlying, skewed
from optsweep.report.judged.findings import Judgement, Procedure, RunComparison
from optsweep.report.judged.question import LAST
from optsweep.report.judged.runs import RunArm
from optsweep.report.wording import capital, decimals, fixed, listed, number, p_value, percent, plural, span

NOT_JUDGED = "not judged"
UNKNOWN = (
    "This is about the settings that ran: whether the arms had equal tuning budgets, and whether a search was "
    "included, isn't known, so tuning isn't in the intervals."
)
_MOST_NAMED = 6  # arms that a headline names for an outcome; each has a sentence of its own too

_LESS = ", by less than δ"
_WORDS = {  # of a metric that is better lower: badge's class, badge, of one arm, of several
    Conclusion.BETTER: ("good", "lower", "ends lower", "end lower"),
    Conclusion.SLIGHTLY_BETTER: ("good", f"lower{_LESS}", f"ends lower{_LESS}", f"end lower{_LESS}"),
    Conclusion.WORSE: ("bad", "higher", "ends higher", "end higher"),
    Conclusion.SLIGHTLY_WORSE: ("bad", f"higher{_LESS}", f"ends higher{_LESS}", f"end higher{_LESS}"),
    Conclusion.EQUAL: ("same", "equal within ±δ", "is equal within ±δ", "are equal within ±δ"),
    Conclusion.NO_DIFFERENCE: ("same", "no difference shown", "shows no difference", "show no difference"),
    Conclusion.UNDECIDED: ("open", NOT_JUDGED, "can't be judged", "can't be judged"),
    Conclusion.UNTESTED: ("open", NOT_JUDGED, "can't be judged", "can't be judged"),
}
_SWAPPED = {"lower": "higher", "higher": "lower"}


def words(outcome: Conclusion, judgement: Judgement) -> tuple[str, str, str, str]:
    """CSS class and text of the badge, and what is said of one arm and of several; never that one is better."""
    found = _WORDS[outcome]
    if not judgement.question.higher_is_better:
        return found
    css, *texts = found
    badge, one, several = (re.sub("lower|higher", lambda word: _SWAPPED[word[0]], text) for text in texts)
    return css, badge, one, several


def interval_of(judgement: Judgement) -> str:
    """ "95 % interval"."""
    return f"{percent(judgement.confidence)} interval"


def text(judgement: Judgement) -> str:
    """All of the verdict in one paragraph: on the terminal, and on the page."""
    return " ".join([headline(judgement), *conditions(judgement)])


def headline(judgement: Judgement) -> str:
    """What is found, and the condition that every such verdict has."""
    return f"{_found(judgement)} {UNKNOWN}"


def _found(judgement: Judgement) -> str:
    """What is found in one sentence; of a single comparison its own."""
    if len(judgement.comparisons) == 1:
        return sentence(judgement.comparisons[0], judgement)
    parts = []
    for outcome in Conclusion:
        found = [c.candidate.label for c in judgement.comparisons if c.outcome is outcome]
        if found:
            one, several = words(outcome, judgement)[2:]
            who = listed(found) if len(found) <= _MOST_NAMED else plural(len(found), "arm")
            parts.append(f"{who} {one if len(found) == 1 else several}")
    against = judgement.baseline
    whom = "its predecessor" if against is None else against.label
    corrected = f" (Holm-corrected over {plural(judgement.tested, 'comparison')})" if judgement.tested > 1 else ""
    return f"{judgement.question.metric}{where(judgement)}, each arm against {whom}: {'; '.join(parts)}{corrected}."


def where(judgement: Judgement) -> str:
    """ " at step 3125"."""
    at = judgement.gathered.at
    return "" if at is None else " at each run's last step" if at == LAST else f" at step {float(at):g}"


def sentence(comparison: RunComparison, judgement: Judgement) -> str:
    """One comparison with its evidence."""
    candidate, baseline = comparison.candidate, comparison.baseline
    if comparison.test is None:
        silent = [arm for arm in (candidate, baseline) if not arm.test_losses]
        lost = [f"every run of {arm.label} diverged" for arm in silent]
        why = listed(lost) or "no seed has a finite value in both"
        return f"{candidate.label} and {baseline.label} can't be compared: {why}.{_lost(comparison)}"
    evidence = _evidence(comparison, judgement)
    but = _lost(comparison)
    delta = number(judgement.question.delta)
    match comparison.outcome:
        case Conclusion.EQUAL:
            return f"{candidate.label} and {baseline.label} are equal within ±{delta}: {evidence}.{but}"
        case Conclusion.NO_DIFFERENCE:
            return f"No difference between {candidate.label} and {baseline.label} is shown: {evidence}.{but}"
        case Conclusion.UNTESTED if comparison.p_holm is not None:
            lead = (candidate if comparison.test.mean < 0 else baseline).label
            return f"{lead} is ahead where runs finished, so nothing is concluded: {evidence}.{but}"
        case Conclusion.UNTESTED if comparison.test.zero_variance:
            return f"{candidate.label} and {baseline.label} have no variance to test against: {evidence}.{but}"
        case Conclusion.UNTESTED:
            few = listed([f"{arm.label} has one run" for arm in (candidate, baseline) if len(arm.test_losses) < 2])
            few = few or "one seed is shared"
            return f"{candidate.label} against {baseline.label} can't be judged, since {few}: {evidence}.{but}"
    small = comparison.outcome in (Conclusion.SLIGHTLY_BETTER, Conclusion.SLIGHTLY_WORSE)
    said = words(Conclusion.BETTER if comparison.outcome.better else Conclusion.WORSE, judgement)[2]
    return (
        f"{candidate.label} {said} than {baseline.label}{f', by less than {delta}' if small else ''}: {evidence}.{but}"
    )


def _lost(comparison: RunComparison) -> str:
    """ " But soap diverged on 1 run." """
    diverged = [arm for arm in (comparison.candidate, comparison.baseline) if arm.diverged_seeds]
    said = listed([f"{arm.label} diverged on {plural(arm.diverged_seeds, 'run')}" for arm in diverged])
    return f" But {said}." if said else ""


def shown(comparison: RunComparison) -> tuple[float, float | None, float | None]:
    """Difference and interval in the metric's own direction, candidate − baseline."""
    test, sign = comparison.test, comparison.candidate.sign
    assert test is not None
    low, high = (test.low, test.high) if sign > 0 else (test.high, test.low)
    return sign * test.mean, None if low is None else sign * low, None if high is None else sign * high


def method(comparison: RunComparison) -> str:
    """ "Welch's t of 8 and 10 runs", "paired over 8 seeds"."""
    ours, theirs = comparison.n
    if comparison.method is Procedure.PAIRED:
        return f"paired over {plural(ours, 'seed')}"
    return f"{comparison.method} of {ours} and {plural(theirs, 'run')}"


def _evidence(comparison: RunComparison, judgement: Judgement) -> str:
    mean, low, high = shown(comparison)
    sign = comparison.candidate.sign
    half = None if low is None or high is None else (high - low) / 2
    ours, theirs = (sign * value for value in comparison.means)
    places = decimals(half, mean or theirs)
    size = "equal" if mean == 0 else f"{'lower' if mean < 0 else 'higher'} by {fixed(abs(mean), places)}"
    said = f"mean {judgement.question.metric} {size} ({fixed(ours, places)} against {fixed(theirs, places)}"
    if low is not None and high is not None:
        one = "one-sided " if judgement.question.one_sided else ""
        corrected = " after Holm's correction" if comparison.test and comparison.p_holm != comparison.test.p else ""
        said += f"; {interval_of(judgement)} of the difference {span(low, high, places, sign=True)}"
        said += f", {one}{p_value(comparison.p_holm)}{corrected}"
    return f"{said}; {method(comparison)})"


# -- conditions ----------------------------------------------------------------------------------------------------


def conditions(judgement: Judgement) -> tuple[str, ...]:
    """What the verdict hangs on, and what nobody can know from the runs."""
    return (*_unknown(judgement), *_of_methods(judgement), *_of_steps(judgement), *_of_values(judgement))


def _unknown(judgement: Judgement) -> Iterator[str]:
    sizes = sorted({arm.count for arm in judgement.arms})
    many = plural(sizes[0], "run") if len(sizes) == 1 else f"{sizes[0]} to {plural(sizes[-1], 'run')}"
    yield (
        f"The arms have {many} each; whether that number was fixed before results were seen isn't known, and runs "
        f"added until a result shows make p too small."
    )
    if judgement.question.against_previous:
        yield "Each arm is held against the one before it that has a run here, in the order of the rows or of --arms."
    elif judgement.question.baseline is None and judgement.baseline:
        yield f"No baseline was named, so it is the first arm, {judgement.baseline.label}."


def _of_methods(judgement: Judgement) -> Iterator[str]:
    question, methods = judgement.question, judgement.methods
    paired = [c.candidate.label for c in judgement.comparisons if c.method is Procedure.PAIRED]
    if paired:
        which = "Paired by seed" if len(methods) == 1 else f"Paired by seed where seeds are shared ({_some(paired)})"
        yield (
            f"{which}, which takes equal values of {question.seed} for the same initialisation and data order in both "
            f"arms; the runs don't tell."
        )
    if Procedure.WELCH in methods:
        why = (
            "no column of seeds was named"
            if question.seed is None
            else "equal seeds are said not to be the same"
            if question.unpaired
            else "fewer than half of the seeds are shared"
        )
        yield f"Unpaired{'' if len(methods) == 1 else ' elsewhere'}, because {why}: Welch's t, unequal variances."
    if Procedure.Z in methods:
        sd = judgement.sd
        own = (
            f"; that of these runs within an arm is {number(sd, 3)} ({judgement.sd_df} degrees of freedom)"
            if sd
            else ""
        )
        yield f"Unpaired z tests take the SD of a run as known, {number(question.sigma)}{own}."
    if question.one_sided:
        aim = "higher" if question.higher_is_better else "lower"
        yield f"p is one-sided: it asks only whether the candidate ends {aim}; intervals agree with a single such test."


def _of_steps(judgement: Judgement) -> Iterator[str]:
    question, at = judgement.question, judgement.gathered.at
    if question.per_step:
        yield (
            f"Values are corrected by {number(question.per_step)} a step to step {judgement.arms[0].reference:g}, "
            f"since the arms end at different ones; that slope is taken as known and as the same for all arms."
        )
    elif at == LAST and len({step for arm in judgement.arms for step in arm.steps}) > 1:
        yield "The runs end at different steps, so unequal budgets of steps are compared."
    going = [(arm.label, sum(run.goes_on for run in arm.runs)) for arm in judgement.arms]
    going = [(label, count) for label, count in going if count]
    if going and isinstance(at, float):
        total = sum(len(arm.runs) for arm in judgement.arms)
        whose = f" ({listed([f'{label} {count}' for label, count in going])})" if len(going) <= _MOST_NAMED else ""
        yield (
            f"{sum(count for _, count in going)} of {plural(total, 'run')} go on after step {at:g}{whose}: a schedule "
            f"that had not ended there stands worse than it ends."
        )


def _of_values(judgement: Judgement) -> Iterator[str]:
    yield from map(capital, judgement.gathered.left_out)
    if judgement.duplicates:
        yield (
            f"{_some(judgement.duplicates)} {'has' if len(judgement.duplicates) == 1 else 'have'} runs that agree to "
            f"every digit: if they are copies of one run, it counts too often."
        )
    for comparison in judgement.comparisons:
        if comparison.method is Procedure.PAIRED:
            held = paired_runs.differences(comparison.candidate, comparison.baseline)
            pair = f"{comparison.candidate.label} − {comparison.baseline.label}"
            yield from _uneven(held, f"differences {pair}", comparison.candidate)
    welch = [c for c in judgement.comparisons if c.method is Procedure.WELCH]
    for arm in judgement.arms:
        if any(arm in (c.candidate, c.baseline) for c in welch):
            yield from _uneven(arm.test_losses, f"runs of {arm.label}", arm)


def _uneven(values: Mapping[int, float], what: str, arm: RunArm) -> Iterator[str]:
    """Values that a t test leans on, or that hide a difference from it."""
    if far := outlying(values):
        seeds = listed([run.seed for run in arm.runs if run.index in far])
        yield f"The {what} are uneven: {seeds} {'lies' if len(far) == 1 else 'lie'} far from the others."
    elif skewed(values):
        yield f"The {what} are skewed, so the test errs more often than its level says."


def mean_of(arm: RunArm) -> str:
    """ "2.0513 ± 0.0092", of the metric itself."""
    if not arm.test_losses:
        return "–"
    half = None
    if all(run.count == 1 for run in arm.runs):
        half = mean_interval(list(arm.test_losses.values())).half_width
    places = decimals(half, arm.value) if math.isfinite(arm.value) else 3
    return fixed(arm.value, places) + ("" if half is None else f" ± {fixed(half, places)}")


def _some(labels: Sequence[str]) -> str:
    """Names, or how many."""
    return listed(list(labels)) if len(labels) <= _MOST_NAMED else plural(len(labels), "arm")
