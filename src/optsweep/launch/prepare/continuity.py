"""A sweep may grow and may not change: trials of different settings or models are never mixed in one.

Nor are those of different machines, unless `sweep.allow` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optsweep.build.fingerprint import NUMERICS, SHOWN, Identity, heading
from optsweep.build.machine import Machine, keys_of, lets
from optsweep.config.allowed import ALLOWED, ELSEWHERE
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.prepare.description import Description
from optsweep.search.helping import notes
from optsweep.search.seats import Seat
from optsweep.search.slots import RULES_VERSION
from optsweep.search.studies import Studies
from optsweep.tracking.codec import plain

CONTENT, IDENTITY = "content", "identity"
SEARCH_RULE = "the version of the search's rules"
LANES, LAG = "trainer.lanes", "search.lag"
FIRST_RULES = {SEARCH_RULE: 1}
"""Of searches that didn't note it."""
_UNKNOWN = Identity({NUMERICS: 1}, {})
"""Of trials of the versions that noted settings only."""


def _settings(arm: Arm, built: Description) -> dict[str, Any]:
    """What was set and must not change while a sweep grows, as it comes back from the storage."""
    search = arm.search
    content = {
        **built.content,
        "search.sampler": search.sampler,
        "search.pruner": search.pruner,
        "search.reruns": search.reruns,
        LAG: search.lag,
        **({SEARCH_RULE: RULES_VERSION} if search.trials else {}),
        **{f"search.space.{key}": found.content for key, found in sorted(built.space.dimensions.items())},
    }
    found: dict[str, Any] = plain(content)
    return found


def seconds_before(studies: Studies, arms: Sequence[Arm], built: Sequence[Description]) -> dict[str, tuple[int, float]]:
    """How many trials of an arm's settings any sweep in the storage had, and the mean seconds of one, by arm."""
    held = [(_trained_as(found.note), found) for found in studies.earlier([arm.name for arm in arms], CONTENT)]
    times = {}
    for arm, b in zip(arms, built, strict=True):
        same = [found for content, found in held if content == _trained_as(_settings(arm, b))]
        if count := sum(found.count for found in same):
            times[arm.name] = count, sum(found.count * found.seconds for found in same) / count
    return times


def _trained_as(content: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how long a trial takes."""
    return {key: value for key, value in content.items() if key.startswith(("task.", "optimizer.", "trainer."))}


@dataclass(frozen=True)
class BegunArm:
    """What an arm's trials have had where its config leaves it open."""

    lanes: str  # "one" or "several"
    lag: int


def begun(studies: Studies, arms: Sequence[Arm]) -> dict[str, BegunArm]:
    """How those arms began that have trials, by name."""
    found = {arm.name: studies.note(arm.name, CONTENT) or {} for arm in arms}
    return {
        name: BegunArm(str(noted[LANES]), int(noted[LAG]))
        for name, noted in found.items()
        if {LANES, LAG} <= noted.keys() and studies.has_trials(name)
    }


def check_history(studies: Studies, arms: Sequence[Arm], built: Sequence[Description]) -> None:
    """Raise UserError, in words, where an arm's trials are of other settings, another model, other code or data.

    Trials that came to no result are of no model yet: code that crashed in all of them may be mended.
    """
    _check_machines(studies, arms, built)
    for arm, b in zip(arms, built, strict=True):
        before = studies.note(arm.name, CONTENT) if studies.has_trials(arm.name) else None
        if before is None:
            continue
        now = _settings(arm, b)
        free = keys_of(arm.allow)
        changed = _changed({**(FIRST_RULES if SEARCH_RULE in now else {}), **before}, now, free)
        kind = "under other settings" if changed else ""
        if len(changed) < SHOWN and studies.has_results(arm.name, arm.most_repeats):
            changed += (others := b.identity.differences(_noted(studies, arm), arm.allow))
            kind = kind or (heading(others[0]) if others else "")
        if changed:
            more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            instead = f"{found}, or give" if (found := lets(changed)) else "give"
            raise UserError(
                f"sweep.name={arm.sweep}: its arm '{arm.name}' has trials {kind}: {'; '.join(changed[:SHOWN])}{more}; "
                f"{instead} another sweep.name"
            )


def _check_machines(studies: Studies, arms: Sequence[Arm], built: Sequence[Description]) -> None:
    """Raise UserError where arms would be trained on other machines than the sweep's trials, which isn't allowed."""
    noted = notes(studies.engine, studies.sweep, (CONTENT, IDENTITY, *ELSEWHERE.values()))
    allow, here = arms[0].allow, built[0].begun_on
    for name, of in noted.items():
        for word, key in ELSEWHERE.items():
            if word not in allow and key in of:
                again = ",".join(other for other in ALLOWED if other in (*allow, word))
                raise UserError(
                    f"sweep.allow: trials of '{name}' were trained with {of[key]}, which [{word}] had allowed; give "
                    f"sweep.allow=[{again}] again, or another sweep.name"
                )
        if not {CONTENT, IDENTITY} <= of.keys() or name in {arm.name for arm in arms}:
            continue  # what is of this call is compared as a whole
        differs = list(here.differences(Machine.noted(of[CONTENT], of[IDENTITY]["exact"]), allow))
        if differs and studies.has_trials(name):
            raise UserError(
                f"sweep.name={studies.sweep}: its arm '{name}' has trials of another machine: {'; '.join(differs)}; "
                f"{lets(differs)}, or give another sweep.name"
            )


def as_begun(studies: Studies, arms: Sequence[Arm], built: Sequence[Description]) -> list[Description]:
    """The arms as their first trials were, machine and fingerprint, where these may differ and nothing else does.

    So what is kept by a fingerprint, as checkpoints are, stays theirs wherever they go on.
    """
    found = []
    for arm, b in zip(arms, built, strict=True):
        has_trials = bool(arm.allow) and studies.has_trials(arm.name)
        noted = _noted(studies, arm) if has_trials else _UNKNOWN
        if has_trials and not b.identity.differences(noted, arm.allow):
            parts = Machine.noted(studies.note(arm.name, CONTENT), noted.exact).parts_of(arm.allow)
            b = b.as_on(parts, noted.approximate) if parts != b.begun_on.parts_of(arm.allow) else b
        found.append(b)
    return found


def note_content(studies: Studies, seat: Seat, arms: Sequence[Arm], built: Sequence[Description]) -> None:
    """Remember what arms without results are; where that has changed, crashes before are none of it."""
    for arm, b in zip(arms, built, strict=True):
        if studies.has_results(arm.name, arm.most_repeats):
            continue
        if studies.has_trials(arm.name) and b.identity.differences(_noted(studies, arm)):
            for repeat in range(arm.most_repeats):
                studies.forgive(seat, arm.name, repeat)
        studies.set_note(arm.name, CONTENT, _settings(arm, b))
        identity = {"exact": dict(b.identity.exact), "approximate": dict(b.identity.approximate)}
        studies.set_note(arm.name, IDENTITY, identity)


def _noted(studies: Studies, arm: Arm) -> Identity:
    """The identity that the arm's trials have."""
    noted = studies.note(arm.name, IDENTITY)
    return _UNKNOWN if noted is None else Identity(noted["exact"], noted["approximate"])


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """Settings that differ, but those that may, a few words each."""
    return [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted({*before, *now} - set(free))
        if before.get(key) != now.get(key) and repr(before.get(key)) != repr(now.get(key))  # nan is nan
    ]
