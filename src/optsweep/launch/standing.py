"""How far a search is, as the storage has it, and what the searches of an arm amount to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from optuna.trial import TrialState

from optsweep.config.arm import Arm
from optsweep.inference.repeats import seed_index
from optsweep.search.history import NO_HISTORY, History
from optsweep.search.slots import Choice, SearchPlan, Slot, seed_of
from optsweep.search.space import Space, number_of
from optsweep.search.studies import States
from optsweep.tracking.schema import Chosen
from optsweep.train.trial import Phase

T = TypeVar("T")

FIXED = Choice(params={}, mean=math.inf, count=0, sides={}, searched={}, numbers=())
"""The choice where nothing is searched."""

TOGETHER_SECONDS = 0.02
"""Trials that are decided within this are made by one transaction."""


@dataclass(frozen=True)
class Standing:
    """A search as the storage has it."""

    search: History = NO_HISTORY
    confirm: History = NO_HISTORY
    searched: bool = False
    choice: Choice | None = None  # None: not searched yet, or nothing to choose from

    @cached_property
    def seeds(self) -> Mapping[int, Slot]:
        """Confirm trials of the chosen setting, by seed."""
        if self.choice is None:
            return {}
        return {slot.seed: slot for slot in self.confirm.slots.values() if slot.params == self.choice.params}

    @property
    def test_losses(self) -> Mapping[int, float]:
        """Finite test losses by seed."""
        found = {seed: slot.test_loss for seed, slot in sorted(self.seeds.items())}
        return {seed: loss for seed, loss in found.items() if loss is not None and math.isfinite(loss)}

    @property
    def test_blocks(self) -> Mapping[int, Sequence[float]]:
        """Test losses of the parts of the split, by seed."""
        return {seed: slot.test_blocks for seed, slot in self.seeds.items() if slot.test_blocks}

    @property
    def diverged_seeds(self) -> int:
        """Seeds that diverged, a test loss that is not finite included."""
        losses = [slot.value if slot.test_loss is None else slot.test_loss for slot in self.seeds.values()]
        return sum(loss is not None and not math.isfinite(loss) for loss in losses)

    def complete(self, look: int) -> bool:
        """Whether the results of as many seeds are there; without a choice there is nothing to wait for."""
        done = all(seed in self.seeds and self.seeds[seed].done for seed in range(look))
        return self.searched and (self.choice is None or done)


@dataclass(frozen=True)
class Pooled:
    """The searches of an arm as the test sees them."""

    test_losses: Mapping[int, float]
    test_blocks: Mapping[int, Sequence[float]]
    diverged_seeds: int


def pooled(searches: Sequence[Standing], seeds: int) -> Pooled:
    """All searches of an arm together; one that found nothing counts as `seeds` that diverged."""
    nothing = sum(standing.searched and standing.choice is None for standing in searches)
    return Pooled(
        _by_index([standing.test_losses for standing in searches]),
        _by_index([standing.test_blocks for standing in searches]),
        sum(standing.diverged_seeds for standing in searches) + seeds * nothing,
    )


def _by_index(searches: Sequence[Mapping[int, T]]) -> dict[int, T]:
    """What each search has by seed, by the seeds' indices over all."""
    return {seed_index(repeat, seed): value for repeat, held in enumerate(searches) for seed, value in held.items()}


def chosen_of(choice: Choice | None, space: Space) -> Chosen | None:
    """The choice as the arm's sheet has it."""
    if choice is None:
        return None
    among = {key for key, dimension in space.dimensions.items() if dimension.choices}
    return Chosen(
        params={key: number_of(choice.params, key) for key in choice.params if key not in among},
        choices={key: value for key, value in choice.params.items() if key in among},
        mean=choice.mean if choice.count else None,
        n=choice.count,
        bracketed=choice.sides,
        searched=dict(choice.searched),
        slots=tuple(choice.numbers),
    )


def search_plan(arm: Arm, repeat: int) -> SearchPlan:
    """What is decided of a repeat's search of an arm; its points and its sampler have a seed of their own."""
    return SearchPlan(
        trials=arm.search.trials,
        lag=arm.search.lag,
        sampler=arm.search.sampler,
        pruner=arm.search.pruner,
        reruns=arm.search.reruns,
        seed=seed_of(arm.seed, "repeat", repeat) if repeat else arm.seed,
        arm=arm.name,
    )


def by_moments(slots: Iterator[Slot]) -> Iterator[Sequence[Slot]]:
    """As many slots at once as moments make: a model takes its time over each, and workers may wait for the first."""
    new: list[Slot] = []
    since = time.monotonic()
    for slot in slots:
        new.append(slot)
        if time.monotonic() - since > TOGETHER_SECONDS:
            yield new
            new, since = [], time.monotonic()
    if new:
        yield new


Counts = Mapping[TrialState | None, int]
"""How many trials have ended in which way; None: how many haven't."""


def counts_of(states: States, phase: Phase) -> Counts:
    """Those of a phase: another once a trial was made or ended. Who trains one decides nothing."""
    counts: dict[TrialState | None, int] = {}
    for of, state, number in states:
        if of is phase:
            kind = state if state.is_finished() else None
            counts[kind] = counts.get(kind, 0) + number
    return counts
