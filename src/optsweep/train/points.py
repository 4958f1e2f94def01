"""Points of training from what the steps of lanes have left: of all lanes that are in step at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optsweep.train.lanes import Lane
from optsweep.train.record import Fetched


def note(lanes: Sequence[Lane], fetched: Fetched, every: int) -> None:
    """Make points of what the lanes' steps have left, at every `every`-th of theirs and at their rungs.

    Lanes whose points come at the same ticks, after as many steps since the one before, are taken together.
    """
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place, lane in enumerate(lanes):
        alike.setdefault((len(lane.losses), _pointed(lane, fetched, every)), []).append(place)
    for (_, ticks), places in alike.items():
        _note([lanes[place] for place in places], places, ticks, fetched)


def _pointed(lane: Lane, fetched: Fetched, every: int) -> tuple[int, ...]:
    """Which of the logged ticks make a point of this lane; the others are of other lanes."""
    start, rungs = lane.start, lane.rungs
    return tuple(
        i for i, tick in enumerate(fetched.logged) if (tick + 1 - start) % every == 0 or tick + 1 - start in rungs
    )


def _note(lanes: Sequence[Lane], places: Sequence[int], ticks: Sequence[int], fetched: Fetched) -> None:
    """Points of such lanes. A row of several means is summed as it is by itself."""
    losses = fetched.losses if len(places) == len(fetched.losses) else fetched.losses[places]
    losses = np.concatenate([np.stack([lane.losses for lane in lanes]), losses], 1)
    since = fetched.first - len(lanes[0].losses)  # the tick of the first of these
    ends = [fetched.logged[i] + 1 - since for i in ticks]
    means = [losses[:, begin:end].mean(1).tolist() for begin, end in zip([0, *ends], ends, strict=False)]
    norms, ratios = (found[np.ix_(places, ticks)].T.tolist() for found in (fetched.norms, fetched.ratios))
    for i, mean, norm, ratio in zip(ticks, means, norms, ratios, strict=True):
        tick = fetched.logged[i] + 1
        for lane, *numbers in zip(lanes, mean, norm, ratio, strict=True):
            lane.point(tick - lane.start, *numbers)
    left = losses[:, ends[-1] if ends else 0 :].copy()
    for lane, row in zip(lanes, left, strict=True):
        lane.losses = row
