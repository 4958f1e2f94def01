"""What the n-th trial of an arm's search is: a pure function of (seed, arm, n, what is visible to slot n).

Slot n sees the results of slots ≤ n − lag and the parameters of all before it, never what happens to have finished.
So the search is the same whatever the number and the speed of workers.

A setting holds values of any kind; `search.space` says which. The slots of an arm with B trials: the first half is
quasi-random, then Optuna's model, and the last `reruns` share repeats the best settings on further seeds. Any slot but
a re-run may be redirected to bracket a key whose range may grow (brackets.py): as long as nothing was tried far enough
beyond the best value on either side, the range grows past that end, the LR's first. Growing never adds a slot.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from optsweep.search.brackets import LEAST_FACTOR, LR, SIDES, Axis, axes_of
from optsweep.search.results import BRACKET, Ends, Results, Setting, rank
from optsweep.search.space import Params, Space, Value, number_of

RULES_VERSION = 2
"""Bumped when a change of these rules gives the same history other trials: a search isn't continued by other rules.

2: every range grows within its limits, not only the LR's; re-runs go to settings that are apart in the LR.

Not bumped for `MOST_OF_GP`, below which nothing changed: that would refuse every search that has begun. One that had
more results before there was that limit goes on with the other sampler.
"""

MOST_BRACKETS = 1 / 3
"""Share of the slots before the re-runs that may have gone to brackets before a key other than the LR takes one."""

MODEL_HISTORY = 200
"""Trials that the model sees at most, the best and the latest: TPE's time per suggestion grows with its history."""

MOST_OF_GP = 100
"""Results from which TPE suggests in the Gaussian process's place: what both miss is far below the noise of a trial
there (benchmarks/NOTES.md), and 60 to 100 ms of a core a suggestion become 7, where a small trial takes as long."""

NUM_RERUN_SETTINGS = 2

_ANY_TIME = datetime(2000, 1, 1)
"""Optuna wants one of every trial; no sampler looks at it."""


@dataclass(frozen=True)
class SearchPlan:
    """The part of an arm's search that is decided beforehand."""

    trials: int
    lag: int
    sampler: str
    pruner: str
    reruns: float
    seed: int
    arm: str

    @property
    def num_reruns(self) -> int:
        """Slots at the end that re-run top settings, the same number for each."""
        return int(self.trials * self.reruns) // NUM_RERUN_SETTINGS * NUM_RERUN_SETTINGS

    @property
    def first_rerun(self) -> int:
        """First slot of the re-runs."""
        return self.trials - self.num_reruns

    @property
    def num_quasi_random(self) -> int:
        """Slots at the start that fill the space."""
        if self.sampler == "quasi-random":
            return self.first_rerun
        return min(math.ceil(self.trials / 2), self.first_rerun)


@dataclass(frozen=True)
class Slot:
    """One place in the search, decided: parameters and seed, and the result once it is there."""

    number: int
    params: Params
    seed: int
    origin: str
    value: float | None = None  # validation loss at the last step; inf: diverged; None: not there yet, or pruned
    test_loss: float | None = None  # of a confirm trial that finished
    test_blocks: tuple[float, ...] = ()  # its parts
    pruned: bool = False
    crashed: bool = False
    rungs: Mapping[int, float] = field(default_factory=dict)
    prune_above: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def setting(self) -> tuple[tuple[str, Value], ...]:
        """The params, so that two can be told to be the same: asked for at every look at a search."""
        return tuple(sorted(self.params.items()))

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.value is not None or self.pruned or self.crashed


def ready(plan: SearchPlan, number: int, slots: Sequence[Slot]) -> bool:
    """Whether everything that slot `number` may see is there."""
    return len(slots) >= number and all(slot.done for slot in slots[: _horizon(plan, number)])


def next_slots(plan: SearchPlan, space: Space, slots: Sequence[Slot], known: Results) -> Iterator[Slot]:
    """The slots after these that can be decided by now."""
    held, done = list(slots), known.num_done(slots)
    while len(held) < plan.trials and done >= _horizon(plan, len(held)):
        held.append(suggest(plan, space, len(held), held, known))
        yield held[-1]


def results_of(space: Space) -> Results:
    """Of a search in this space, for its suggestions one after the other."""
    return Results(space, MODEL_HISTORY)


def suggest(plan: SearchPlan, space: Space, number: int, slots: Sequence[Slot], known: Results | None = None) -> Slot:
    """Slot `number`, given the slots before it; the same without what is `known` of them from the suggestion before."""
    horizon = _horizon(plan, number)
    visible, pending = (known or results_of(space)).up_to(slots[:horizon]), slots[horizon:number]
    if number >= plan.first_rerun:
        return _rerun(plan, space, number, visible, pending)
    prune_above = visible.medians() if plan.pruner == "median" and number >= plan.num_quasi_random else {}
    redirected = _redirect(plan, space, number, visible, pending)
    if redirected is not None:
        return Slot(number, redirected, 0, BRACKET, prune_above=prune_above)
    if number < plan.num_quasi_random:
        return Slot(number, _quasi_random(plan, space, number), 0, "quasi-random", prune_above=prune_above)
    return Slot(number, _model(plan, number, visible), 0, "model", prune_above=prune_above)


def _horizon(plan: SearchPlan, number: int) -> int:
    """Number of slots whose results slot `number` sees; re-runs see the whole search before them."""
    if number >= plan.first_rerun:
        return plan.first_rerun
    if number < math.ceil(plan.num_quasi_random / 2):
        return 0
    return max(0, number - plan.lag + 1)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@lru_cache(maxsize=256)
def _points(seed: int, dimensions: int, count: int) -> NDArray[np.float64]:
    from scipy.stats import qmc  # who asks how far a sweep is has no use for half a second of scipy

    return np.asarray(qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(max(1, math.ceil(math.log2(count)))))


def _quasi_random(plan: SearchPlan, space: Space, place: int) -> dict[str, Value]:
    """Point `place` of a scrambled Sobol sequence, the same for all arms, in each arm's own space."""
    count = max(plan.num_quasi_random, place + 1, 2)
    unit = _points(seed_of(plan.seed, "quasi-random") % 2**32, len(space.dimensions), count)[place]
    keys = sorted(space.dimensions)
    return {key: space.dimensions[key].at(float(u)) for key, u in zip(keys, unit, strict=True)}


def settings(slots: Sequence[Slot]) -> list[Setting]:
    """Distinct parameter settings in order of first appearance, with their results (diverged: inf)."""
    return results_of(Space({})).up_to(slots).settings


def ranked(slots: Sequence[Slot]) -> list[Setting]:
    """Settings without a divergence, best mean first; ties go to the smaller LR, then to the earlier one."""
    return results_of(Space({})).up_to(slots).ranked


def brackets(space: Space, slots: Sequence[Slot], params: Params) -> dict[str, dict[str, bool]]:
    """By key whose range may grow and by side: whether a tried value, worse or diverged, lies beyond the one given."""
    found = {}
    for key, axis in axes_of(space).items():
        tried = [number_of(slot.params, key) for slot in slots if slot.done and not slot.crashed]
        best = number_of(params, key)
        found[key] = {side: axis.bracketed(best, tried, sign) for side, sign in SIDES.items()}
    return found


def _redirect(
    plan: SearchPlan, space: Space, place: int, visible: Results, pending: Sequence[Slot]
) -> dict[str, Value] | None:
    """The next setting past an end that the best one leans on, or None.

    While the space is still being filled, only an end of the LR's range counts: points between may be yet to come.
    Other keys wait for the LR, and take a slot only as long as brackets have had less than their share.
    """
    params, filling = visible.best, place < plan.num_quasi_random
    if params is None:
        return _lower(space, visible, pending)
    for key, axis in axes_of(space).items():
        if key != LR and (filling or _num_brackets(visible, pending) >= MOST_BRACKETS * plan.first_rerun):
            continue
        coming = Ends([slot.params[key] for slot in pending]).found
        tried, known = visible.numbers[key].tried.found, [*coming, *visible.numbers[key].seen.found]
        for sign in (1, -1):
            value = _beyond(axis, number_of(params, key), sign, tried, coming, known, filling=filling, wait=key != LR)
            if value is not None:
                return {**params, key: value}
    return None


def _num_brackets(visible: Results, pending: Sequence[Slot]) -> int:
    """Slots that brackets took."""
    return visible.num_brackets + [slot.origin for slot in pending].count(BRACKET)


def _beyond(
    axis: Axis,
    best: float,
    sign: int,
    tried: Sequence[float],
    coming: Sequence[float],
    known: Sequence[float],
    *,
    filling: bool,
    wait: bool,
) -> float | None:
    """The value to try next, so that the best one is bracketed on this side; None if it is, or will be.

    The ends of what was `tried`, of what is `coming` and of all that is `known` are enough.

    A range grows on while values past its end are still coming, unless it should `wait` for them.
    """
    if axis.bracketed(best, tried, sign):
        return None
    on_the_way = axis.bracketed(best, coming, sign)
    grown = axis.beyond(best, known, sign)
    if grown is not None:
        return None if wait and on_the_way else grown
    return None if filling or on_the_way else (axis.high if sign > 0 else axis.low)


def _lower(space: Space, visible: Results, pending: Sequence[Slot]) -> dict[str, Value] | None:
    """The setting to try where everything has diverged: the LR's range is too high."""
    axis = axes_of(space).get(LR)
    tried = visible.numbers[LR].valued.found if axis else ()
    if axis is None or not tried:
        return None
    coming = [number_of(slot.params, LR) for slot in pending]
    return {**visible.slots[-1].params, LR: min([*tried, *coming, axis.low]) / LEAST_FACTOR}


def _model(plan: SearchPlan, place: int, visible: Results) -> dict[str, Value]:
    """What Optuna's sampler suggests, asked on a fresh in-memory study.

    The study is built from the visible history under the present ranges, because Optuna's samplers don't survive a
    range that changes; diverged trials carry the worst finite value, so that the model keeps away from them.
    """
    dimensions = visible.space()
    distributions = {key: dimensions[key].distribution for key in sorted(dimensions)}
    worst = 0.0 if visible.worst is None else visible.worst
    seed = seed_of(plan.seed, plan.arm, place, "model") % 2**32
    study = optuna.create_study(sampler=_sampler(plan.sampler, len(visible.valued), seed))
    for slot in visible.modelled():
        value = slot.value if slot.value is not None and math.isfinite(slot.value) else worst
        study.add_trial(_told(slot.params, distributions, value))
    with _one_thread() if isinstance(study.sampler, optuna.samplers.GPSampler) else contextlib.nullcontext():
        asked = study.ask(dict(distributions))
    return {key: _plain(asked.params[key]) for key in distributions}


class _UncopiedTrial(optuna.trial.FrozenTrial):
    """A trial for one study alone: the deep copy that this makes of any other took half of a model's time."""

    def __deepcopy__(self, memo: Any) -> _UncopiedTrial:
        return copy.copy(self)


def _told(params: Params, distributions: Mapping[str, BaseDistribution], value: float) -> _UncopiedTrial:
    return _UncopiedTrial(
        number=-1,
        trial_id=-1,
        state=optuna.trial.TrialState.COMPLETE,
        value=value,
        datetime_start=_ANY_TIME,
        datetime_complete=_ANY_TIME,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _plain(value: Any) -> Value:
    """A sampler's value as JSON keeps it; some come as numpy's floats."""
    return float(value) if isinstance(value, float) else value


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The Gaussian process fits in torch, whose last bits depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _sampler(name: str, results: int, seed: int) -> optuna.samplers.BaseSampler:
    if name == "gp" and results < MOST_OF_GP:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, deterministic_objective=False)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True)


def _rerun(plan: SearchPlan, space: Space, number: int, visible: Results, pending: Sequence[Slot]) -> Slot:
    """A top setting on the next search seed that it has not had; earlier re-runs (of a plan that grew) count."""
    place = number - plan.first_rerun
    top = _apart(space, visible.ranked)
    if not top:  # nothing converged: keep looking, lower
        redirected = _redirect(plan, space, number, visible, ())
        fallback = redirected or _quasi_random(plan, space, number)
        if LR in axes_of(space):
            fallback[LR] = number_of(fallback, LR) / LEAST_FACTOR**place
        return Slot(number, fallback, 0, BRACKET)
    params = top[place % len(top)][0]
    used = visible.seeds(params, pending)
    return Slot(number, params, next(seed for seed in range(number + 1) if seed not in used), "rerun")


def _apart(space: Space, best: Sequence[Setting]) -> list[Setting]:
    """The best setting, and the best of those that differ from it in the LR, without one in the first searched number.

    Where none does, the next best: two near copies would tell less than two settings.
    """
    if len(best) < NUM_RERUN_SETTINGS:
        return list(best)
    first, others = best[0], best[1:]
    key, axis = next(iter(axes_of(space).items()), (None, None))
    if key is None or axis is None:
        return [first, others[0]]
    value = number_of(first[0], key)
    return [first, next((o for o in others if axis.distinct(number_of(o[0], key), value)), others[0])]


@dataclass(frozen=True)
class Choice:
    """The setting an arm is confirmed with."""

    params: Params
    mean: float
    count: int
    sides: Mapping[str, Mapping[str, bool]]  # by key whose range may grow: whether bracketed on its low and high side
    searched: Mapping[str, tuple[float, float]]  # ends of the ranges that are of numbers, with extensions
    numbers: tuple[int, ...]


def choose(plan: SearchPlan, space: Space, slots: Sequence[Slot]) -> Choice | None:
    """The best mean among the settings that ran on most seeds; None if every trial diverged or crashed.

    Only equally many seeds are compared, so one lucky run can't win against a mean; where a plan that grew gave a
    setting more than the others, the first ones count.
    """
    found = results_of(space).up_to(slots)
    best = found.ranked
    if not best:
        return None
    enough = min(1 + plan.num_reruns // NUM_RERUN_SETTINGS, max(len(values) for _, values in best))
    equal = [(params, values[:enough]) for params, values in best if len(values) >= enough]
    params, values = min(equal, key=rank)
    edges = {key: found.number for key, found in found.space().items()}
    return Choice(
        params=params,
        mean=fmean(values),
        count=len(values),
        sides=brackets(space, slots, params),
        searched={key: (edge.low, edge.high) for key, edge in edges.items() if edge is not None},
        numbers=tuple(slot.number for slot in slots if slot.params == params),
    )
