"""Which hyperparameters a search's loss depended on: the share of its variance that each explains alone.

Optuna's functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

MIN_TRIALS = 50
"""Fewer trials, which crowd around the best, say what their search did and not what the loss depends on."""

MAX_TRIALS = 100
"""Its time grows with the square of the trials; of more, as many evenly spread over the search are used."""

_SEED = 20240524  # the same trials give the same shares in every rebuilt report
_TREES = 16  # a tenth of a second for 50 trials; 64 trees moved shares of 50 to 200 by at most 0.02


def importance(params: Mapping[str, Sequence[float]], losses: Sequence[float]) -> dict[str, float]:
    """Share, 0 to 1, of the loss's variance that each hyperparameter explains alone, in the order given.

    `params` holds one value per trial, in the scale in which the range is even: pass the logarithm of what is searched
    on a log scale, for variance is taken over the range of the values. `losses` are the trials' last validation losses;
    a diverged one (infinity or NaN) counts as the worst finite value, as the search counts it. What the shares leave to
    1 is interaction. A hyperparameter that wasn't varied has 0.

    Empty, because nothing can be said: fewer than 50 trials, none finite, or all equal. It describes what the forest
    made of these trials, which crowd around the best: not a test, and of few trials a rough guide. Raises ValueError
    if lengths differ or a value isn't finite.
    """
    for name, values in params.items():
        if len(values) != len(losses):
            raise ValueError(f"{name} has {len(values)} values, and there are {len(losses)} losses")
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{name} has a value that is not finite; pass the logarithm of positive values only")
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not params or len(losses) < MIN_TRIALS or len(set(finite)) < 2:
        return {}
    places = np.linspace(0, len(losses) - 1, min(len(losses), MAX_TRIALS)).round().astype(int)
    columns = {name: [float(values[place]) for place in places] for name, values in params.items()}
    varied = {name: column for name, column in columns.items() if min(column) < max(column)}
    shares = _shares(varied, [losses[place] if math.isfinite(losses[place]) else max(finite) for place in places])
    return {name: shares.get(name, 0.0) for name in params}


def _shares(columns: Mapping[str, Sequence[float]], losses: Sequence[float]) -> Mapping[str, float]:
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator

    if not columns or min(losses) == max(losses):
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    ranges = {name: FloatDistribution(min(column), max(column)) for name, column in columns.items()}
    for place, loss in enumerate(losses):
        params = {name: column[place] for name, column in columns.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=dict(ranges), value=loss))
    try:
        found = FanovaImportanceEvaluator(n_trees=_TREES, seed=_SEED).evaluate(study)
    except RuntimeError:  # losses so close together that no tree splits
        return {}
    return {name: float(np.clip(share, 0, 1)) for name, share in found.items()}
