"""What is checked of a sweep's arms together, before anything is written: one plan, no arm twice, everything builds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from optsweep.build.assemble import Built, algorithm_of, build_arm, check_arm
from optsweep.config.arm import Arm
from optsweep.errors import UserError, is_of_own_code, located
from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS
from optsweep.tasks.base import Trainable

_SHARED = {  # field of an Arm: its key
    "sweep": "sweep.name",
    "seed": "sweep.seed",
    "tracking_uri": "tracking.uri",
    "storage": "tracking.storage",
    "repeats": "sweep.repeats",
    "retries": "sweep.retries",
    "baseline": "sweep.baseline",
    "confirm_seeds": "confirm.seeds",
    "confirm_delta": "confirm.delta",
}


def check_together(arms: Sequence[Arm]) -> None:
    """Raise UserError for an arm that is there twice, and for a key that has to be the same in all arms."""
    seen: dict[str, Arm] = {}
    for arm in arms:
        if arm.name in seen:
            raise UserError(f"the same arm twice: {arm.name}")
        seen[arm.name] = arm
        for field, key in _SHARED.items():
            if getattr(arm, field) != getattr(arms[0], field):
                raise UserError(f"{key} differs between arms of one sweep: it can't be swept over")
        for key in ("device", "threads"):  # dealt out to workers, which any arm may use
            if getattr(arm.trainer, key) != getattr(arms[0].trainer, key):
                raise UserError(f"trainer.{key} differs between arms of one sweep: it can't be swept over")
        if arm.search.trials != arms[0].search.trials:
            raise UserError("search.trials differs between arms of one sweep: every arm gets the same budget")


def without_looks(arms: Sequence[Arm]) -> tuple[Sequence[Arm], str]:
    """`auto` compares arms, so where the others are unknown it means all seeds, or searches, of the last look.

    Returns the arms, and what to tell the user if they were changed.
    """
    why = "a job of this launcher doesn't know the other arms, so it runs all"
    instead = "hydra/launcher=local stops as soon as the arms are told apart"
    if arms[0].repeats == AUTO:
        note = f"sweep.repeats=auto: {why} {REPEAT_LOOKS[-1]} searches; {instead}"
        return [replace(arm, repeats=REPEAT_LOOKS[-1]) for arm in arms], note
    if arms[0].confirm_seeds == AUTO:
        note = f"confirm.seeds=auto: {why} {LOOKS[-1]} seeds; {instead}"
        return [replace(arm, confirm_seeds=LOOKS[-1]) for arm in arms], note
    return arms, ""


def build_all(arms: Sequence[Arm]) -> list[Built]:
    """Build and check every arm; arms of one task share its data. Raises UserError with one line."""
    tasks: dict[str, Trainable] = {}
    built = []
    for arm in arms:
        key = repr(arm.task)
        with _in_a_line():
            built.append(build_arm(arm, tasks.get(key)))
            tasks[key] = built[-1].task
            built[-1] = replace(built[-1], warnings=(*built[-1].warnings, *check_arm(built[-1])))
    return built


@contextmanager
def _in_a_line() -> Iterator[None]:
    """What the user's code raises, and what no memory holds, is a line and no traceback."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        if is_of_own_code(error) or isinstance(error, SystemExit):
            raise UserError(f"task: {located(error)}") from error
        if isinstance(error, (MemoryError, OverflowError)) or any(word in str(error).lower() for word in _TOO_LARGE):
            raise UserError(f"task: it is too large for this machine ({located(error)})") from error
        raise


_TOO_LARGE = ("allocat", "out of memory", "overflow", "too large", "too big", "maximum allowed")
"""Words of numpy and torch about sizes that can't be."""


def notes(arms: Sequence[Arm], built: Sequence[Built], labels: Mapping[str, str]) -> Iterator[str]:
    """What a user should know of the arms: twins first, then each warning once, with the arms it concerns."""
    same: dict[str, list[str]] = {}
    for arm, b in zip(arms, built, strict=True):
        same.setdefault(algorithm_of(b), []).append(labels[arm.name])
    for twins in same.values():
        if len(twins) > 1:
            yield f"{' and '.join(twins)} are the same algorithm under different names"
    concerned: dict[str, list[str]] = {}
    for arm, b in zip(arms, built, strict=True):
        for warning in b.warnings:
            concerned.setdefault(warning, []).append(labels[arm.name])
    for warning, labels_of_arms in concerned.items():
        yield f"{warning} ({', '.join(labels_of_arms)})"
