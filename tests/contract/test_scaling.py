"""The cost model of docs/scaling.md: closed form and simulation agree where nobody waits and where one part is full."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.scaling_model import Costs, Engine, Simulation, Station, Sweep, closed_form

COSTS = Costs(
    suggest=0.008,
    enqueue=0.003,
    pop={"database": 0.003},
    tell={"database": 0.002},
    renew={"database": 0.001},
    track={"tracking": 0.03},
    idle=0.0,
    woken=True,
)
ENGINE = Engine("an engine", COSTS, (Station("database", 2), Station("tracking")))
SWEEP = Sweep(searches=4, trials=40, seconds=10.0)


def test_one_worker_waits_for_nobody() -> None:
    found = Simulation(ENGINE, SWEEP, 1).run()
    cycle = 10.0 + 0.003 + 0.002 + 10.0 / 10 * 0.001 + 0.03
    assert found.rate == pytest.approx(1 / cycle, rel=2e-3)
    assert closed_form(ENGINE, SWEEP, 1).rate == pytest.approx(1 / cycle, rel=2e-3)


@pytest.mark.parametrize(
    ("changed", "name", "most"),
    [
        ({}, "tracking", 1 / 0.03),
        ({"track": {"tracking": 0.0}, "enqueue": 0.0, "suggest": 0.0}, "database", 2 / 0.005),
        ({"track": {"tracking": 0.0}, "enqueue": 0.05, "suggest": 0.0}, "planner", 1 / 0.05),
    ],
)
def test_a_part_that_is_full_gives_the_rate(changed: dict[str, object], name: str, most: float) -> None:
    engine = replace(ENGINE, costs=replace(COSTS, **changed))  # type: ignore[arg-type]
    sweep = Sweep(searches=40, trials=100, seconds=0.0, lag=100)
    found, bound = Simulation(engine, sweep, 400).run(), closed_form(engine, sweep, 400)
    assert bound.limit == name
    assert bound.rate == pytest.approx(most, rel=0.02)
    assert found.rate == pytest.approx(most, rel=0.1)
    assert found.used[name] > 0.9


def test_what_a_search_lets_run_at_once_bounds_it_whatever_the_workers() -> None:
    sweep = Sweep(searches=1, trials=64, seconds=100.0, lag=4)
    few, many = (Simulation(ENGINE, sweep, workers).run() for workers in (64, 1_000))
    assert few.rate == pytest.approx(many.rate, rel=0.01)
    bound = closed_form(ENGINE, sweep, 1_000)
    assert bound.limit == "search.lag"
    assert many.rate == pytest.approx(bound.rate, rel=0.1)
