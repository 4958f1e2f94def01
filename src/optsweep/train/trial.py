"""What goes into one trial and what comes out: numbers only, so that both travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """What a trial is for."""

    SEARCH = "search"
    CONFIRM = "confirm"


class End(StrEnum):
    """How training ended. A crash is an exception, and none of these."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    PRUNED = "pruned"


@dataclass(frozen=True)
class Trial:
    """One training run of an arm."""

    hyper: Mapping[str, float]  # lr, weight_decay and the float hyperparameters of rule and iterate
    seed: int  # of initialisation, data order and whatever the forward pass draws
    prune_above: Mapping[int, float] = field(default_factory=dict)  # step → validation loss above which it is pruned
    test: bool = False  # evaluate the test split at the end
    key: int = 0  # names it to the observer


class Point(NamedTuple):
    """One logged point of training: the loss is the mean over the steps since the point before."""

    step: int  # optimizer steps done
    loss: float | None  # for schedule-free at y, where its gradients are taken; None: the loop doesn't tell it
    lr: float  # the learning rate that was applied
    grad_norm: float  # before clipping, at this step
    update_ratio: float  # ‖θ_new − θ‖ / ‖θ‖ of this step


@dataclass(frozen=True)
class Rung:
    """One evaluation of a trial."""

    step: int
    val_loss: float
    val_score: float
    points: tuple[Point, ...]  # training since the rung before
    ms_per_step: float | None  # of the lanes together, evaluation excluded; None before the first step
    peak_bytes: int
    train_seconds: float  # this trial's share of training time so far, shared among trials, not lanes
    val_aside: float | None = None  # the mean loss, where `val_loss` is a metric that decides in its place


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; `val_loss` is that of the last step, on the weights one would ship."""

    end: End
    step: int
    val_loss: float
    val_score: float
    test_loss: float | None
    test_score: float | None
    train_seconds: float
    state_bytes: int
    reason: str = ""
    test_blocks: tuple[float, ...] = ()  # mean test losses of about equal parts of the split
    artifacts: Mapping[str, str] = field(default_factory=dict)  # text files by name, such as a landscape's path
    test_aside: float | None = None  # as a rung's `val_aside`
