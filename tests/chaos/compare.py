"""What a disturbed sweep lacks, has twice, or has otherwise than the undisturbed one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chaos.stores import Attempt, Found, Slot

OF_THE_COMPANY = ("lanes",)
"""Params that say who was trained beside a trial, which depends on what was lost when."""


def compare(found: Found, reference: Found) -> Iterator[tuple[str, str]]:
    """(kind of violation, what) of everything that is not as in the undisturbed sweep."""
    yield from _told(found, reference)
    for slot in sorted(reference.attempts):
        yield from _runs(slot, found, reference)
    for slot in sorted(set(found.attempts) - set(reference.attempts)):
        yield "doubled", f"{_name(slot)} has a run, and was not planned"
    for run in (attempt for attempts in found.attempts.values() for attempt in attempts):
        for (key, step), values in run.points.items():
            if len(values) > 1:
                yield "doubled", f"run {run.run} has {len(values)} points of {key} at step {step}"
    for arm in sorted(reference.curves):
        if (difference := _differing(found.curves.get(arm, {}), reference.curves[arm])) is not None:
            yield "numbers", f"the curves of {arm}: {difference}"
    for state, number in found.states.items():
        if state not in ("FINISHED", "FAILED"):
            yield "left running", f"{number} runs are {state}"
    if found.lacks:
        yield "exit", f"exit 0, and the report lacks {', '.join(found.lacks)}"
    elif (difference := first_difference(found.report, reference.report)) is not None:
        yield "numbers", f"results.json: {difference}"


def _told(found: Found, reference: Found) -> Iterator[tuple[str, str]]:
    for slot in sorted(reference.told):
        held = found.told.get(slot, ())
        if not held:
            yield "lost", f"{_name(slot)} has no result in the studies"
        elif len(held) > 1:
            yield "doubled", f"{_name(slot)} has {len(held)} results in the studies"
        elif (difference := _differing(held[0], reference.told[slot][0])) is not None:
            yield "numbers", f"{_name(slot)} in the studies: {difference}"
    for slot in sorted(set(found.told) - set(reference.told)):
        yield "doubled", f"{_name(slot)} has a result in the studies, and was not planned"


def _runs(slot: Slot, found: Found, reference: Found) -> Iterator[tuple[str, str]]:
    current = found.current(slot)
    if not current:
        yield "lost", f"{_name(slot)} has no run with a result"
    elif len(current) > 1:
        yield "doubled", f"{_name(slot)} has {len(current)} runs with a result"
    else:
        (wanted,) = reference.current(slot)
        for held, other in ((_content(current[0]), _content(wanted)), (current[0].points, wanted.points)):
            if (difference := _differing(held, other)) is not None:
                yield "numbers", f"{_name(slot)} in MLflow: {difference}"


def _content(run: Attempt) -> Mapping[str, str]:
    own = {key: value for key, value in run.params.items() if key not in OF_THE_COMPANY}
    return own | {"status": run.status, "ended": run.ended}


def _differing(held: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> str | None:
    keys = [key for key in {**wanted, **held} if held.get(key) != wanted.get(key)]
    if not keys:
        return None
    first = keys[0]
    return f"{len(keys)} differ, {first} is {held.get(first)!s:.80}, undisturbed {wanted.get(first)!s:.80}"


def first_difference(held: Any, wanted: Any, path: str = "") -> str | None:
    """Where two JSON values differ first, and how; None if they don't."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in sorted({*held, *wanted}):
            if (difference := first_difference(held.get(key), wanted.get(key), f"{path}.{key}")) is not None:
                return difference
        return None
    if isinstance(held, list) and isinstance(wanted, list) and len(held) == len(wanted):
        for place, (one, other) in enumerate(zip(held, wanted, strict=True)):
            if (difference := first_difference(one, other, f"{path}[{place}]")) is not None:
                return difference
        return None
    return None if held == wanted else f"{path} is {held!s:.80}, undisturbed {wanted!s:.80}"


def _name(slot: Slot) -> str:
    arm, phase, repeat, number = slot
    return f"{phase} {number} of repeat {repeat} of {arm}"
