"""The search is a pure function of what is visible, spends exactly its budget, and brackets the learning rate."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from optsweep.search.brackets import axes_of
from optsweep.search.results import Results
from optsweep.search.slots import (
    MOST_OF_GP,
    SearchPlan,
    Slot,
    brackets,
    choose,
    next_slots,
    ranked,
    ready,
    results_of,
    suggest,
)
from optsweep.search.space import Params, Space, number_of, numbers

PLAN = SearchPlan(trials=16, lag=2, sampler="tpe", pruner="none", reruns=0.25, seed=0, arm="a")
LIMITS = (0.0, math.inf)
SPACE = Space({"lr": numbers(1e-4, 1e-3, limits=LIMITS)})
Objective = Callable[[Params, int], float]


def valley(best: float) -> Objective:
    """Validation loss with its minimum at `best`, a cliff a decade above it, and a little noise from the seed."""

    def objective(params: Params, seed: int) -> float:
        lr = number_of(params, "lr")
        if lr > 10 * best:
            return math.inf
        return 2 + 0.1 * math.log10(lr / best) ** 2 + 1e-4 * math.sin(1e3 * lr + seed)

    return objective


def search(plan: SearchPlan, space: Space, objective: Objective, workers: int = 1, pace: int = 0) -> list[Slot]:
    """Run a search with so many workers, whose speeds differ in a way that `pace` chooses."""
    slots: list[Slot] = []
    running: list[tuple[float, int]] = []
    waiting: list[int] = []
    now = 0.0
    while len([s for s in slots if s.done]) < plan.trials:
        while len(slots) < plan.trials and ready(plan, len(slots), slots):
            slots.append(suggest(plan, space, len(slots), slots))
            waiting.append(len(slots) - 1)
        while waiting and len(running) < workers:
            number = waiting.pop(0)
            heapq.heappush(running, (now + 1 + (number * 7 + pace) % 5, number))
        now, number = heapq.heappop(running)
        slot = slots[number]
        slots[number] = replace(slot, value=objective(slot.params, slot.seed))
    return slots


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_what_is_known_of_the_results_before_changes_nothing(pruner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, objective = replace(PLAN, trials=24, lag=4, pruner=pruner), valley(3e-3)
    known, slots, taken = results_of(SPACE), list[Slot](), list[int]()
    take = Results._take

    def noted(results: Results, slot: Slot) -> None:
        taken.extend([slot.number] if results is known else [])
        take(results, slot)

    monkeypatch.setattr(Results, "_take", noted)
    while sum(slot.done for slot in slots) < plan.trials:
        for slot in next_slots(plan, SPACE, list(slots), known):
            assert slot == suggest(plan, SPACE, slot.number, slots)
            slots.append(slot)
        assert len(slots) == plan.trials or not ready(plan, len(slots), slots)
        last = [slot.number for slot in slots if not slot.done][-1]
        value = objective(slots[last].params, slots[last].seed)
        rungs = {step: value + step / 100 for step in (5, 10, 15)}
        slots[last] = replace(slots[last], value=value, rungs=rungs)
    assert taken == list(range(plan.first_rerun)), "each is taken in once"
    others = [replace(slot, value=1 / (1 + slot.number)) for slot in slots]
    assert known.up_to(others).ranked == ranked(others), "where they are others, nothing is left of those before"


@pytest.mark.parametrize("sampler", ["tpe", "quasi-random"])
def test_same_search_whatever_the_number_and_speed_of_workers(sampler: str) -> None:
    plan = replace(PLAN, sampler=sampler)
    reference = search(plan, SPACE, valley(3e-3))
    for workers, pace in ((2, 0), (2, 3), (3, 1), (8, 2)):
        assert search(plan, SPACE, valley(3e-3), workers, pace) == reference


def test_gp_sampler_is_reproducible_and_stays_within_the_range() -> None:
    plan = replace(PLAN, sampler="gp", trials=8)
    first = search(plan, SPACE, valley(3e-4))
    assert search(plan, SPACE, valley(3e-4), workers=2) == first
    asked = [slot for slot in first if slot.origin == "model"]
    assert asked
    assert all(1e-4 <= number_of(slot.params, "lr") <= 1e-3 for slot in asked)


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 7, 16, 20])
@pytest.mark.parametrize("best", [3e-4, 3e-2])
def test_every_arm_spends_exactly_its_budget(trials: int, best: float) -> None:
    slots = search(replace(PLAN, trials=trials), SPACE, valley(best))
    assert [slot.number for slot in slots] == list(range(trials))


@pytest.mark.parametrize("best", [2e-6, 3e-5, 3e-4, 5e-3, 3e-2])
def test_the_range_grows_past_its_edge_until_the_best_is_bracketed(best: float) -> None:
    slots = search(PLAN, SPACE, valley(best))
    choice = choose(PLAN, SPACE, slots)
    assert choice is not None
    assert choice.sides == {"lr": {"low": True, "high": True}}
    assert abs(math.log10(number_of(choice.params, "lr") / best)) < 0.5
    if not 1e-4 <= best <= 1e-3:
        assert any(slot.origin == "bracket" for slot in slots)


def test_an_arm_too_far_out_of_its_range_ends_unbracketed_and_says_so() -> None:
    plan = replace(PLAN, trials=6)
    choice = choose(plan, SPACE, search(plan, SPACE, valley(1e3)))
    assert choice is not None
    assert choice.sides == {"lr": {"low": True, "high": False}}


def test_a_search_that_only_diverges_goes_lower_and_ends_without_a_choice() -> None:
    slots = search(PLAN, SPACE, lambda params, seed: math.inf)
    assert min(number_of(slot.params, "lr") for slot in slots) < 1e-5
    assert choose(PLAN, SPACE, slots) is None


def test_bracket_needs_a_factor_of_one_and_a_half() -> None:
    slots = [Slot(i, {"lr": lr}, 0, "model", value=1.0) for i, lr in enumerate((1e-3 / 1.49, 1e-3, 1.5e-3))]
    assert brackets(SPACE, slots, slots[1].params) == {"lr": {"low": False, "high": True}}


def test_quasi_random_points_are_the_same_for_all_arms_and_equally_dense_per_decade() -> None:
    plan = replace(PLAN, trials=64, sampler="quasi-random", reruns=0.0)
    narrow, wide = Space({"lr": numbers(1e-4, 1e-2, limits=LIMITS)}), Space({"lr": numbers(1e-6, 1e-2, limits=LIMITS)})
    flat: Objective = lambda params, seed: 1 + abs(math.log10(number_of(params, "lr") / 1e-3))  # noqa: E731
    one = [number_of(s.params, "lr") for s in search(plan, narrow, flat)]
    other = [number_of(s.params, "lr") for s in search(replace(plan, arm="b"), wide, flat)]
    for a, b in zip(one, other, strict=True):
        assert math.log(a / 1e-4) / math.log(1e2) == pytest.approx(math.log(b / 1e-6) / math.log(1e4))
    for decade in range(4):
        inside = sum(1e-6 * 10**decade <= lr < 1e-5 * 10**decade for lr in other)
        assert 14 <= inside <= 18


def test_reruns_average_out_a_lucky_run() -> None:
    def objective(params: Params, seed: int) -> float:
        lucky = seed == 0 and number_of(params, "lr") > 5e-4
        return 2 + 0.3 * abs(math.log10(number_of(params, "lr") / 2e-4)) - (0.5 if lucky else 0.0)

    slots = search(PLAN, SPACE, objective)
    reruns = [slot for slot in slots if slot.origin == "rerun"]
    assert len(reruns) == 4
    assert {slot.seed for slot in reruns} == {1, 2}
    choice = choose(PLAN, SPACE, slots)
    assert choice is not None
    assert choice.count == 3


def test_pruning_thresholds_are_the_medians_of_what_was_visible() -> None:
    plan = replace(PLAN, pruner="median")
    slots = [
        Slot(i, {"lr": 1e-4 * (i + 1)}, 0, "quasi-random", value=2.0 + i, rungs={0: 9.0, 10: 3.0 + i, 20: 2.0 + i})
        for i in range(9)
    ]
    slot = suggest(plan, SPACE, 9, slots)
    assert slot.prune_above == {10: 6.5}  # slots 0 … 7 are visible to slot 9; the last rung never prunes


def test_ties_go_to_the_smaller_learning_rate() -> None:
    slots = [Slot(i, {"lr": lr}, 0, "model", value=1.0) for i, lr in enumerate((3e-3, 1e-3, 2e-3))]
    assert ranked(slots)[0][0] == {"lr": 1e-3}


def test_crashed_slots_count_as_done_and_never_as_results() -> None:
    slots = [Slot(0, {"lr": 1e-3}, 0, "model", crashed=True), Slot(1, {"lr": 2e-3}, 0, "model", value=1.0)]
    assert ready(replace(PLAN, reruns=0.0), 2, slots)
    assert [dict(params) for params, _ in ranked(slots)] == [{"lr": 2e-3}]
    assert brackets(SPACE, slots, slots[1].params) == {"lr": {"low": False, "high": False}}


@pytest.mark.parametrize("best", [1e-5, 1e-4, 1e-3, 2e-2, 1e-1, 1.0])
@pytest.mark.parametrize("trials", [4, 6, 8, 16])
def test_no_trial_is_run_twice_and_the_best_of_equals_is_chosen(trials: int, best: float) -> None:
    space = Space({"lr": numbers(1e-4, 1e-1, limits=LIMITS)})
    for seed in range(5):
        plan = replace(PLAN, trials=trials, seed=seed)
        slots = search(plan, space, valley(best))
        trials_run = [(tuple(slot.params.items()), slot.seed) for slot in slots]
        assert len(set(trials_run)) == len(trials_run)
        choice = choose(plan, space, slots)
        if choice is not None and not plan.num_reruns:
            assert choice.mean == min(slot.value for slot in slots if slot.value is not None)


def test_a_plan_that_grew_reruns_on_new_seeds_and_compares_equal_numbers_of_them() -> None:
    small, grown = replace(PLAN, trials=8), replace(PLAN, trials=16)
    slots = search(small, SPACE, valley(3e-4))
    while len(slots) < 16:
        slot = suggest(grown, SPACE, len(slots), slots)
        slots.append(replace(slot, value=valley(3e-4)(slot.params, slot.seed)))
    trials_run = [(tuple(slot.params.items()), slot.seed) for slot in slots]
    assert len(set(trials_run)) == 16
    choice = choose(grown, SPACE, slots)
    assert choice is not None
    assert choice.count == 3


def hollow(lr: float, decay: float) -> Objective:
    """A valley over LR and λ."""

    def objective(params: Params, seed: int) -> float:
        away = [math.log10(number_of(params, key) / at) for key, at in (("lr", lr), ("weight_decay", decay))]
        return 2 + 0.3 * away[0] ** 2 + 0.1 * away[1] ** 2 + 1e-4 * math.sin(1e3 * number_of(params, "lr") + seed)

    return objective


def plane(high: float, most: float = math.inf) -> Space:
    """LR and λ, λ up to `high`, and up to `most` where it grows."""
    return Space(
        {"lr": numbers(1e-3, 1e-1, limits=LIMITS), "weight_decay": numbers(1e-3, high, limits=(1e-6, max(high, most)))}
    )


def test_a_decay_whose_best_lies_past_its_range_is_bracketed_and_costs_at_most_a_third_of_the_slots() -> None:
    plan = replace(PLAN, trials=32)
    slots = search(plan, plane(0.1), hollow(1e-2, 1.0))
    choice = choose(plan, plane(0.1), slots)
    assert choice is not None
    assert choice.sides["weight_decay"] == {"low": True, "high": True}
    assert number_of(choice.params, "weight_decay") > 0.3
    assert 1 <= sum(slot.origin == "bracket" for slot in slots) <= 8
    for workers, pace in ((2, 0), (4, 1)):
        assert search(plan, plane(0.1), hollow(1e-2, 1.0), workers, pace) == slots


@pytest.mark.parametrize(("spent", "origin"), [(7, "bracket"), (8, "model")])
def test_other_keys_take_no_slot_once_brackets_have_had_a_third(spent: int, origin: str) -> None:
    plan, deep = replace(PLAN, trials=32), hollow(1e-2, 1e9)
    slots = []
    for k in range(20):
        params = {"lr": 1e-3 * 100 ** (k / 19), "weight_decay": 1.0}
        slots.append(Slot(k, params, 0, "bracket" if k < spent else "model", value=deep(params, 0)))
    assert suggest(plan, plane(1.0, most=math.inf), 20, slots).origin == origin


def test_a_range_never_grows_past_its_limit_and_its_best_there_is_bracketed() -> None:
    space = plane(1.0, most=1.0)
    plan = replace(PLAN, trials=32)
    slots = search(plan, space, hollow(1e-2, 30.0))
    assert max(number_of(slot.params, "weight_decay") for slot in slots) <= 1.0
    at_limit = {"lr": 1e-2, "weight_decay": 1.0}
    assert brackets(space, [Slot(0, at_limit, 0, "model", value=1.0)], at_limit)["weight_decay"]["high"]


def test_a_beta_grows_towards_one_and_momentum_towards_zero_on_a_linear_scale() -> None:
    space = Space({"beta2": numbers(0.5, 0.9, log=False, limits=(0.0, 1.0))})
    axis = axes_of(space)["beta2"]
    up, up_again = axis.beyond(0.9, [0.9], 1), axis.beyond(0.9, [0.99], 1)
    assert (up, up_again) == pytest.approx((0.99, 0.999))
    assert axis.beyond(0.5, [0.5], -1) == pytest.approx(0.5 - 0.4 / 3)
    assert axis.beyond(0.7, [0.9], 1) is None
    assert axis.bracketed(0.99, [0.996], 1)
    assert not axis.bracketed(0.99, [0.994], 1)
    assert axis.bracketed(0.0, [0.0], -1)


def test_reruns_go_to_settings_that_differ_in_the_learning_rate() -> None:
    plan = replace(PLAN, trials=8)
    lrs = (3e-4, 3.1e-4, 2.9e-4, 8e-4, 1e-4, 2e-4)
    slots = [Slot(i, {"lr": lr}, 0, "model", value=1.0 + i) for i, lr in enumerate(lrs)]
    assert [suggest(plan, SPACE, 6 + k, slots[:6]).params["lr"] for k in range(2)] == [3e-4, 8e-4]
    near = [replace(slot, params={"lr": 3e-4 * (1 + slot.number / 100)}) for slot in slots]
    assert [suggest(plan, SPACE, 6 + k, near).params["lr"] for k in range(2)] == [3e-4, 3e-4 * 1.01]


@pytest.mark.parametrize(("results", "as_tpe"), [(MOST_OF_GP - 1, False), (MOST_OF_GP, True)])
def test_from_many_results_on_tpe_suggests_in_the_gaussian_process_s_place(results: int, as_tpe: bool) -> None:
    plan = replace(PLAN, trials=2 * results, lag=1)
    lrs = [10 ** (-4 + k / results) for k in range(results)]
    slots = [Slot(k, {"lr": lr}, 0, "quasi-random", value=valley(3e-4)({"lr": lr}, 0)) for k, lr in enumerate(lrs)]
    asked = {sampler: suggest(replace(plan, sampler=sampler), SPACE, results, slots) for sampler in ("gp", "tpe")}
    assert {slot.origin for slot in asked.values()} == {"model"}
    assert (asked["gp"] == asked["tpe"]) is as_tpe
