"""How the final loss falls with the run's length, and the speed-up that follows: L(D) = α·D^−β + γ.

Runs of several lengths D, each with its own whole schedule, are fitted for the baseline; the candidate's final loss at
length D is then looked up on that curve. In-run crossings flatter schedules that decay late; this doesn't. The method
is that of Wen, Hall, Ma and Liang 2025, "Fantastic Pretraining Optimizers and Where to Find Them".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from optsweep.inference.statistics import CONFIDENCE, Interval

Array = NDArray[np.float64]

MIN_LENGTHS = 4
"""Three unknowns through three points leave nothing that could contradict the curve."""

MIN_SEEDS = 3
"""Of fewer, no interval."""

BETAS = (0.02, 4.0)
"""Bounds of β. Below, the curve is a straight line in log D and γ anything; above, a step after the first length."""

CALLED_INFINITE = 100
"""Beyond so many times the longest length an end of the interval is called infinity."""

_SCAN = 2_000  # lengths, even in log D, between which an end of the interval is interpolated
_GRID = 60  # values of β in the first pass; each further one puts 9 between the neighbours of the best
_FINE, _PASSES = 9, 4


@dataclass(frozen=True)
class LossCurve:
    """L(D) = α·D^−β + γ for D steps; γ is what no length gets below. `rmse` is in the unit of the loss."""

    alpha: float
    beta: float
    gamma: float
    rmse: float
    shortest: int
    longest: int

    def loss(self, steps: ArrayLike) -> Array:
        """Final loss of runs of so many steps."""
        return np.asarray(self.alpha * np.asarray(steps, dtype=np.float64) ** -self.beta + self.gamma)

    def steps(self, loss: float) -> float:
        """Length of the run that ends at `loss`, (α / (loss − γ))^(1/β); infinity for a loss of at most γ."""
        return float(_steps(np.array([[self.alpha, self.beta, self.gamma]]), np.array([loss]))[0])


@dataclass(frozen=True)
class SpeedUp:
    """How many times longer the baseline has to be trained for the loss that the candidate has after `steps`.

    `ratio` is infinity where the candidate's loss is at or below the baseline's γ (censored). `extrapolated` says that
    the curve was read outside the lengths that it was fitted to, or at infinity: then it is a guess.
    """

    steps: int
    ratio: Interval
    baseline_steps: float
    extrapolated: bool


def fit(lengths: Sequence[int], losses: ArrayLike, *, floor: float = 0.0) -> LossCurve | None:
    """Least squares of L(D) = α·D^−β + γ, of one final loss per length: the mean over seeds.

    For each β the best α ≥ 0 and γ ≥ `floor` are linear least squares, so only β is searched, within `BETAS`. `floor`
    is the lowest loss that is possible, 0 for a cross-entropy.

    None, because there is no curve to speak of: fewer than 4 different lengths; losses that don't fall with the length.
    Raises ValueError for lengths that aren't positive, losses that aren't finite or lie below `floor`.
    """
    at, table = _checked(lengths, np.asarray(losses, dtype=np.float64)[None], floor)
    if len(np.unique(at)) < MIN_LENGTHS:
        return None
    alpha, beta, gamma = (float(value) for value in _fit(at, table, floor)[0])
    if not alpha > 0:
        return None
    residuals = table[0] - (alpha * at**-beta + gamma)
    return LossCurve(alpha, beta, gamma, math.sqrt(float(np.mean(residuals**2))), int(at.min()), int(at.max()))


def speed_ups(
    lengths: Sequence[int],
    baseline: ArrayLike,
    candidate: ArrayLike,
    *,
    candidate_lengths: Sequence[int] | None = None,
    floor: float = 0.0,
    confidence: float = CONFIDENCE,
) -> list[SpeedUp] | None:
    """Speed-up at each of the candidate's lengths D: the baseline's steps for the candidate's mean final loss, ÷ D.

    `baseline` and `candidate` hold final losses `[seeds, lengths]`, a row being the same seed in both; a seed that is
    not finite everywhere (diverged, missing) is left out whole, and `ratio.n` says how many remain. The candidate's
    lengths are the baseline's unless given.

    The interval holds the ratios s that a t test over seeds doesn't reject: the candidate's loss at D against the curve
    at s·D, the standard error by the jackknife (Tukey 1958; Miller 1974), which leaves a seed out with all its runs of
    both arms, so pairing is kept, and fits the curve again. As Fieller's interval of a ratio it may be open: its upper
    end is infinity where the candidate's loss can't be told from γ. Measured: it covers 95 % at 3 seeds and 94 % at 5,
    percentiles of a bootstrap over the same seeds, widened as Hesterberg 2015 has it, 76 and 91 %. Fewer than 3 seeds,
    or seeds without spread: no interval. It covers what seeds do, not a curve of the wrong shape; see `LossCurve.rmse`.

    None where `fit` gives none for the baseline, or no seed is complete. Raises ValueError as `fit` does.
    """
    places = lengths if candidate_lengths is None else candidate_lengths
    ours, theirs = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if ours.shape != (len(theirs), len(places)) or theirs.shape != (len(ours), len(lengths)):
        raise ValueError(f"losses are [seeds, lengths] of the same seeds; got {theirs.shape} and {ours.shape}")
    whole = np.isfinite(ours).all(1) & np.isfinite(theirs).all(1)
    ours, theirs = ours[whole], theirs[whole]
    n = len(ours)
    if n == 0:
        return None
    curve = fit(lengths, theirs.mean(0), floor=floor)
    if curve is None:
        return None
    without = None
    if n >= MIN_SEEDS:
        # means of all seeds but one
        ours_left, theirs_left = ((table.sum(0) - table) / (n - 1) for table in (ours, theirs))
        without = _fit(np.asarray(lengths, dtype=np.float64), theirs_left, floor), ours_left
    found = []
    for place, steps in enumerate(places):
        loss = float(ours[:, place].mean())
        low = high = None
        needed = curve.steps(loss)
        if without is not None and needed >= 1:  # less than a step is no run, and may be 0 for want of digits
            low, high = _compatible(curve, loss, without[0], without[1][:, place], confidence)
        ratio = Interval(needed / steps, _ratio(low, steps), _ratio(high, steps), n)
        found.append(SpeedUp(int(steps), ratio, needed, not curve.shortest <= needed <= curve.longest))
    return found


def _ratio(baseline_steps: float | None, steps: int) -> float | None:
    return None if baseline_steps is None else baseline_steps / steps


def _compatible(
    curve: LossCurve, loss: float, curves: Array, losses: Array, confidence: float
) -> tuple[float | None, float | None]:
    """Shortest and longest run of the baseline whose loss can't be told from `loss`; `curves`, `losses`: jackknife.

    None where nothing varies. Both infinite where the loss is told from all lengths, below γ.
    """
    at = np.append(np.geomspace(1.0, CALLED_INFINITE * curve.longest, _SCAN), math.inf)
    estimate = curve.steps(loss)
    at = np.unique(np.append(at, estimate))  # it belongs to the interval, however narrow that is
    n = len(losses)
    alpha, beta, gamma = curves.T[:, :, None]
    left_out = alpha * at**-beta + gamma - losses[:, None]
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    if error.max() <= 1e-12 * abs(loss):
        return None, None
    excess = np.abs(curve.loss(at) - loss) - float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    excess[at == estimate] = -math.ulp(1.0)
    inside = np.flatnonzero(excess <= 0)
    first, last, end = int(inside[0]), int(inside[-1]), len(at) - 1
    low = float(at[first]) if first in (0, end) else _crossing(at, excess, first - 1)
    high = math.inf if last >= end - 1 else _crossing(at, excess, last)
    return low, high


def _crossing(at: Array, excess: Array, place: int) -> float:
    """Where `excess` is 0 between `place` and the next, log-linear."""
    share = excess[place] / (excess[place] - excess[place + 1])
    return float(at[place] * (at[place + 1] / at[place]) ** share)


def _checked(lengths: Sequence[int], table: Array, floor: float) -> tuple[Array, Array]:
    at = np.asarray(lengths, dtype=np.float64)
    if at.ndim != 1 or table.shape[1:] != at.shape:
        raise ValueError(f"one loss per length is needed; got {table.shape[-1]} losses of {at.size} lengths")
    if not (at > 0).all():
        raise ValueError("lengths are steps of a run, so they have to be > 0")
    if not np.isfinite(table).all() or (table < floor).any():
        raise ValueError(f"finite losses of at least {floor:g} are needed; leave out what diverged, or lower `floor`")
    return at, table


def _fit(at: Array, table: Array, floor: float) -> Array:
    """(α, β, γ) of every row of `table [rows, lengths]`; α is 0 where losses don't fall."""
    scale = math.exp(float(np.log(at).mean()))  # D in units of the middle length keeps D^−β near 1
    x, rows = at / scale, np.arange(len(table))
    grid = np.geomspace(*BETAS, _GRID)
    best = _profile(x, table, grid[None], floor)[0].argmin(1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, _GRID - 1)]
    for _ in range(_PASSES):
        betas = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, _FINE)
        errors, alphas, gammas = _profile(x, table, betas, floor)
        best = errors.argmin(1)
        low, high = betas[rows, np.maximum(best - 1, 0)], betas[rows, np.minimum(best + 1, _FINE - 1)]
    beta = betas[rows, best]
    return np.stack([alphas[rows, best] * scale**beta, beta, gammas[rows, best]], 1)


def _profile(x: Array, table: Array, betas: Array, floor: float) -> tuple[Array, Array, Array]:
    """Squared error, α and γ, each [rows, grid], for `betas [rows or 1, grid]`.

    For a given β it is linear least squares in α ≥ 0 and γ ≥ floor, in closed form.
    """
    powers = x ** -betas[:, :, None]  # [rows or 1, grid, lengths]
    mean_power, mean_loss = powers.mean(2), table.mean(1)[:, None]
    centred = powers - mean_power[:, :, None]
    alpha = np.maximum(_dot(centred, table) / (centred**2).sum(2), 0.0)
    gamma = mean_loss - alpha * mean_power
    # where γ would fall below the floor it lies on it, and α is the slope through that point
    above = np.maximum(_dot(powers, table - floor) / (powers**2).sum(2), 0.0)
    alpha, gamma = np.where(gamma < floor, above, alpha), np.maximum(gamma, floor)
    errors = np.zeros_like(alpha)
    for place in range(len(x)):  # a few lengths; one array [rows, grid, lengths] would be slower
        errors += (table[:, place, None] - alpha * powers[:, :, place] - gamma) ** 2
    return errors, alpha, gamma


def _dot(powers: Array, table: Array) -> Array:
    """Sums over lengths, [rows, grid]."""
    return np.asarray(table @ powers[0].T if len(powers) == 1 else (powers @ table[:, :, None])[:, :, 0])


def _steps(curves: Array, losses: Array) -> Array:
    """Lengths at which the curves (rows of α, β, γ) end at the losses; infinity at or below γ."""
    alpha, beta, gamma = curves.T
    over = losses - gamma
    steps = np.full(len(losses), np.inf)
    reached = over > 0
    with np.errstate(over="ignore"):  # a loss a hair above γ is as good as never
        steps[reached] = (alpha[reached] / over[reached]) ** (1 / beta[reached])
    return steps
