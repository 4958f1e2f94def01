"""Renders index.html: one file with its style, script and figures inside, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from optsweep.inference.looks import in_words, searches_in_words
from optsweep.inference.repeats import SEEDS_PER_REPEAT, repeats_of
from optsweep.report import chosen, samples, wording
from optsweep.report.across.findings import Across, record
from optsweep.report.across.tasks import scores
from optsweep.report.arm_result import ArmResult
from optsweep.report.caveats import at_edge, seeds_diverged
from optsweep.report.comparison import Comparison, Conclusion, Group
from optsweep.report.figures.canvas import COLOURS, Drawing, labels
from optsweep.report.machines import devices
from optsweep.report.results import partial, problems
from optsweep.report.templates import data, environment
from optsweep.report.verdict import Verdict, details, outcome_sentence
from optsweep.tracking import names
from optsweep.tracking.links import address_of_ui, compared, run_page
from optsweep.tracking.names import Status
from optsweep.tracking.reader import LEARNING_RATE, WEIGHT_DECAY, SweepRecord, TrialRecord
from optsweep.train.trial import Phase

_ROOM = 20  # letters beside a value in a chart's list of arms; longer labels go without what all of them share
_MOST_ROWS = 600  # of a table of trials in the page; results.csv has them all


def render(
    sweeps: Sequence[SweepRecord],
    verdicts: Sequence[Verdict],
    drawings: Sequence[Sequence[Drawing]],
    found: Across,
    over: Sequence[Sequence[Drawing]],
    cited: str,
    tracking_uri: str,
    template: str = "page.html",
    **more: Any,  # of another template over this one
) -> str:
    """The page as HTML. Every text from the store is escaped; only our own SVG, CSS and JavaScript are not."""
    groups = [
        {"verdict": v, "group": v.group, "drawings": held, "id": f"g{place}"}
        for place, (v, held) in enumerate(zip(verdicts, drawings, strict=True), 1)
    ]
    return (
        _environment()
        .get_template(template)
        .render(
            sweeps=sweeps,
            groups=groups,
            across=found,
            over=over,
            cited=cited,
            title=", ".join(sweep.name for sweep in sweeps),
            partial=any(partial(v.group) for v in verdicts) or any(sweep.absent for sweep in sweeps),
            ui=address_of_ui(tracking_uri),
            curves=data(curves(groups)),
            **more,
        )
    )


def curves(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page's charts are made of, by group: its arms in the order of its table, and figures by their names."""
    return {of["id"]: _curves(of["group"], of["drawings"]) for of in groups}


def _curves(group: Group, drawings: Sequence[Drawing]) -> dict[str, Any]:
    arms = [
        {
            "label": arm.label,
            "short": short,
            "style": arm.style,
            "baseline": arm is group.baseline and bool(group.comparisons),
        }
        for arm, short in zip(group.by_result, labels(group.by_result, room=_ROOM), strict=True)
    ]
    places = {arm.name: place for place, arm in enumerate(group.by_result)}
    figures = {drawing.name: drawing.touch.as_json(places) for drawing in drawings if drawing.touch is not None}
    return {"arms": arms, "figures": figures}


@cache
def _environment() -> Environment:
    pages = environment()
    pages.filters.update(_FILTERS)
    pages.globals.update(
        Phase=Phase,
        Status=Status,
        names=names,
        interval_name=wording.interval_name,
        LR=LEARNING_RATE,
        DECAY=WEIGHT_DECAY,
        COLOURS=COLOURS,
        MOST_ROWS=_MOST_ROWS,
        run_page=run_page,
        problems=problems,
        partial=partial,
        badge=badge,
        outcome_sentence=outcome_sentence,
        place=place,
        repeated=repeated,
        searched=searched,
        searched_again=lambda group: repeated([group.sweep]),
        search_ends=search_ends,
        seeds_cell=seeds_cell,
        paired_over=paired_over,
        details=details,
        comparison_of=comparison_of,
        difference=wording.plus_minus_difference,
        seeds_diverged=seeds_diverged,
        facts_line=facts_line,
        extension=extension,
        runs_of=runs_of,
        compared=compared,
        record=record,
        scores=scores,
        at_edge=at_edge,
        any_chosen=chosen.any_chosen,
        also_chosen=chosen.also_chosen,
        also_in_words=chosen.in_words,
        word=chosen.word,
        are_unequal=samples.are_unequal,
        samples_seen=samples.samples_seen,
        samples_cell=samples.cell,
    )
    return pages


def badge(comparison: Comparison) -> tuple[str, str]:
    """(CSS class, word) of an outcome."""
    return {
        Conclusion.BETTER: ("good", "better"),
        Conclusion.SLIGHTLY_BETTER: ("good", "better, by less than δ"),
        Conclusion.WORSE: ("bad", "worse"),
        Conclusion.SLIGHTLY_WORSE: ("bad", "worse, by less than δ"),
        Conclusion.UNDECIDED: ("open", "not decided"),
        Conclusion.EQUAL: ("same", "equal within ±δ"),
        Conclusion.NO_DIFFERENCE: ("same", "no difference shown"),
        Conclusion.UNTESTED: ("open", "not judged"),
    }[comparison.outcome]


def comparison_of(arm: ArmResult, group: Group) -> Comparison | None:
    """The arm's comparison with the baseline; None for the baseline."""
    return next((c for c in group.comparisons if c.candidate is arm), None)


def runs_of(*arms: ArmResult) -> list[str]:
    """Ids of the confirm trials that the mean of an arm, or the difference of two, is made of."""
    return [arm.confirm[seed].run_id for arm in arms for seed in arm.test_losses]


def place(trial: TrialRecord) -> str:
    """Where a trial stands in its phase of a search: its seed or slot."""
    return str(trial.seed % SEEDS_PER_REPEAT if trial.phase is Phase.CONFIRM else trial.slot)


def repeated(sweeps: Sequence[SweepRecord]) -> bool:
    """Whether an arm was searched several times."""
    return any(trial.repeat for sweep in sweeps for arm in sweep.arms for trial in arm.trials)


def searched(sweeps: Sequence[SweepRecord]) -> bool:
    """Whether an arm was searched, or is to be."""
    return any(
        arm.space or arm.of(Phase.SEARCH) or sweep.planned(Phase.SEARCH) for sweep in sweeps for arm in sweep.arms
    )


def search_ends(arm: ArmResult) -> str:
    """ "23 finished, 1 diverged": how the search trials of an arm ended, and how many are missing."""
    ends = (Status.FINISHED, Status.PRUNED, Status.DIVERGED, Status.CRASHED)
    said = [f"{count} {status}" for status in ends if (count := arm.count(Phase.SEARCH, status))]
    missing = arm.missing(Phase.SEARCH)
    return ", ".join([*said, *([f"{missing} missing"] if missing else [])]) or "none"


def seeds_cell(arm: ArmResult) -> str:
    """ "8", or "3 × 2" of as many searches, or "3 × 1–2"."""
    held = [len(losses) for losses in repeats_of(arm.test_losses).values()]
    if len(held) < 2:
        return str(len(arm.test_losses))
    return f"{len(held)} × {'–'.join(map(str, dict.fromkeys((min(held), max(held)))))}"


def whole(text: str) -> str | Markup:
    """Words that a narrow column doesn't break at the hyphen of 1e-3."""
    words = [Markup('<span class="whole">{}</span>').format(word) for word in text.split(" ")]
    return Markup(" ").join(words) if "e-" in text else text


def fact(value: Any) -> str:
    """A setting or a fact of an arm."""
    return wording.setting(value) if isinstance(value, float) else str(value)


def paired_over(group: Group) -> str:
    """What the differences are paired over: searches where there are several, else seeds."""
    return "searches" if any(comparison.searches > 1 for comparison in group.comparisons) else "seeds"


def facts_line(sweep: SweepRecord) -> list[str]:
    """The sweep in a few words: arms, trials, seeds, time, device."""
    said = [wording.plural(len(sweep.arms), "arm"), wording.plural(sum(len(a.trials) for a in sweep.arms), "trial")]
    said += [in_words(sweep.seeds, sweep.looks)]
    said += [f"{searches_in_words(sweep.plan.repeats)} of every arm"] if sweep.plan.repeats != 1 else []
    seconds = sum(session.end - session.start for session in sweep.sessions)
    said += [wording.duration(seconds)] if seconds else []
    said += devices(sweep) or ([sweep.environment.device] if sweep.environment.device else [])
    last = max((session.end for session in sweep.sessions), default=None)
    return said + ([_date(last)] if last else [])


def extension(arm: ArmResult, key: str) -> str:
    """How far the search went beyond the suggested range."""
    suggested = arm.arm.space[key]
    if arm.arm.chosen is None or key not in arm.arm.chosen.searched:
        return "–"
    low, high = arm.arm.chosen.searched[key]
    said = []
    if low < suggested.low * 0.999:
        said.append(f"down to {wording.setting(low)}")
    if high > suggested.high * 1.001:
        said.append(f"up to {wording.setting(high)}")
    return wording.listed(said) or "none"


def _date(seconds: Any) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M UTC")


_FILTERS = {
    "number": wording.number,
    "setting": wording.setting,
    "fact": fact,
    "whole": whole,
    "spread": wording.spread,
    "plus_minus": wording.plus_minus,
    "p_value": wording.p_value,
    "times": wording.times,
    "size": wording.size,
    "duration": wording.duration,
    "plural": wording.plural,
    "listed": wording.listed,
    "date": _date,
}
