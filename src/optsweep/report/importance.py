"""Which hyperparameters a search's loss depended on: the share of its variance that each explains alone.

Functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014), as Optuna has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

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
    columns = {name: [float(value) for value in values] for name, values in params.items()}
    ranges = {name: FloatDistribution(min(values), max(values)) for name, values in columns.items()}
    study = _study(columns, ranges, [loss if math.isfinite(loss) else worst for loss in losses])
    shares = FanovaImportanceEvaluator(n_trees=_TREES, seed=_SEED).evaluate(study, params=list(params))
    return {name: min(max(float(shares[name]), 0.0), 1.0) for name in params}


def _study(
    columns: Mapping[str, Sequence[float]], ranges: Mapping[str, FloatDistribution], losses: Sequence[float]
) -> optuna.Study:
    """The trials as a study in memory, which is what Optuna's evaluators read."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: column[i] for name, column in columns.items()}, distributions=dict(ranges), value=loss
            )
            for i, loss in enumerate(losses)
        ]
    )
    return study
