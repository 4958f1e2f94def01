"""Points of lanes that are noted together are those of each lane by itself, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from optsweep.optim.schedules import Schedule
from optsweep.train.lanes import Lane
from optsweep.train.points import note
from optsweep.train.record import Fetched
from optsweep.train.trial import Point, Trial


def lanes_of(starts: list[int], rungs: list[int]) -> list[Lane]:
    lanes = [
        Lane(Trial({"lr": 0.1 + k}, seed=k), Schedule("cosine").start(90), [*rungs], s) for k, s in enumerate(starts)
    ]
    for lane in lanes:
        lane.multipliers.extend(90)
    return lanes


def fetched(lanes: int, first: int, steps: int, logged: list[int]) -> Fetched:
    rng = np.random.default_rng(first)
    return Fetched(first, logged, rng.random((lanes, steps)), *rng.random((2, lanes, len(logged))))


@pytest.mark.parametrize("starts", [[0, 0, 0], [0, 4, 0]])
def test_together_as_alone(starts: list[int]) -> None:
    stretches = [(0, 30, [9, 19, 29, 13, 23]), (30, 23, [39, 49, 52, 33, 43]), (53, 7, [59, 53])]
    together, alone = (lanes_of(starts, [30, 53, 90]) for _ in range(2))
    for first, steps, logged in stretches:
        found = fetched(3, first, steps, sorted(logged))
        note(together, found, 10)
        for k, lane in enumerate(alone):
            rows = [part[k : k + 1] for part in (found.losses, found.norms, found.ratios)]
            note([lane], Fetched(found.first, found.logged, *rows), 10)
    assert [lane.points for lane in together] == [lane.points for lane in alone]
    assert all((one.losses == other.losses).all() for one, other in zip(together, alone, strict=True))


def test_a_point_has_the_mean_of_the_losses_since_the_one_before() -> None:
    (lane,) = lanes_of([0], [25, 90])
    one, two = fetched(1, 0, 7, []), fetched(1, 7, 18, [9, 19, 24])
    note([lane], one, 10)
    note([lane], two, 10)
    losses = np.concatenate([one.losses[0], two.losses[0]])
    means = [float(losses[begin:end].mean()) for begin, end in ((0, 10), (10, 20), (20, 25))]
    steps, lrs = (10, 20, 25), 0.1 * lane.multipliers.values
    assert lane.points == [
        Point(step, mean, float(lrs[step - 1]), *norms)
        for step, mean, *norms in zip(steps, means, two.norms[0], two.ratios[0], strict=True)
    ]


def test_means_of_many_lanes_are_summed_as_those_of_one() -> None:
    lanes, found = lanes_of([0] * 40, [90]), fetched(40, 0, 89, [9, 80])
    found = Fetched(0, [9, 80], found.losses * 10.0 ** np.arange(89), found.norms, found.ratios)
    note(lanes, found, 81)
    assert [lane.points[0].loss for lane in lanes] == [float(row[:81].mean()) for row in found.losses]
