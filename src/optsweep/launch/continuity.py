"""A sweep may grow and may not change: trials of different settings are never mixed under one name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optsweep.build.assemble import Built
from optsweep.config.arm import Arm, difference
from optsweep.errors import UserError
from optsweep.search.studies import Studies
from optsweep.tracking.codec import plain


def _plan_content(arm: Arm, built: Built) -> dict[str, Any]:
    """What must not change while a sweep grows."""
    search = arm.search
    return {
        "search.sampler": search.sampler,
        "search.pruner": search.pruner,
        "search.reruns": search.reruns,
        "search.lag": search.lag,
        **{f"search.space.{key}": [r.low, r.high, r.log] for key, r in sorted(built.space.ranges.items())},
    }


def check_history(studies: Studies, arms: Sequence[Arm], built: Sequence[Built]) -> None:
    """Refuse to mix trials of different settings under one name."""
    for arm, b in zip(arms, built, strict=True):
        content = {**b.content, **_plan_content(arm, b)}
        before = studies.note(arm.name, "content") if studies.has_trials(arm.name) else None
        if before is not None and (changed := difference(before, plain(content))):
            raise UserError(
                f"sweep.name={arm.sweep}: its arm '{arm.name}' has trials under other settings: {changed}; "
                f"give another sweep.name"
            )


def note_content(studies: Studies, arms: Sequence[Arm], built: Sequence[Built]) -> None:
    """Remember the settings of arms that have no trials yet."""
    for arm, b in zip(arms, built, strict=True):
        if not studies.has_trials(arm.name):
            studies.set_note(arm.name, "content", plain({**b.content, **_plan_content(arm, b)}))
