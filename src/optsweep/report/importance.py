"""Which hyperparameters a search's loss depended on: the share of its variance that each explains alone.

Functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014). The shares are those of Optuna's evaluator,
which takes ten seconds per arm of 400 trials, because it walks down every tree anew for every cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

Array = NDArray[np.float64]

MIN_TRIALS = 8
"""A forest of fewer trials says nothing."""

_SEED = 20240524  # the same trials give the same shares in every rebuilt report
_TREES = 64


def importance(params: Mapping[str, Sequence[float]], losses: Sequence[float]) -> dict[str, float]:
    """Share, 0 to 1, of the loss's variance that each hyperparameter explains alone, in the order given.

    `params` holds one value per trial, in the scale in which the range is even: pass the logarithm of what is searched
    on a log scale, for variance is taken over the range of the values. `losses` are the trials' last validation losses;
    a diverged one (infinity or NaN) counts as the worst finite value, as the search counts it. What the shares leave to
    1 is interaction. A hyperparameter that wasn't varied has 0.

    Empty, because nothing can be said: fewer than 8 trials, none finite, or all equal. It describes what the forest
    made of these trials, which crowd around the best: not a test, and of few trials a rough guide. Raises ValueError
    if lengths differ or a value isn't finite.
    """
    for name, values in params.items():
        if len(values) != len(losses):
            raise ValueError(f"{name} has {len(values)} values, and there are {len(losses)} losses")
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{name} has a value that is not finite; pass the logarithm of positive values only")
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not params or len(losses) < MIN_TRIALS or not finite or (len(set(finite)) == 1):
        return {}
    worst = max(finite)
    varied = sorted(name for name, column in params.items() if min(column) < max(column))  # as Optuna sorts them
    columns = np.array([[float(value) for value in params[name]] for name in varied]).reshape(len(varied), len(losses))
    finite_losses = np.array([loss if math.isfinite(loss) else worst for loss in losses])
    shares = dict(zip(varied, _shares(columns.T, finite_losses), strict=True))
    return {name: shares.get(name, 0.0) for name in params}


def _shares(points: Array, losses: Array) -> list[float]:
    """Mean over trees of each column's share of a tree's variance over the box that the points span."""
    if points.shape[1] == 0:
        return []
    forest = RandomForestRegressor(n_estimators=_TREES, random_state=_SEED).fit(points, losses)
    ends = points.min(0), points.max(0)
    found = [shares for tree in forest.estimators_ if (shares := _shares_of_tree(tree.tree_, *ends)) is not None]
    return [float(np.clip(share, 0, 1)) for share in np.mean(found, axis=0)] if found else [0.0] * points.shape[1]


def _shares_of_tree(tree: Any, low: Array, high: Array) -> Array | None:
    """Variance of each column's marginal over the tree's variance; None of a tree that is constant.

    Leaves are boxes, so a marginal is a step function: between two cuts it is the mean of the leaves that lie there,
    weighted by their extent in all other columns.
    """
    lows, highs = (np.tile(end, (tree.node_count, 1)) for end in (low, high))
    for node in np.flatnonzero(tree.feature >= 0):  # parents come before their children
        column, left, right = tree.feature[node], tree.children_left[node], tree.children_right[node]
        for child in (left, right):
            lows[child], highs[child] = lows[node], highs[node]
        highs[left, column] = lows[right, column] = tree.threshold[node]
    leaf = tree.feature < 0
    values, lows, widths = tree.value[leaf].ravel(), lows[leaf], (highs - lows)[leaf]
    total = _variance(values, widths.prod(1))
    if total <= 0:
        return None
    shares = []
    for column in range(len(low)):
        cuts = np.unique([low[column], *tree.threshold[tree.feature == column], high[column]])
        middles = (cuts[:-1] + cuts[1:]) / 2
        there = (lows[:, column] <= middles[:, None]) & (middles[:, None] <= lows[:, column] + widths[:, column])
        extents = np.delete(widths, column, axis=1).prod(1)
        marginal = (there @ (values * extents)) / (there @ extents)
        shares.append(_variance(marginal, np.diff(cuts)) / total)
    return np.array(shares)


def _variance(values: Array, weights: Array) -> float:
    mean = np.average(values, weights=weights)
    return float(np.average((values - mean) ** 2, weights=weights))
