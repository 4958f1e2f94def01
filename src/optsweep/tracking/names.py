"""The names under which a sweep lies in MLflow: the contract between what trains and what reports.

One experiment per sweep. In it one run of kind `sweep`, one parent run of kind `arm` per arm, one child of kind `trial`
per trial. Everything the report states is found here.
"""

from __future__ import annotations

from enum import StrEnum

PREFIX = "optsweep."

# Tags of every run of optsweep.
KIND = PREFIX + "kind"  # sweep | arm | trial
ARM = PREFIX + "arm"  # the arm's name, unique in its sweep

# Tags of the sweep run; it also carries the report as artifacts under `report/`.
PLAN = PREFIX + "plan"  # JSON: {"baseline": name, "seed": int, "objective": "val/loss",
#                                "search": {trials, reruns, lag, sampler, pruner}, "confirm": {"seeds": int | "auto",
#                                "looks": [int], of confirm.seeds=auto now or earlier, "delta": float | null}}
ENVIRONMENT = PREFIX + "environment"  # JSON: {"python", "platform", "processor", "cores", "memory_bytes", "device",
#                                              "packages": {name: version}, "git_commit": str | null}
COMMAND = PREFIX + "command"  # the command line that repeats the sweep
REPORTED = (
    PREFIX + "reported"
)  # fingerprint of the plan and the number of results that the last report was written from
SESSIONS = PREFIX + "sessions"  # JSON list: {"start", "end" (unix seconds), "workers", "train_seconds", "trials"}

# Tags of an arm run.
LABEL = PREFIX + "label"  # short name for figures: what tells the arm from the others, "soap + schedule_free"
CHOICES = PREFIX + "choices"  # JSON: {"task", "optimizer", "schedule", "warmup", "weight_decay", other axes: value}
FINGERPRINT = PREFIX + "fingerprint"
SPACE = PREFIX + "space"  # JSON: {key: {"low", "high", "log", "source"}} of every searched key, before any extension
FIXED = PREFIX + "fixed"  # JSON: {key: value} of the hyperparameters that were not searched
CHOSEN = PREFIX + "chosen"  # JSON, absent until the search ends: {"params": {key: value}, "mean": float, "n": int,
#   "bracketed": {"lr": {"low": bool, "high": bool}}, "searched": {key: [low, high]} with extensions, "slots": [int],
#   "choices": {key: value} of the keys that are searched among choices}
TIMING = PREFIX + "timing"  # JSON, of the timing pass: {"ms_per_step": median, "low", "high" (quartiles), "n": int}
FACTS = PREFIX + "facts"  # JSON: {"num_parameters", "num_steps", "batch_size", "metric", "loss_unit", ...}
WARNINGS = PREFIX + "warnings"  # JSON list of sentences

# Tags of a trial run; its seed and hyperparameters are params.
PHASE = PREFIX + "phase"
SLOT = PREFIX + "slot"  # 0-based place in the arm's phase
SEED = PREFIX + "seed"  # index of the seed within its phase: equal indices are the same seed in every arm
ORIGIN = PREFIX + "origin"  # quasi-random | model | bracket | rerun | chosen | fixed
STATUS = PREFIX + "status"
ERROR = PREFIX + "error"  # why it crashed or diverged, one line
TRAIN_SECONDS = PREFIX + "train_seconds"  # pure training time, evaluation and tracking excluded
STATE_BYTES = PREFIX + "state_bytes"  # bytes of optimizer state of one trial
LANES = PREFIX + "lanes"  # how many trials trained at once beside and with this one

# Metrics of a trial: ten keys at most, because the MLflow UI draws one chart for each. step = optimizer steps done.
TRAIN_LOSS = "train/loss"
LR = "train/lr"
GRAD_NORM = "train/grad_norm"
UPDATE_RATIO = "train/update_ratio"
VAL_LOSS = "val/loss"
TEST_LOSS = "test/loss"
MS_PER_STEP = "cost/ms_per_step"
PEAK_BYTES = "cost/peak_bytes"


def val_metric(metric: str) -> str:
    """Key of the task's metric on the validation split."""
    return f"val/{metric}"


def test_metric(metric: str) -> str:
    """Key of the task's metric on the test split."""
    return f"test/{metric}"


SUPERSEDED = "superseded"
"""PHASE of a confirm trial whose setting is no longer the chosen one; reports leave it out."""


class Status(StrEnum):
    """How a trial ended; crashed is none of the others, it is run again."""

    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    CRASHED = "crashed"
