"""What a report of a sweep states, as one word: another as soon as a result or the plan is another."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optsweep.build.fingerprint import fingerprint_of
from optsweep.search.studies import Studies
from optsweep.tracking.codec import to_json
from optsweep.tracking.schema import SweepPlan


def results_digest(studies: Studies, plan: SweepPlan, keys: Sequence[tuple[str, int]], arms: Collection[str]) -> str:
    """Of the searches `keys`, all that the arms may have, and of their trials' results."""
    counts = sorted((key, sorted(map(str, found))) for key, found in studies.states(keys).items())
    trials = [trial.id for trial in studies.known(arms) if trial.told]
    return fingerprint_of({"plan": to_json(plan), "results": counts, "trials": trials})
