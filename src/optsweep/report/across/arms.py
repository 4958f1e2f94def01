"""Arms as a finding across groups sees them: one short label each, and what every seed ended with."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from optsweep.inference.looks import Level
from optsweep.inference.repeats import independent
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.tracking import names
from optsweep.tracking.names import Status

RUN_LENGTH_KEYS = ("trainer.steps",)
"""Settings that only say how long a run is; the length itself is the fact `num_steps`."""


def relabelled(groups: Sequence[Group], arms: Sequence[Sequence[ArmResult]]) -> tuple[tuple[ArmResult, ...], ...]:
    """The same arms of these groups under labels without what tells the groups apart: the task, "steps=400"."""
    by_style: dict[int, list[tuple[str, list[str]]]] = {}
    for group, held in zip(groups, arms, strict=True):
        told = {text for key, value in group.setting.items() for text in _as_part(key, value)}
        for arm in held:
            parts = [part for part in _parts(arm.label) if part not in told]
            by_style.setdefault(arm.style, []).append((arm.label, parts))
    shared = {style: _shared(labels) for style, labels in by_style.items()}
    count = Counter(shared.values())
    chosen = {style: label if count[label] == 1 else by_style[style][0][0] for style, label in shared.items()}
    return tuple(tuple(replace(arm, label=chosen[arm.style]) for arm in held) for held in arms)


def _as_part(key: str, value: str) -> tuple[str, ...]:
    return (value,) if key == "task" else (f"{key}={value}", f"{key.rpartition('.')[2]}={value}")


def _parts(label: str) -> list[str]:
    """ "iris + adamw + cosine (recipe)" has four parts."""
    return [part for part in re.split(r" \+ | (?=\([^()]*\)$)", label) if part]


def _shared(labels: Sequence[tuple[str, Sequence[str]]]) -> str:
    """What all labels have in common; sweeps may call the same arm "soap" and "soap + cosine"."""
    (whole, first), *others = labels
    kept = [part for part in first if all(part in other for _, other in others)]
    return re.sub(r" \+ (\([^()]*\))$", r" \1", " + ".join(kept)) or whole


def final_losses(arm: ArmResult) -> dict[int, float]:
    """Test loss of every confirm seed that has ended, of several searches their means; infinity where it diverged."""
    found = {}
    for seed, trial in sorted(arm.confirm.items()):
        if trial.status is Status.DIVERGED:
            found[seed] = math.inf
        elif trial.status is Status.FINISHED and names.TEST_LOSS in trial.metrics:
            loss = trial.metrics[names.TEST_LOSS]
            found[seed] = loss if math.isfinite(loss) else math.inf
    return independent(found)


def shared_seeds(losses: Iterable[Mapping[int, float]]) -> list[int]:
    """Seeds that every arm has ended on."""
    found = [set(held) for held in losses]
    return sorted(set.intersection(*found)) if found else []


def num_steps(group: Group) -> int | None:
    """The length of a group's runs; None if its arms differ in it."""
    lengths = {arm.num_steps for arm in group.arms}
    return lengths.pop() if len(lengths) == 1 else None


def strictest(groups: Iterable[Group]) -> Level:
    """The level at which all of these groups' differences count as shown."""
    return min((group.level for group in groups), key=lambda level: level.alpha)


def is_averaged(arm: ArmResult) -> bool:
    """Whether a run of the arm can be stopped anywhere: schedule-free, or an average of the weights."""
    return bool(arm.arm.facts.get("averaged"))


def rest(setting: Mapping[str, str], *but: str) -> tuple[tuple[str, str], ...]:
    """A group's setting without these keys."""
    return tuple(sorted((key, value) for key, value in setting.items() if key not in but))


def titled(task: str | None, setting: Iterable[tuple[str, str]]) -> str:
    """ "charlm, batch_size 32"."""
    parts = [task] if task else []
    return ", ".join([*parts, *(f"{key.rpartition('.')[2]} {value}" for key, value in setting)])
