"""Samples seen, batch size × steps: trials that see unequally many are no equal budgets, and the report says where.

Arms may differ in it, and so may the trials of an arm whose search varies the batch size or the steps.
"""

from __future__ import annotations

from collections.abc import Collection

from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.wording import capital, listed
from optsweep.tracking.reader import ArmRecord, TrialRecord
from optsweep.train.trial import Phase

Samples = int | None
"""None: not known, as of a batch size that is a word."""

_FACTS = {"task.batch_size": "batch_size", "trainer.steps": "num_steps"}
"""Keys of a search that decide how many samples a trial sees, and the arm's fact that each takes the place of."""


def samples_seen(arm: ArmResult) -> Samples:
    """Of a trial at the arm's chosen setting."""
    for trial in arm.confirm.values():
        return _of(arm.arm, trial)
    return arm.arm.facts.get("samples_seen")


def budgets(arm: ArmResult) -> set[Samples]:
    """Of all its trials, whatever their setting."""
    return {samples_seen(arm), *_searched(arm)}


def are_unequal(group: Group) -> bool:
    """Whether trials of the group see different numbers of samples."""
    return len({found for arm in group.arms for found in budgets(arm)}) > 1


def cell(arm: ArmResult) -> str:
    """ "12,800", and what its search saw, if that varied."""
    own, searched = samples_seen(arm), _searched(arm)
    return f"{_word(own)} (search: {_span(searched)})" if len(searched) > 1 else _word(own)


def unequal(group: Group) -> str:
    """What to beware of where budgets are unequal in samples; empty where they are equal."""
    if not are_unequal(group):
        return ""
    said = []
    if len({samples_seen(arm) for arm in group.arms}) > 1:
        each = listed([f"{arm.label} {_word(samples_seen(arm))}" for arm in group.arms])
        said.append(f"at their chosen settings the arms see different numbers of samples: {each}")
    varied = [f"{arm.label} {_span(found)}" for arm in group.arms if len(found := _searched(arm)) > 1]
    if varied:
        said.append(f"the trials of a search saw different numbers of samples: {listed(varied)}")
    text = "; ".join(said)
    return f"{capital(text)}, so budgets that are equal in trials are not equal in samples seen."


def _searched(arm: ArmResult) -> set[Samples]:
    return {_of(arm.arm, trial) for trial in arm.arm.of(Phase.SEARCH)}


def _of(arm: ArmRecord, trial: TrialRecord) -> Samples:
    """Batch size × steps where the trial has one of them as its own, else the arm's."""
    if not trial.params.keys() & _FACTS.keys():
        return arm.facts.get("samples_seen")
    numbers = [trial.number(key) if key in trial.params else arm.facts.get(fact) for key, fact in _FACTS.items()]
    batch_size, num_steps = numbers
    return None if batch_size is None or num_steps is None else int(batch_size) * int(num_steps)


def _span(found: Collection[Samples]) -> str:
    """From the fewest to the most, and whether some aren't known."""
    known = sorted(samples for samples in found if samples is not None)
    ends = [_word(samples) for samples in dict.fromkeys((known[0], known[-1]))] if known else []
    return " to ".join(ends) + (f"{' and ' if ends else ''}unknown" if None in found else "")


def _word(samples: Samples) -> str:
    return "–" if samples is None else f"{samples:,}"
