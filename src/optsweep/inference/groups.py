"""Who is compared with whom: arms of one task and one setting form a group, and each group has a baseline.

Pure, and known to both sides: the planner adds seeds to the arms of a group, the report states its verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Combination(Protocol):
    """What grouping needs to know of an arm."""

    @property
    def name(self) -> str:
        """Unique in its sweep."""

    @property
    def choices(self) -> Mapping[str, str]:
        """Config groups and whatever else the sweep varies, with the arm's values."""


Member = TypeVar("Member", bound=Combination)


@dataclass(frozen=True)
class Peers(Generic[Member]):
    """Arms that may be compared; the baseline is one of them."""

    setting: Mapping[str, str]
    arms: tuple[Member, ...]
    baseline: Member


def group(arms: Sequence[Member], baseline: str | None) -> list[Peers[Member]]:
    """All arms of a sweep in their groups. `baseline` names the arm that the sweep holds others against.

    In a group without it, its place takes the arm that equals it but for the group's setting, else the first by name.
    """
    axes = setting_axes(arms)
    named = next((arm for arm in arms if arm.name == baseline), None)
    members: dict[tuple[tuple[str, str], ...], list[Member]] = {}
    for arm in arms:
        members.setdefault(tuple((key, arm.choices.get(key, "")) for key in axes), []).append(arm)
    return [Peers(dict(setting), tuple(held), _baseline(held, named, axes)) for setting, held in members.items()]


def setting_axes(arms: Iterable[Combination]) -> tuple[str, ...]:
    """Choices that define what is compared rather than who: the task always, task.* and trainer.* if arms remain."""
    arms = list(arms)
    keys = sorted({key for arm in arms for key in arm.choices if key.startswith(("task.", "trainer."))})
    varied = [key for key in keys if len({arm.choices.get(key) for arm in arms}) > 1]
    axes = ("task", *varied)
    sizes = Counter(tuple(arm.choices.get(key) for key in axes) for arm in arms)
    return axes if varied and max(sizes.values()) > 1 else ("task",)


def identity(arm: Combination, axes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """What makes it the same arm in another task or sweep; an arm without choices is itself only."""
    choices = tuple(sorted((key, value) for key, value in arm.choices.items() if key not in axes))
    return choices or (("arm", arm.name),)


def _baseline(arms: Sequence[Member], named: Member | None, axes: Sequence[str]) -> Member:
    if named is not None:
        for arm in arms:
            if arm.name == named.name or identity(arm, axes) == identity(named, axes):
                return arm
    return min(arms, key=lambda arm: arm.name)
