"""Two choices crossed, 2 × 2: what each does alone, what both do together, and whether their effects add up.

The four arms of such a group share seeds or searches, so every effect, the interaction too, is a paired difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optsweep.inference import statistics
from optsweep.inference.comparison import scale
from optsweep.inference.groups import identity
from optsweep.inference.looks import Level
from optsweep.inference.repeats import independent, repeats_of
from optsweep.inference.statistics import PairedT
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.wording import plural

_CELLS = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True, eq=False)
class Factorial:
    """Four arms that differ from the baseline in one choice, in another, and in both; effects are differences to it.

    `interaction` is what both together do beyond the sum of what each does alone; below zero they help each other.
    """

    title: str
    factors: tuple[str, str]  # "soap", "schedule_free"
    instead_of: tuple[str, str]  # the baseline's: "adamw", "cosine"
    arms: tuple[ArmResult, ArmResult, ArmResult, ArmResult]  # baseline, first, second, both
    alone: tuple[PairedT, PairedT]
    together: PairedT
    interaction: PairedT
    level: Level
    over_searches: bool  # whether the differences are paired over searches, or over the seeds of one

    @property
    def num_differences(self) -> str:
        """ "4 searches", "8 seeds"."""
        return f"{self.interaction.n} searches" if self.over_searches else plural(self.interaction.n, "seed")

    @property
    def shown(self) -> bool:
        """Whether an interaction is shown."""
        return self.interaction.p is not None and self.interaction.p < self.level.alpha


def factorials(groups: Sequence[Group]) -> tuple[Factorial, ...]:
    """The groups that are such a square and whose arms have finished seeds in common, none of them diverged."""
    return tuple(found for group in groups if (found := _factorial(group)) is not None)


def _factorial(group: Group) -> Factorial | None:
    square = _square(group)
    if square is None:
        return None
    keys, cells = square
    arms = tuple(cells[cell] for cell in _CELLS)
    if any(arm.diverged_seeds for arm in arms):
        return None
    common = set.intersection(*(set(arm.test_losses) for arm in arms))
    losses = [independent({s: loss for s, loss in arm.test_losses.items() if s in common}) for arm in arms]
    if len(losses[0]) < 2:
        return None

    def effect(*signs: int) -> PairedT:
        values = [sum(sign * held[unit] for sign, held in zip(signs, losses, strict=True)) for unit in losses[0]]
        return statistics.paired_t(values, group.level.confidence, scale=scale(*arms))

    base, first, second, both = arms
    told = [_choices(arm, tuple(group.setting)) for arm in (first, second, base)]
    return Factorial(
        title=group.title,
        factors=(_named(keys[0], told[0]), _named(keys[1], told[1])),
        instead_of=(_named(keys[0], told[2]), _named(keys[1], told[2])),
        arms=(base, first, second, both),
        alone=(effect(-1, 1, 0, 0), effect(-1, 0, 1, 0)),
        together=effect(-1, 0, 0, 1),
        interaction=effect(1, -1, -1, 1),
        level=group.level,
        over_searches=len(repeats_of(dict.fromkeys(common, 0.0))) > 1,
    )


def _square(group: Group) -> tuple[list[list[str]], dict[tuple[bool, ...], ArmResult]] | None:
    """The two sets of choices that vary together, and the arm of each cell; None if the arms are no square."""
    if len(group.arms) != len(_CELLS):
        return None
    axes = tuple(group.setting)
    choices = [_choices(arm, axes) for arm in group.arms]
    base = _choices(group.baseline, axes)
    by_pattern: dict[tuple[bool, ...], list[str]] = {}
    for key in sorted({key for found in choices for key in found}):
        held = [found[key] for found in choices]
        if len(set(held)) > 2:
            return None
        by_pattern.setdefault(tuple(value != base[key] for value in held), []).append(key)
    by_pattern.pop((False,) * len(group.arms), None)
    cells = dict(zip(zip(*by_pattern, strict=True), group.arms, strict=False))
    return (list(by_pattern.values()), cells) if set(cells) == set(_CELLS) else None


def _choices(arm: ArmResult, axes: Sequence[str]) -> Mapping[str, str]:
    """What sets the arm apart; a group of the config that isn't named is none."""
    return defaultdict(lambda: "none", identity(arm.arm, axes))


def _named(keys: Sequence[str], told: Mapping[str, str]) -> str:
    """ "soap"; "beta2=0.95" where the key is no group of the config."""
    return " + ".join(told[key] if "." not in key else f"{key.rpartition('.')[2]}={told[key]}" for key in keys)
