"""After how many search trials the order of a group's arms is stable, and what can be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optsweep.inference.ranking import MIN_SEARCHES, MIN_TRIALS, Stability, chosen_so_far, stability
from optsweep.inference.repeats import repeats_of
from optsweep.inference.statistics import Interval
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Group
from optsweep.report.wording import listed, number, percent, plural
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import TrialRecord
from optsweep.train.trial import Phase


@dataclass(frozen=True, eq=False)
class RankingOverTrials:
    """The arms of a group after each search trial, and the order of the pairs that the verdict tells apart."""

    arms: tuple[ArmResult, ...]
    pairs: tuple[tuple[ArmResult, ArmResult], ...]
    best: NDArray[np.float64]  # validation loss of what would be chosen: [arms, searches, trials]
    reference: ArmResult  # the baseline, where it is among the arms
    stability: Stability

    @property
    def behind(self) -> NDArray[np.float64]:
        """`best` less what the reference would choose at the end of the same search."""
        return self.best - self.best[self.arms.index(self.reference), :, -1][:, None]

    @property
    def sentence(self) -> str:
        """From how many trials on, and how many searches agree after a quarter and after half of them."""
        held = self.stability
        told = "The pair of arms" if held.pairs == 1 else f"The {held.pairs} pairs of arms"
        order = "is in the order" if held.pairs == 1 else "are in the order"
        of_others = "that the other searches' confirm seeds give"
        looks = sorted({max(held.trials // 4, 1), held.trials // 2})
        shares = listed([f"after {plural(look, 'trial')} in {_share(held, look)}" for look in looks])
        return f"{told} told apart {order} {of_others} {said_from(held)}: {shares}."


def said_from(held: Stability) -> str:
    """ "from trial 4 of 32 on in each of 8 searches"."""
    searches, of = f"{held.searches} searches", f"of {held.trials}"
    if not any(map(math.isfinite, held.stable_from)):
        return f"from no trial {of} on"
    if len(set(held.stable_from)) == 1:
        return f"from trial {number(held.stable_from[0])} {of} on in each of {searches}"
    each = listed([number(first) if math.isfinite(first) else "never" for first in sorted(held.stable_from)])
    if not math.isfinite(held.after.estimate):
        return f"by trial {held.trials} in fewer than half of {searches} (from {each})"
    mean = "geometric mean" if all(map(math.isfinite, held.stable_from)) else "median"
    after = f"from trial {number(held.after.estimate, 2)} {of} on"
    return f"{after} ({mean} over {searches}{_interval(held.after, held.confidence)}; in each from {each})"


def _interval(found: Interval, confidence: float) -> str:
    if found.low is None or found.high is None:
        return ", without an interval"
    return f", {percent(confidence)} interval {number(found.low, 2)} to {number(found.high, 2)}"


def _share(held: Stability, look: int) -> str:
    found = held.share(look)
    assert found.low is not None
    assert found.high is not None
    ends = f"{percent(held.confidence)} interval {100 * found.low:.0f} to {100 * found.high:.0f} %"
    return f"{held.agreeing[look - 1]} of {held.searches} ({ends})"


def ranking_over_trials(group: Group) -> RankingOverTrials | None:
    """None unless some pair is told apart, by enough searches, each with enough trials."""
    if group.complete < MIN_SEARCHES:
        return None
    repeats = sorted(set(group.baseline.complete).intersection(*(arm.complete for arm in group.arms)))
    found = {arm.name: (arm, _by_search(arm)) for arm in group.arms if not arm.diverged_seeds}
    lengths = {len(held.get(repeat, [])) for _, held in found.values() for repeat in repeats}
    if len(lengths) != 1 or min(lengths) < MIN_TRIALS:
        return None
    tested = {name: _tested(arm) for name, (arm, _) in found.items()}
    arms = [arm for arm, _ in found.values() if all(repeat in tested[arm.name] for repeat in repeats)]
    pairs = [pair for pair in group.apart if all(any(arm is held for held in arms) for arm in pair)]
    if not pairs:
        return None
    best = np.array([[found[arm.name][1][repeat] for repeat in repeats] for arm in arms])
    confirmed = [[tested[arm.name][repeat] for repeat in repeats] for arm in arms]
    places = [(arms.index(one), arms.index(other)) for one, other in pairs]
    held = stability(best, confirmed, places, group.level.confidence)
    reference = group.baseline if group.baseline in arms else arms[0]
    return RankingOverTrials(tuple(arms), tuple(pairs), best, reference, held)


def _by_search(arm: ArmResult) -> dict[int, list[float]]:
    """What each search would choose after each of its trials: validation losses, by repeat."""
    keys = sorted({key for chosen in arm.arm.all_chosen.values() for key in chosen.params})
    held: dict[int, list[tuple[tuple[str | None, ...], int, float]]] = {}
    for trial in sorted(arm.arm.of(Phase.SEARCH), key=lambda trial: trial.slot):
        held.setdefault(trial.repeat, []).append((tuple(map(trial.params.get, keys)), trial.seed, _loss(trial)))
    return {repeat: chosen_so_far(results) for repeat, results in held.items()}


def _loss(trial: TrialRecord) -> float:
    loss = trial.metric(names.VAL_LOSS) if trial.status is Status.FINISHED else None
    return math.inf if loss is None else loss


def _tested(arm: ArmResult) -> Mapping[int, float]:
    """Mean test loss by search."""
    return {repeat: float(np.mean(losses)) for repeat, losses in repeats_of(arm.test_losses).items()}
