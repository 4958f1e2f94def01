"""What is checked of a sweep's arms together, before anything is written: one plan, no arm twice, everything builds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from optsweep.config.arm import Arm
from optsweep.errors import UserError, is_of_own_code, located
from optsweep.inference.looks import AUTO, LOOKS, REPEAT_LOOKS
from optsweep.launch.prepare.description import Description, described
from optsweep.launch.prepare.fit import NOTHING_KNOWN, FittedLanes, Fitter
from optsweep.launch.worker.inquiries import Asker, DiedError, Workbench, asked_twice, ended_at_its_start, patience_of

_SHARED = {  # field of an Arm: its key
    "sweep": "sweep.name",
    "seed": "sweep.seed",
    "tracking_uri": "tracking.uri",
    "storage": "tracking.storage",
    "checkpoints": "tracking.checkpoints",
    "repeats": "sweep.repeats",
    "retries": "sweep.retries",
    "allow": "sweep.allow",
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
        for key in ("device", "threads", "ranks"):  # dealt out to workers, which any arm may use
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


@dataclass(frozen=True)
class Describe:
    """The request to build and check every arm; arms of one task share its data."""

    arms: Sequence[Arm]
    labels: Mapping[str, str]  # by arm
    fitter: Fitter = NOTHING_KNOWN  # of their lanes

    def run(self, bench: Workbench) -> list[Description]:
        """The arms, as they are to be known. Raises UserError with one line."""
        from optsweep.build.assemble import check_arm
        from optsweep.build.combination import check_combination

        found = []
        for arm in self.arms:
            bench.begin(self.labels[arm.name], patience_of(arm))
            with _in_a_line():
                check_combination(arm)  # before its data is read
                fitted = self._fitted(arm, bench)
                arm = fitted.on(arm)
                built = bench.builds().of(arm)
                notes_of_it = check_arm(built)
                known = described(arm, built, fitted)
                found.append(replace(known, warnings=(*known.warnings, *notes_of_it)))
        return found

    def _fitted(self, arm: Arm, bench: Workbench) -> FittedLanes:
        builds, label = bench.builds(), self.labels[arm.name]
        found = self.fitter.fit(
            arm,
            builds.task_of(arm),
            builds.device_of(arm),
            builds.of,
            lambda: bench.begin(_MEASURING + label, patience_of(arm)),
        )
        bench.begin(label, patience_of(arm))
        return found


def describe_all(
    asker: Asker, arms: Sequence[Arm], labels: Mapping[str, str], fitter: Fitter = NOTHING_KNOWN
) -> list[Description]:
    """Have every arm built and checked. Raises UserError with one line, also where the arms' code ends its process.

    An arm whose code does that while lanes are measured is asked for again without.
    """
    try:
        found = asked_twice(asker, Describe(arms, labels, fitter))
    except DiedError as error:
        if not error.at:
            raise ended_at_its_start(error) from None
        if arm := next((arm for arm in arms if error.at == _MEASURING + labels[arm.name]), None):
            return describe_all(asker, arms, labels, fitter.without(arm.name, error.how))
        raise UserError(f"task: building {error.at}: {error.how}{_advice(error)}") from None
    here = []
    if "torch" in sys.modules:  # else nobody has set anything in this process
        from optsweep.build.assemble import foreign_default_dtype

        here = foreign_default_dtype()
    return [replace(known, warnings=tuple(dict.fromkeys((*known.warnings, *here)))) for known in found]


def _advice(error: DiedError) -> str:
    if error.killed:
        return ", twice: is there memory enough?"
    if error.patience is not None:
        return ": the task's own code hangs, or trainer.timeout should give it longer"
    return ": the task's own code does that"


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


_MEASURING = "measuring lanes of "
_TOO_LARGE = ("allocat", "out of memory", "overflow", "too large", "too big", "maximum allowed")
"""Words of numpy and torch about sizes that can't be."""


def notes(labels: Sequence[str], algorithms: Sequence[str], warnings: Sequence[Sequence[str]]) -> Iterator[str]:
    """What a user should know of the arms: twins first, then each warning once, with the arms it concerns."""
    same: dict[str, list[str]] = {}
    for label, algorithm in zip(labels, algorithms, strict=True):
        same.setdefault(algorithm, []).append(label)
    for twins in same.values():
        if len(twins) > 1:
            yield f"{' and '.join(twins)} are the same algorithm under different names"
    concerned: dict[str, list[str]] = {}
    for label, of_arm in zip(labels, warnings, strict=True):
        for warning in of_arm:
            concerned.setdefault(warning, []).append(label)
    for warning, labels_of_arms in concerned.items():
        yield f"{warning} ({', '.join(labels_of_arms)})"
