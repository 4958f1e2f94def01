"""Several tasks: who reaches the target how fast, who ranks where, and how often the verdict went which way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from optsweep.inference import statistics
from optsweep.inference.looks import Level
from optsweep.inference.statistics import Interval
from optsweep.report.across.arms import (
    RUN_LENGTH_KEYS,
    final_losses,
    num_steps,
    relabelled,
    rest,
    shared_seeds,
    strictest,
    titled,
)
from optsweep.report.arm_result import ArmResult, measured
from optsweep.report.comparison import Conclusion, Group
from optsweep.report.wording import listed
from optsweep.tracking import names
from optsweep.tracking.names import Status

MOST_TAU = 4.0  # AlgoPerf's r_max
_RESAMPLES = 2_000
_RNG_SEED = 20240526


@dataclass(frozen=True, eq=False)
class Target:
    """The validation loss that counts as solving a task."""

    loss: float
    of_task: bool  # the task's own target; else the baseline's median final validation loss


@dataclass(frozen=True, eq=False)
class TaskResult:
    """One task: its arms in the order of all tasks, and what they took to reach the target."""

    task: str
    group: Group
    arms: tuple[ArmResult, ...]
    target: Target | None  # None if the baseline has no finished run that could set one
    steps: tuple[float, ...]  # median over seeds; a miss is infinity
    ranks: tuple[float, ...]  # of the mean test loss; empty without a seed that all arms ended on
    seeds: int

    @property
    def seconds(self) -> tuple[float, ...] | None:
        """Steps to target × ms per step; None unless every arm is timed."""
        if any(arm.ms_per_step is None for arm in self.arms):
            return None
        return tuple(steps * (arm.ms_per_step or 0) / 1e3 for steps, arm in zip(self.steps, self.arms, strict=True))


@dataclass(frozen=True, eq=False)
class OverTasks:
    """What several tasks of one setting say about the arms that ran on all of them; the baseline is the first arm."""

    title: str
    tasks: tuple[TaskResult, ...]
    arms: tuple[ArmResult, ...]  # of the first task, under labels that hold for all
    mean_ranks: tuple[Interval, ...]  # per arm; empty if no task can be ranked
    outcomes: tuple[Mapping[Conclusion, int], ...]  # per arm against the baseline; empty counts for the baseline
    level: Level  # the strictest of the tasks
    notes: tuple[str, ...]

    @property
    def measure(self) -> str:
        """What decides: of tasks that have several, all of them."""
        return measured(task.arms[0] for task in self.tasks)

    @property
    def solvable(self) -> tuple[TaskResult, ...]:
        """Tasks that have a target."""
        return tuple(task for task in self.tasks if task.target is not None)

    @property
    def steps(self) -> NDArray[np.float64]:
        """Steps to target [tasks, arms]."""
        return np.array([task.steps for task in self.solvable], dtype=np.float64)

    @property
    def seconds(self) -> NDArray[np.float64] | None:
        """Seconds to target [tasks, arms]; None unless every arm is timed on every task."""
        held = [task.seconds for task in self.solvable]
        return None if not held or any(row is None for row in held) else np.array(held, dtype=np.float64)


def over_tasks(groups: Sequence[Group]) -> tuple[OverTasks, ...]:
    """Families of groups that differ in their task (and in the length of their runs: the longest of a task counts)."""
    families: dict[object, list[Group]] = {}
    for group in groups:
        if group.setting.get("task"):
            families.setdefault(rest(group.setting, "task", *RUN_LENGTH_KEYS), []).append(group)
    found = [_over_tasks(members) for members in families.values()]
    return tuple(tasks for tasks in found if tasks is not None)


def _over_tasks(groups: Sequence[Group]) -> OverTasks | None:
    by_task: dict[str, Group] = {}
    for group in groups:
        held = by_task.get(group.setting["task"])
        if held is None or (num_steps(group) or 0) > (num_steps(held) or 0):
            by_task[group.setting["task"]] = group
    ended = {task: [arm for arm in group.arms if final_losses(arm)] for task, group in by_task.items()}
    left_out = sorted(f"{group.sweep.name}'s {group.title}" for group in groups if group not in by_task.values())
    notes = (
        [f"Of each task the longest runs count, of equally long ones the first; left out: {listed(left_out)}."]
        if left_out
        else []
    )
    chosen = _with_arms_in_common({task: {arm.style for arm in arms} for task, arms in ended.items()})
    if len(chosen) < 2:
        return None
    styles = set.intersection(*({arm.style for arm in ended[task]} for task in chosen))
    if dropped := [task for task in ended if task not in chosen]:
        notes.append(f"Too few arms ran on {listed(dropped)} as well, so {_it(dropped)} left out.")
    baseline = Counter(by_task[task].baseline.style for task in chosen).most_common(1)[0][0]
    order = [arm.style for arm in ended[chosen[0]] if arm.style in styles]
    order.sort(key=lambda style: style != baseline)
    labelled = relabelled([by_task[task] for task in chosen], [ended[task] for task in chosen])
    missing = sorted({arm.label for arms in labelled for arm in arms if arm.style not in styles})
    if missing:
        notes.append(f"Left out for want of a result on every task: {listed(missing)}.")
    members = [_in_order(arms, order) for arms in labelled]
    tasks = [_task(task, by_task[task], arms) for task, arms in zip(chosen, members, strict=True)]
    level = strictest(by_task[task] for task in chosen)
    tables = [table for task in tasks if len(table := rank_table(task.arms))]
    return OverTasks(
        title=titled(None, rest(groups[0].setting, "task", *RUN_LENGTH_KEYS)),
        tasks=tuple(tasks),
        arms=members[0],
        mean_ranks=tuple(mean_ranks(tables, level.confidence)),
        outcomes=tuple(_outcomes(tasks, style, baseline) for style in order),
        level=level,
        notes=tuple(notes),
    )


def _it(names_of: Sequence[str]) -> str:
    return "it is" if len(names_of) == 1 else "they are"


def _in_order(arms: Sequence[ArmResult], order: Sequence[int]) -> tuple[ArmResult, ...]:
    by_style = {arm.style: arm for arm in arms}
    return tuple(by_style[style] for style in order)


def _with_arms_in_common(arms: Mapping[str, set[int]]) -> list[str]:
    """Tasks with at least two arms in common: as long as there are fewer, the one whose absence leaves most goes."""
    chosen = [task for task, held in arms.items() if len(held) > 1]
    while len(chosen) > 1 and len(set.intersection(*(arms[task] for task in chosen))) < 2:
        left = {task: set.intersection(*(arms[other] for other in chosen if other != task)) for task in chosen}
        chosen.remove(max(reversed(chosen), key=lambda task: len(left[task])))
    return chosen


def _task(task: str, group: Group, arms: tuple[ArmResult, ...]) -> TaskResult:
    target = _target(arms)
    losses = rank_table(arms)
    return TaskResult(
        task=task,
        group=group,
        arms=arms,
        target=target,
        steps=tuple(math.inf if target is None else _steps(arm, target.loss) for arm in arms),
        ranks=tuple(float(rank) for rank in stats.rankdata(losses.mean(0))) if len(losses) else (),
        seeds=len(losses),
    )


# -- targets -------------------------------------------------------------------------------------------------------


def _target(arms: Sequence[ArmResult]) -> Target | None:
    """The task's own, if an arm reaches it; else the final validation loss that more than half of the seeds reach."""
    facts = {arm.arm.facts.get("target_loss") for arm in arms}
    own = facts.pop() if len(facts) == 1 else None
    if isinstance(own, (int, float)) and any(math.isfinite(_steps(arm, float(own))) for arm in arms):
        return Target(float(own), of_task=True)
    curves = [t.curves.get(names.VAL_LOSS) for t in arms[0].confirm.values() if t.status is Status.FINISHED]
    ends = [float(curve.values[-1]) for curve in curves if curve is not None and len(curve.values)]
    ends = [end for end in ends if math.isfinite(end)]
    # of an even number the upper one of the two in the middle: the mean of both would leave the baseline a miss
    return Target(float(np.quantile(ends, 0.5, method="higher")), of_task=False) if ends else None


def _steps(arm: ArmResult, target: float) -> float:
    """Median over seeds of the steps to target; a diverged seed and a miss are infinity."""
    found = []
    for trial in arm.confirm.values():
        curve = trial.curves.get(names.VAL_LOSS)
        if trial.status is Status.DIVERGED:
            found.append(math.inf)
        elif trial.status is Status.FINISHED and curve is not None and len(curve.steps):
            found.append(statistics.steps_to_target(curve.steps, curve.values, target))
    return statistics.median_interval(found).estimate if found else math.inf


def scores(times: ArrayLike) -> list[float]:
    """AlgoPerf's score per arm of `times [tasks, arms]`: mean height of its profile from τ = 1 to 4."""
    table = np.asarray(times, dtype=np.float64)
    best = table.min(1, keepdims=True)
    relative = np.full_like(table, np.inf)
    np.divide(table, best, out=relative, where=np.isfinite(table) & np.isfinite(best))
    # one task adds a step of height 1/tasks at its τ, whose share of the width is what is left of it
    share: NDArray[np.float64] = np.clip((MOST_TAU - relative) / (MOST_TAU - 1), 0, 1)
    return [float(score) for score in share.mean(0)]


# -- ranks ---------------------------------------------------------------------------------------------------------


def rank_table(arms: Sequence[ArmResult]) -> NDArray[np.float64]:
    """Test losses [seeds, arms] on the seeds that all arms ended on; a diverged one is infinity and ranks last."""
    losses = [final_losses(arm) for arm in arms]
    seeds = shared_seeds(losses)
    return np.array([[held[seed] for held in losses] for seed in seeds], dtype=np.float64).reshape(
        len(seeds), len(arms)
    )


def mean_ranks(tables: Sequence[ArrayLike], confidence: float = statistics.CONFIDENCE) -> list[Interval]:
    """Rank of the mean loss (1 is lowest), averaged over tasks, of `losses [seeds, arms]` per task; n counts tasks.

    The interval is a bootstrap over seeds, drawn whole and for each task by itself, with the tasks held (stratified:
    Agarwal et al. 2021): what other seeds would change, not what other tasks would. Needs two seeds of every task.
    """
    held = [np.asarray(table, dtype=np.float64) for table in tables]
    if not held:
        return []
    means = np.mean([stats.rankdata(table.mean(0)) for table in held], axis=0)
    if any(len(table) < 2 for table in held):
        return [Interval(float(mean), None, None, len(held)) for mean in means]
    drawn = np.zeros((_RESAMPLES, held[0].shape[1]))
    for place, table in enumerate(held):
        picks = np.random.default_rng([_RNG_SEED, place]).integers(0, len(table), (_RESAMPLES, len(table)))
        drawn += stats.rankdata(table[picks].mean(1), axis=1) / len(held)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [Interval(float(m), float(a), float(b), len(held)) for m, a, b in zip(means, low, high, strict=True)]


def _outcomes(tasks: Sequence[TaskResult], style: int, baseline: int) -> dict[Conclusion, int]:
    """How often the verdict of the task's own group went which way; a group with another baseline doesn't count."""
    if style == baseline:
        return {}
    found: Counter[Conclusion] = Counter()
    for task in tasks:
        mine = [c for c in task.group.comparisons if c.candidate.style == style and c.baseline.style == baseline]
        found[mine[0].outcome if mine else Conclusion.UNTESTED] += 1
    return {outcome: found[outcome] for outcome in Conclusion if found[outcome]}
