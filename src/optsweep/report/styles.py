"""Which arms have a colour of their own in the figures of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from optsweep.inference import groups
from optsweep.inference.groups import Peers
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord
from optsweep.train.trial import Phase

MOST_COLOURS = 8
"""Colours that can be told apart."""

Identity = tuple[tuple[str, str], ...]


def styles(found: Sequence[tuple[Sequence[str], Sequence[Peers[ArmRecord]]]]) -> dict[Identity, int]:
    """A number by what an arm is in every group of every sweep: (axes of the groups, groups), as `groups` makes them.

    In order where there is a colour for each. Of more, baselines come first, then those of the lowest mean rank by
    test loss, and the last colour, a grey, is left out: numbers from `MOST_COLOURS` on are those of all others.
    """
    held = [(axes, peers) for axes, of_sweep in found for peers in of_sweep]
    ordered = list(dict.fromkeys(groups.identity(arm, axes) for axes, peers in held for arm in peers.arms))
    if len(ordered) <= MOST_COLOURS:
        return {identity: style for style, identity in enumerate(ordered)}
    baselines = {groups.identity(peers.baseline, axes) for axes, peers in held}
    ranks: dict[Identity, list[int]] = {}
    for axes, peers in held:
        for rank, arm in enumerate(sorted(peers.arms, key=_mean_test_loss)):
            ranks.setdefault(groups.identity(arm, axes), []).append(rank)
    ordered.sort(key=lambda identity: (identity not in baselines, fmean(ranks[identity])))
    return {identity: place + (place >= MOST_COLOURS - 1) for place, identity in enumerate(ordered)}


def _mean_test_loss(arm: ArmRecord) -> float:
    """Infinity where a seed diverged, or none has finished."""
    return _mean(
        trial.metrics.get(names.TEST_LOSS, math.inf) if trial.status is Status.FINISHED else math.inf
        for trial in arm.of(Phase.CONFIRM)
        if trial.status in (Status.FINISHED, Status.DIVERGED)
    )


def _mean(losses: Iterable[float]) -> float:
    held = list(losses)
    return fmean(held) if held and all(map(math.isfinite, held)) else math.inf
