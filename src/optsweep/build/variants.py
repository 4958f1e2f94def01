"""Choices of the program: keys of an arm's config that its trials may differ in, and what is built from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from optsweep.config.arm import Arm
from optsweep.errors import UserError, nearest
from optsweep.search.space import Params, Space, Value, as_typed
from optsweep.train.workload import ArmProgram

TRAINER_KEYS = ("precision", "clip_norm", "accumulate")
"""Keys of `trainer` that decide what is computed; the others say where, how long and how closely it is watched."""

MOST_CHECKED = 64
"""Combinations that are built before training; of more, every value is tried beside the first ones of the others."""

KEPT = 16
"""Programs of an arm that a process keeps, those asked for last: each may hold data of its own."""

_APART = "it tells arms apart; give each value an arm of its own: {key}=a,b"
_WATCHED = "it doesn't say what is computed, but where, or how it is watched"
_REASONS = {
    "trainer.steps": "trials of an arm are equally long; give each length an arm of its own: trainer.steps=100,200",
    "task.steps": "trials of an arm are equally long; give each length an arm of its own: trainer.steps=100,200",
    **dict.fromkeys(("task.name", "task._target_", "optimizer.name", "optimizer._target_"), _APART),
    **dict.fromkeys(("schedule.name", "schedule._target_", "warmup.name", "weight_decay.mode"), _APART),
    **dict.fromkeys(("averaging.name", "averaging._target_"), _APART),
    "task.target_loss": _WATCHED,
    **dict.fromkeys(("sweep", "search", "confirm", "tracking", "suggest", "hydra"), "it is no part of training"),
}
"""Why keys, or whole groups of them, can't be searched."""


def searchable(arm: Arm) -> dict[str, Any]:
    """Present values of the keys that a trial may choose, by dotted key."""
    trainer = {key: vars(arm.trainer)[key] for key in TRAINER_KEYS}
    warmup = {"steps": arm.schedule.warmup_steps} if arm.schedule.warmup != "none" else {}
    options = {key: value for key, value in arm.task.options.items() if f"task.{key}" not in _REASONS}
    task = {"batch_size": arm.task.batch_size or "full", **options}
    groups = {
        "task": task,
        "optimizer": arm.optimizer.options,
        "schedule": arm.schedule.options,
        "warmup": warmup,
        "weight_decay": {"apply_to": arm.decay.apply_to},
        "averaging": arm.averaging.options,
        "trainer": trainer,
    }
    return {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}


def no_choice(arm: Arm, key: str, known: list[str]) -> UserError:
    """Why `key` can't be searched, in a line."""
    group, _, name = key.partition(".")
    reason = _REASONS.get(key) or _REASONS.get(group)
    if reason is None and group == "trainer" and name in vars(arm.trainer):
        reason = _WATCHED
    if reason is not None:
        return UserError(f"search.over: {key} can't be searched: {reason.format(key=key)}")
    return UserError(f"search.over: there is no key {key}{nearest(key, known)}; there are {', '.join(known)}")


class Programs:
    """The programs of an arm, one for each combination of its choices, built when first asked for."""

    def __init__(self, build: Callable[[Params], ArmProgram]) -> None:
        self._build = build
        self._built: dict[tuple[tuple[str, Value], ...], ArmProgram] = {}

    def of(self, values: Params) -> ArmProgram:
        """The program with these choices. Raises UserError that names them."""
        key = tuple((name, values[name]) for name in sorted(values))
        if key in self._built:
            self._built[key] = self._built.pop(key)
            return self._built[key]
        try:
            program = self._build(values)
        except UserError as error:
            chosen = ", ".join(f"{name}={as_typed(value)}" for name, value in values.items())
            raise UserError(f"{error} (search.space tries {chosen})" if chosen else str(error)) from None
        self._built[key] = program
        while len(self._built) > KEPT:
            self._built.pop(next(iter(self._built)))
        return program

    def check(self, space: Space) -> None:
        """Build what trials may ask for, so that a value that can't be is refused before training."""
        for values in combinations(space):
            self.of(values)


def combinations(space: Space) -> Iterator[Params]:
    """All combinations of choices, ranges by their ends; every value once, if there are too many."""
    ends = {key: dimension.ends for key, dimension in space.program.items()}
    count = 1
    for values in ends.values():
        count *= len(values)
    if count <= MOST_CHECKED:
        for chosen in product(*ends.values()):
            yield dict(zip(ends, chosen, strict=True))
        return
    first = {key: values[0] for key, values in ends.items()}
    for key, values in ends.items():
        for value in values:
            yield {**first, key: value}
