"""What a task says of itself, checked once, before anything is written or trained, and as plain numbers."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optsweep.checks import choice, flag, number, optional, text, whole
from optsweep.errors import UserError
from optsweep.tasks.base import ARCHITECTURES, Facts, Split, Trainable
from optsweep.tracking.names import VAL_LOSS, val_metric

METRIC_CHARACTERS = 200
"""Of a metric's name at most; MLflow allows 250 in a key."""

_USE = {
    Split.TRAIN: "training needs samples",
    Split.VAL: "trials are compared by their validation loss",
    Split.TEST: "the verdict is stated on it; part the data in three",
}


@dataclass(frozen=True)
class Stated:
    """The words and numbers of a task."""

    metric: str
    higher_is_better: bool
    loss_unit: str
    chance_loss: float | None
    target_loss: float | None
    digest: str
    sizes: Mapping[Split, int]  # as far as they are known
    facts: Facts


def stated(task: Trainable) -> Stated:
    """What a task says of itself. Raises UserError that names what is wrong."""
    return Stated(
        metric=_metric("task.metric", task.metric),
        higher_is_better=flag("task.higher_is_better", task.higher_is_better),
        loss_unit=text("task.loss_unit", task.loss_unit),
        chance_loss=optional(number)("task.chance_loss", task.chance_loss),
        target_loss=optional(number)("task.target_loss", task.target_loss),
        digest=_digest("task.digest", task.digest()),
        sizes={split: _size(split, size) for split in Split if (size := task.size(split)) is not None},
        facts=_facts(task),
    )


def _metric(key: str, value: object) -> str:
    """A name that MLflow takes as a part of a key, and that no other curve of a trial has."""
    name = text(key, value)
    key_of_it = val_metric(name)
    if not re.fullmatch(rf"[\w.\- :/]{{1,{METRIC_CHARACTERS}}}", name) or posixpath.normpath(key_of_it) != key_of_it:
        raise UserError(f"{key}: {name!r} is not allowed; give letters, digits, spaces and _ - . : / (top-5 error)")
    if key_of_it == VAL_LOSS:
        raise UserError(f"{key}: 'loss' is the name of the loss; give the metric one of its own")
    return name


def _digest(key: str, value: object) -> str:
    digest = text(key, value)
    if not digest.strip():
        raise UserError(f"{key}: it is empty; give a hash of the data (optsweep.tasks.base.digest_of)")
    return digest


def _size(split: Split, value: object) -> int:
    size = whole(f"task.size({split})", value, low=0)
    if size == 0:
        raise UserError(f"task.size({split}): the {split} split is empty; {_USE[split]}")
    return size


def _facts(task: Trainable) -> Facts:
    try:
        facts: Any = task.facts
    except AttributeError:
        facts = None
    if not isinstance(facts, Facts):
        raise UserError("task.facts: they are missing; give optsweep.tasks.base.Facts(architecture=…, …)")
    whole("task.facts.reference_batch_size", facts.reference_batch_size)
    optional(whole)("task.facts.fan_in", facts.fan_in)
    optional(choice, choices=ARCHITECTURES)("task.facts.like", facts.like)
    return facts
