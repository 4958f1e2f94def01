"""The keys that a sweep's runs carry in MLflow: few short tags, for people and for queries, and the metrics of a trial.

One experiment per sweep. In it one run of kind `sweep`, one parent run of kind `arm` per arm, one child of kind `trial`
per trial. Everything that only machines read is in the sheets of schema.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

PREFIX = "optsweep."

# Tags, six at most on a run that people see: MLflow shows none that begins with its own prefix.
KIND = PREFIX + "kind"  # sweep | arm | trial
SCHEMA = "mlflow." + PREFIX + "schema"  # of sweep and arm: the version of the sheets
ARM = "mlflow." + PREFIX + "arm"  # of arm and trial: the arm's name, unique in its sweep
PHASE = PREFIX + "phase"  # of a trial: search | confirm | superseded; set aside, as an arm may be too
TRIAL = "mlflow." + PREFIX + "trial"  # of a trial: its id in the studies
STATUS = PREFIX + "status"  # of a trial
ERROR = PREFIX + "error"  # why a trial crashed or diverged, one line

LABEL = "arm"  # of a trial: what its arm is called
DEVICE = "device"  # of a trial: the model on which it was trained
VERSIONS = "mlflow." + PREFIX + "versions"  # of a trial: of torch and Python
OUTCOME = "outcome"  # of an arm: what its comparison came to

SEEN_BEFORE = {key: key.removeprefix("mlflow.") for key in (SCHEMA, ARM, TRIAL)}
"""As stores have them that were begun when these were in sight."""


def tag(tags: Mapping[str, str], key: str) -> str | None:
    """A tag of a run, by its key or by that of before."""
    return tags.get(key, tags.get(SEEN_BEFORE.get(key, key)))


PARENT = "mlflow.parentRunId"  # MLflow's own: the arm's run of a trial
NOTE = "mlflow.note.content"
RUN_NAME = "mlflow.runName"
VIEW = "mlflow.sharedViewState."  # of an experiment, with a prepared view's key behind it
COLOUR = "mlflow.runColor"  # in charts

# Metrics of a trial: ten keys at most, two more where a metric decides, because the MLflow UI draws one chart for each.
# step = optimizer steps done.
TRAIN_LOSS = "train/loss"
LR = "train/lr"
GRAD_NORM = "train/grad_norm"
UPDATE_RATIO = "train/update_ratio"
VAL_LOSS = "val/loss"
TEST_BLOCKS = "test/loss_by_block"  # its steps are parts of the test split
TEST_LOSS = "test/loss"
VAL_OBJECTIVE = "val/objective"  # where a metric decides, its value, lower is better
TEST_OBJECTIVE = "test/objective"
TRAIN_SECONDS = "cost/train_seconds"  # pure training time so far, evaluation and tracking excluded
PEAK_BYTES = "cost/peak_bytes"


# Of the runs of a sweep and its arms, for people: what the report states.
DIFFERENCE = "verdict/difference"  # of test losses, to the baseline
MS_PER_STEP = "cost/ms_per_step"
STATE_BYTES = "cost/state_bytes"

ASIDE = (
    *(LR, GRAD_NORM, UPDATE_RATIO, TEST_BLOCKS, TRAIN_SECONDS, PEAK_BYTES, MS_PER_STEP, STATE_BYTES),
    *(DIFFERENCE, f"{DIFFERENCE}_low", f"{DIFFERENCE}_high", "verdict/p", "verdict/steps_ratio", "verdict/time_ratio"),
)
"""The metrics that are no losses."""

LOGARITHMS = {key: f"log10_{key}" for key in ("lr", "weight_decay")}
"""Params of a trial by the key whose logarithm they are: MLflow's charts have no logarithmic axis for params."""


# As they are read, not as they are written: reports call what decides the loss, and the loss, if it doesn't, this.
VAL_ASIDE = "val/aside"
TEST_ASIDE = "test/aside"


def val_metric(metric: str) -> str:
    """Key of the task's metric on the validation split."""
    return f"val/{metric}"


def test_metric(metric: str) -> str:
    """Key of the task's metric on the test split."""
    return f"test/{metric}"


def low(key: str) -> str:
    """Of an arm's run: where the lower end of the mean's 95 % interval is, beside the curve of the mean."""
    return f"{key}_low"


def high(key: str) -> str:
    """The upper end."""
    return f"{key}_high"


def has_ends(key: str) -> bool:
    """Whether a mean over seeds is shown with its interval: what was measured, and not what was set."""
    return key == TRAIN_LOSS or key.startswith(("val/", "test/"))


SUPERSEDED = "superseded"
"""PHASE of a confirm trial whose setting is no longer the chosen one; reports leave it out."""

SET_ASIDE = "set aside"
"""PHASE of a run that no trial of the studies has: whoever looks at results leaves it out."""

NOT_REPORTED = (SUPERSEDED, SET_ASIDE)


class Status(StrEnum):
    """How a trial ended; crashed is none of the others, it is run again."""

    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    CRASHED = "crashed"
