"""Learning-rate schedules and warm-ups as pure functions of the step; `schedules.py` composes them.

A schedule is a function `name(steps, num_steps, **options) -> multipliers` of the peak learning rate, float64. `steps`
counts from the end of warm-up (k − W) and `num_steps` is T − W, so the final multiplier is reached exactly at step
T − 1. A schedule that asks for `warmup_steps` or `observed` by naming it among its arguments gets it. Adding a schedule
is one function here and one YAML; what else is special about one it declares by `special`. What values an option may
have stands beside its annotation and is checked before the function is called.

One rule for all lengths: a whole number is steps, a number with a decimal point up to 1.0 is a fraction of the run (of
what is left of it after warm-up, where the schedule counts from there). So 1 is one step and 1.0 the whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from optsweep.checks import checked, in_steps, length, lengths, number, optional, whole
from optsweep.optim.iterate import Iterate
from optsweep.optim.schedule_free import ScheduleFree

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]

Length = Annotated[float, length]
Share = Annotated[float, checked(number, least=0.0, most=1.0)]
Factor = Annotated[float, checked(number, above=0.0, most=1.0)]


@dataclass(frozen=True)
class Traits:
    """What is special about a schedule; most have nothing of it."""

    own_warmup: bool = False  # another before it is refused
    falls_at_steps: bool = False  # constant but for reductions, so a run that ends before the first one gets a note
    iterate: type[Iterate] | None = None  # it averages by this; options that aren't the function's are the iterate's


DECLARED: dict[Callable[..., Floats], Traits] = {}
"""Traits of the schedules that have declared some."""

Function = TypeVar("Function", bound=Callable[..., Floats])


def special(
    *, own_warmup: bool = False, falls_at_steps: bool = False, iterate: type[Iterate] | None = None
) -> Callable[[Function], Function]:
    """Declare the `Traits` of a schedule; the function stays as it is."""

    def declare(function: Function) -> Function:
        DECLARED[function] = Traits(own_warmup, falls_at_steps, iterate)
        return function

    return declare


# -- schedules ---------------------------------------------------------------------------------------------------------


def constant(steps: Steps, num_steps: int) -> Floats:
    """1."""
    return np.ones(len(steps))


@special(iterate=ScheduleFree)
def schedule_free(steps: Steps, num_steps: int) -> Floats:
    """1: the averaging of Schedule-Free (optim/schedule_free.py) takes the place of a decay."""
    return np.ones(len(steps))


def linear(steps: Steps, num_steps: int, *, final: Share = 0.0) -> Floats:
    """1 − (1 − final)·p, p the progress from 0 to 1."""
    return 1 - (1 - final) * _progress(steps, num_steps)


def cosine(steps: Steps, num_steps: int, *, final: Share = 0.0) -> Floats:
    """final + (1 − final)·½(1 + cos πp) (Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts)."""
    return final + (1 - final) * 0.5 * (1 + np.cos(np.pi * _progress(steps, num_steps)))


def polynomial(
    steps: Steps, num_steps: int, *, power: Annotated[float, checked(number, above=0.0)] = 2.0, final: Share = 0.0
) -> Floats:
    """final + (1 − final)·(1 − p)^power."""
    return final + (1 - final) * (1 - _progress(steps, num_steps)) ** power


def exponential(steps: Steps, num_steps: int, *, final: Factor = 0.01, warmup_steps: int = 0) -> Floats:
    """final^(k/(T−1)), k the absolute step, warm-up included: a constant factor per step."""
    absolute = steps + warmup_steps
    return final ** (absolute / max(num_steps + warmup_steps - 1, 1))


@special(falls_at_steps=True)
def step(
    steps: Steps, num_steps: int, *, step_size: Length = 1 / 3, gamma: Factor = 0.1, warmup_steps: int = 0
) -> Floats:
    """gamma^⌊k/step_size⌋, k the absolute step; `step_size` in steps, or a fraction of the run."""
    total = num_steps + warmup_steps
    return gamma ** np.floor((steps + warmup_steps) / round(in_steps(step_size, total)))


@special(falls_at_steps=True)
def multi_step(
    steps: Steps,
    num_steps: int,
    *,
    milestones: Annotated[Sequence[float], lengths] = (0.5, 0.75),
    gamma: Factor = 0.1,
    warmup_steps: int = 0,
) -> Floats:
    """gamma^(milestones reached), by the absolute step; milestones in steps, or as fractions of the run."""
    reached = sorted(round(in_steps(milestone, num_steps + warmup_steps)) for milestone in milestones)
    return gamma ** np.searchsorted(reached, steps + warmup_steps, side="right").astype(np.float64)


def cosine_restarts(
    steps: Steps,
    num_steps: int,
    *,
    first: Length = 0.25,
    factor: Annotated[float, checked(number, least=1.0)] = 1.0,
    final: Share = 0.0,
) -> Floats:
    """Cosine cycles of `first` steps or of a fraction, each `factor` times the one before (arXiv 1608.03983).

    A cycle begins at 1 and comes near `final` without reaching it, as SGDR and torch have it; where the run ends with
    a cycle, its last step is at `final` exactly. Raises ValueError if the first cycle is longer than the run.
    """
    period = in_steps(first, num_steps)
    if period > num_steps:
        raise ValueError(f"schedule.first is {period:g} steps, longer than the {num_steps} there are after warm-up")
    begins, periods = [0.0], [period]
    while begins[-1] + periods[-1] < num_steps - 1e-6:
        begins.append(begins[-1] + periods[-1])
        periods.append(periods[-1] * factor)
    cycle = np.searchsorted(np.array(begins) - 1e-6, steps, side="right") - 1
    progress = np.clip((steps - np.array(begins)[cycle]) / np.array(periods)[cycle], 0, 1)
    multipliers = final + (1 - final) * 0.5 * (1 + np.cos(np.pi * progress))
    ends_with_a_cycle = abs(begins[-1] + periods[-1] - num_steps) < 1e-6
    return np.where(ends_with_a_cycle & (steps == num_steps - 1), final, multipliers)


@special(own_warmup=True)
def one_cycle(
    steps: Steps,
    num_steps: int,
    *,
    rise: Annotated[float, checked(number, above=0.0, below=1.0)] = 0.3,
    start: Share = 0.04,
    final: Share = 4e-6,
    anneal: Literal["cosine", "linear"] = "cosine",
) -> Floats:
    """From `start` up to 1 in the share `rise` of the run, then down to `final` (Smith & Topin 2017, arXiv 1708.07120).

    `anneal` is cosine or linear, for both ways. Defaults as torch's (1/25, and 1/25/10⁴); momentum isn't cycled. It has
    its own warm-up, so another is refused.
    """
    top, last = max(rise * num_steps - 1, 0.0), max(num_steps - 1, 1)
    up = np.clip(steps / top, 0, 1) if top > 0 else np.ones(len(steps))
    down = np.clip((steps - top) / (last - top), 0, 1)
    if anneal == "cosine":
        up, down = 0.5 * (1 - np.cos(np.pi * up)), 0.5 * (1 - np.cos(np.pi * down))
    return np.where(steps <= top, start + (1 - start) * up, 1 + (final - 1) * down)


def inverse_sqrt(
    steps: Steps, num_steps: int, *, time_scale: Annotated[float | None, optional(length)] = None, warmup_steps: int = 0
) -> Floats:
    """√(s/(s + k − W)): 1 at the end of warm-up (Vaswani et al. 2017, arXiv 1706.03762).

    The time scale s is the length of warm-up unless given, in steps or as a fraction of the run. Raises ValueError
    where there is neither.
    """
    scale = float(warmup_steps) if time_scale is None else round(in_steps(time_scale, num_steps + warmup_steps))
    if not scale:
        raise ValueError("schedule=inverse_sqrt without warm-up needs schedule.time_scale, in steps")
    multipliers: Floats = np.sqrt(scale / (scale + steps))
    return multipliers


def wsd(
    steps: Steps,
    num_steps: int,
    *,
    cooldown: Length = 0.2,
    shape: Literal["sqrt", "linear"] = "sqrt",
    final: Share = 0.0,
) -> Floats:
    """Warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): 1, then down in the last `cooldown` of the run.

    `cooldown` is a share of the steps after warm-up, or a number of them; `shape` is sqrt, 1 − √x (Hägele et al. 2024,
    arXiv 2405.18392), or linear. The cooldown's first step is below 1 already, its last is `final`.
    """
    decaying = min(round(in_steps(cooldown, num_steps)), num_steps)
    x = np.clip((steps - (num_steps - decaying) + 1) / decaying, 0, 1)
    lost: Floats = np.sqrt(x) if shape == "sqrt" else x
    return 1 - (1 - final) * lost


def plateau(
    steps: Steps,
    num_steps: int,
    *,
    factor: Annotated[float, checked(number, above=0.0, below=1.0)] = 0.1,
    patience: Annotated[int, checked(whole, low=0)] = 2,
    threshold: Annotated[float, checked(number, least=0.0, below=1.0)] = 1e-4,
    cooldown: Annotated[int, checked(whole, low=0)] = 0,
    final: Share = 0.0,
    observed: Sequence[float] = (),
) -> Floats:
    """Times `factor` after more than `patience` evaluations in a row without a new best, never below `final`.

    As torch.optim.lr_scheduler.ReduceLROnPlateau: a best is below (1 − threshold) × the old one, evaluations during the
    `cooldown` after a reduction don't count as bad. The deck's slide reduces at `patience` already.
    """
    multiplier, best, bad, cooling = 1.0, np.inf, 0, 0
    for value in observed:
        if value < best * (1 - threshold):
            best, bad = value, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            multiplier, cooling, bad = max(multiplier * factor, final), cooldown, 0
    return np.full(len(steps), multiplier)


def _progress(steps: Steps, num_steps: int) -> Floats:
    """0 at the first step, 1 at the last; 0 where there is only one."""
    return steps / max(num_steps - 1, 1)


# -- warm-ups: from the fraction p of the way, (k + 1)/W, to a multiplier ----------------------------------------------


def warmup_linear(progress: Floats) -> Floats:
    """p (Goyal et al. 2017, arXiv 1706.02677)."""
    return progress


def warmup_cosine(progress: Floats) -> Floats:
    """½(1 − cos πp)."""
    return 0.5 * (1 - np.cos(np.pi * progress))


def warmup_exponential(progress: Floats) -> Floats:
    """0.01^(1 − p): a constant factor per step, over two orders of magnitude."""
    return 0.01 ** (1 - progress)


WARMUP = "warmup_"
"""Prefix of the functions that are warm-ups, by the names in conf/warmup/."""
