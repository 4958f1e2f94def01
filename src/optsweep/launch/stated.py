"""What a report of a sweep states, as one word: another as soon as a result or the plan is another."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optsweep.build.fingerprint import fingerprint_of
from optsweep.inference.looks import most_of
from optsweep.search.studies import Studies
from optsweep.tracking.codec import to_json
from optsweep.tracking.schema import SweepPlan


def results_digest(studies: Studies, plan: SweepPlan, keys: Sequence[tuple[str, int]], arms: Collection[str]) -> str:
    """Of the searches `keys`, all that the arms may have, and of their trials' results."""
    counts = sorted((key, sorted(map(str, found))) for key, found in studies.states(keys).items())
    trials = [trial.id for trial in studies.known(arms) if trial.told]
    return fingerprint_of({"plan": to_json(plan), "results": counts, "trials": trials})


def plan_digest(studies: Studies, plan: SweepPlan) -> str:
    """The same, of all arms and searches of a plan."""
    arms = [title.name for title in plan.arms]
    keys = [(arm, repeat) for arm in arms for repeat in range(most_of(plan.repeats))]
    return results_digest(studies, plan, keys, arms)
