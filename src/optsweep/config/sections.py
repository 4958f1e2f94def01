"""The sections of the config, with the defaults of conf/*.yaml. What each key does is said there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from optsweep.checks import checked, choice, either, flag, length, number, optional, plain, refuse, text, whole
from optsweep.config.fields import Key, Keyed, Options, Rest, missing
from optsweep.config.search_space import SpaceConfig, read_space
from optsweep.config.section import Section
from optsweep.errors import UserError

FROM_TASK: Any = None
"""As `trainer.steps`: the task's own number, which the arm puts in its place."""

AUTO_LAG: Any = "auto"
"""As `search.lag`: a number that the arm puts in its place, the same whatever number of lanes is found."""

AUTO_LANES: Any = "auto"
"""As `trainer.lanes`: as many as are found to be fastest, which is decided once for a sweep, by trying."""

AUTO_LOG: Any = "auto"
"""As `trainer.log_every`: what makes about 50 points of a curve, which the arm's program has in its place."""

AUTO_TRIALS: Any = "auto"
"""As `search.trials`: one of the two numbers below, which the arm puts in its place."""

ONE: Any = None
"""As `trainer.ranks`: one, which the section puts in its place. Configs that were kept before don't have the key."""

MOST_OF_A_NAME = 100
"""Characters of the name of a task, a rule, a schedule."""

MOST_WORKERS = 1024
NUM_WORKERS = optional(whole, low=0, most=MOST_WORKERS)
"""The check of `hydra.launcher.workers`; 0: in this process, null: one per `trainer.threads` cores, or per GPU."""

MOST_LANES = 10**4

MOST_STEPS, MOST_TRIALS = 10**7, 10**5
"""Of a trial, and of an arm's phase: every step and every trial is planned before it is run."""

LEAST_LAG, TRIALS_A_LAG = 2, 16
"""Of a search whose lag is auto: two, or one for each so many trials."""

TRIALS_A_LANE, FEW_LANES = 4, 24
"""Of a long search: a lane for each so many trials, less so many; more than the above from 129 trials on."""
CURVE_POINTS = 50
"""Of training in a trial, about: one more at each rung between two of them."""

ONE_SEARCH, TRIALS = 32, 16
"""Trials of a search of several keys that a verdict rests on alone, and of any other."""


def _batch_size(key: str, value: object) -> int | None:
    return None if value is None or value == "full" else whole(key, value, also=", or full")


def _warmup_steps(key: str, value: object) -> float | None:
    if value is None or value == "suggested":
        return None
    return 0.0 if plain(value) == 0 else length(key, value, also=", 0, or suggested")


def _decay(key: str, value: object) -> float | None:
    if value is None or value == "suggested":
        return None
    return number(key, value, least=0.0, also=", or null (searched or suggested)")


def _seconds(key: str, value: object) -> float:
    return 0.0 if value is None else number(key, value, least=0.0, also=", or null (never)")


def _ranks(key: str, value: object) -> int:
    return 1 if value is None else whole(key, value, most=MOST_WORKERS)


def _device(key: str, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise refuse(key, value, "one of auto, cpu, cuda, cuda:N, mps")
    return value


def _name(key: str, value: object) -> str:
    """What something is called, on pages and in stores."""
    name = text(key, value)
    if not name.strip() or not name.isprintable() or len(name) > MOST_OF_A_NAME:
        raise refuse(key, value, f"1 to {MOST_OF_A_NAME} printable characters")
    return name


def _names(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise refuse(key, value, "a list of hyperparameter names, such as [lr,weight_decay]")
    return tuple(value)


def _space(key: str, value: object) -> SpaceConfig:
    """Entries as the config has them are read, those made in Python are checked as if they had been."""
    if not isinstance(value, Mapping):
        raise refuse(key, value, "ranges by hyperparameter")
    return read_space(Section(value, key))


@dataclass(frozen=True)
class TaskConfig(Keyed):
    """Which task, with its constructor's options."""

    name: Annotated[str, Key("task.name", _name)]
    target: Annotated[str, Key("task._target_", text)]
    batch_size: Annotated[int | None, Key("task.batch_size", _batch_size)]  # None: the whole training set
    steps: Annotated[
        int, Key("task.steps", checked(whole, low=2, most=MOST_STEPS))
    ]  # default length of a trial, in optimizer steps
    resplit: Annotated[bool | None, Key("task.resplit", optional(flag))] = None  # by further repeats; None: if it can
    options: Annotated[Options, Rest("task")] = field(default_factory=dict)
    pickled: bytes = field(default=b"", repr=False, compare=False)  # the task itself, where Python code gave it


@dataclass(frozen=True)
class OptimizerConfig(Keyed):
    """Which rule: `options` holds everything but the target and the LR, not yet split into per-lane and static."""

    name: Annotated[str, Key("optimizer.name", _name)]
    target: Annotated[str, Key("optimizer._target_", text)]
    lr: Annotated[float | None, Key("optimizer.lr", optional(number, above=0.0))] = None  # None: searched or suggested
    options: Annotated[Options, Rest("optimizer")] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleConfig(Keyed):
    """Which schedule and which warm-up. `warmup_steps` has a fraction of the run as a float, None is "suggested"."""

    name: Annotated[str, Key("schedule.name", _name)] = "cosine"
    target: Annotated[str | None, Key("schedule._target_", optional(text))] = None  # a function of the user's
    options: Annotated[Options, Rest("schedule")] = field(default_factory=dict)
    warmup: Annotated[str, Key("warmup.name", _name)] = "linear"
    warmup_steps: Annotated[float | None, Key("warmup.steps", _warmup_steps)] = 0.05

    def __post_init__(self) -> None:
        if self.warmup == "none":  # without effect, so that warmup=none,linear warmup.steps=100 is a grid
            self.fill(warmup_steps=0.0)
        super().__post_init__()


@dataclass(frozen=True)
class DecayConfig(Keyed):
    """Weight decay: its mode, λ (None: searched or suggested), and what it applies to."""

    mode: Annotated[
        str, Key("weight_decay.mode", checked(choice, choices=("none", "l2", "decoupled", "independent")))
    ] = "none"
    value: Annotated[float | None, Key("weight_decay.value", _decay)] = None
    apply_to: Annotated[str, Key("weight_decay.apply_to", checked(choice, choices=("matrices", "all")))] = "matrices"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "none":
            self.fill(value=0.0)


@dataclass(frozen=True)
class AveragingConfig(Keyed):
    """Averaging of weights beside the schedule; `target` is None for none."""

    name: Annotated[str, Key("averaging.name", _name)] = "none"
    target: Annotated[str | None, Key("averaging._target_", optional(text))] = None
    options: Annotated[Options, Rest("averaging")] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "none":
            self.fill(target=None)
            if self.options:
                raise UserError(f"averaging.{next(iter(self.options))}: averaging=none has no options")
        elif self.target is None:
            raise missing("averaging._target_")
        super().__post_init__()


@dataclass(frozen=True)
class TrainerConfig(Keyed):
    """How trials are trained."""

    steps: Annotated[int, Key("trainer.steps", optional(whole, low=2, most=MOST_STEPS))] = FROM_TASK
    device: Annotated[str, Key("trainer.device", _device)] = "auto"
    lanes: Annotated[int, Key("trainer.lanes", either("auto", whole, most=MOST_LANES))] = AUTO_LANES
    precision: Annotated[str, Key("trainer.precision", checked(choice, choices=("fp32", "bf16")))] = "fp32"
    clip_norm: Annotated[float | None, Key("trainer.clip_norm", optional(number, above=0.0))] = None
    rungs: Annotated[int, Key("trainer.rungs", checked(whole, most=10**5))] = 12
    log_every: Annotated[int, Key("trainer.log_every", either("auto", whole, most=MOST_STEPS))] = AUTO_LOG
    accumulate: Annotated[int, Key("trainer.accumulate", checked(whole, most=10**6))] = 1
    ranks: Annotated[int, Key("trainer.ranks", _ranks)] = ONE
    threads: Annotated[int, Key("trainer.threads", checked(whole, most=1024))] = 1
    divergence_factor: Annotated[float, Key("trainer.divergence_factor", checked(number, above=1.0))] = 2.0
    eval_batch_size: Annotated[int, Key("trainer.eval_batch_size", checked(whole, most=10**6))] = 64
    deterministic: Annotated[bool, Key("trainer.deterministic", flag)] = False
    compile: Annotated[bool | str, Key("trainer.compile", either("auto", flag))] = "auto"  # on a GPU
    timeout: Annotated[float | None, Key("trainer.timeout", optional(number, above=0.0))] = None  # seconds
    checkpoint_seconds: Annotated[float, Key("trainer.checkpoint_seconds", _seconds)] = 60.0  # 0: never

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranks > 1:
            if self.given_lanes not in (None, 1):
                raise UserError(
                    f"trainer.lanes: {self.lanes} trials at once in one process, and trainer.ranks={self.ranks} trains "
                    f"one in several; give trainer.lanes=1"
                )
            self.fill(lanes=1)

    @property
    def given_lanes(self) -> int | None:
        """The number of lanes; None: it is yet to be found."""
        return None if self.lanes == AUTO_LANES else self.lanes

    @property
    def in_lanes(self) -> bool:
        """Whether trials are to train side by side."""
        return (self.given_lanes or 1) > 1

    def check_batch(self, count: int, what: str) -> None:
        """Raise UserError for a batch that can't be divided into equal parts."""
        if count % self.accumulate:
            raise UserError(f"trainer.accumulate: {what} is not divisible by {self.accumulate}")
        if count // self.accumulate % self.ranks:
            part = f" / trainer.accumulate={self.accumulate}" if self.accumulate > 1 else ""
            raise UserError(f"trainer.ranks: {what}{part} is not divisible by {self.ranks}")

    @property
    def steps_per_point(self) -> int:
        """Steps from one logged point to the next."""
        return steps_per_point(self.steps) if self.log_every == AUTO_LOG else self.log_every


def steps_per_point(num_steps: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … with which a trial has no more than `CURVE_POINTS` points."""
    every = 1
    while num_steps > every * CURVE_POINTS:
        every = every * 5 // 2 if str(every).startswith("2") else 2 * every
    return every


@dataclass(frozen=True)
class SuggestConfig(Keyed):
    """What the suggestions should assume of the task; None: what the task says."""

    fine_tuning: Annotated[bool | None, Key("suggest.fine_tuning", optional(flag))] = None
    transfer_learning: Annotated[bool | None, Key("suggest.transfer_learning", optional(flag))] = None
    unstable: Annotated[bool | None, Key("suggest.unstable", optional(flag))] = None
    deep: Annotated[bool | None, Key("suggest.deep", optional(flag))] = None


@dataclass(frozen=True)
class SearchConfig(Keyed):
    """How the arm is tuned. `trials` 0: not at all."""

    trials: Annotated[int, Key("search.trials", either("auto", whole, low=0, most=MOST_TRIALS))] = AUTO_TRIALS
    sampler: Annotated[str, Key("search.sampler", checked(choice, choices=("tpe", "gp", "quasi-random")))] = "gp"
    pruner: Annotated[str, Key("search.pruner", checked(choice, choices=("none", "median")))] = "none"
    reruns: Annotated[float, Key("search.reruns", checked(number, least=0.0, most=0.5))] = 0.25  # share of the trials
    lag: Annotated[int, Key("search.lag", either("auto", whole, most=MOST_TRIALS))] = AUTO_LAG
    over: Annotated[tuple[str, ...], Key("search.over", _names)] = ("lr",)
    space: Annotated[SpaceConfig, Key("search.space", _space)] = field(default_factory=dict)
    lag_found: bool = field(default=False, repr=False, compare=False)  # whether the lag was auto

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fill(over=tuple(dict.fromkeys([*self.over, *self.space])))

    def resolved(self, *, lanes: int | None, one_search: bool) -> SearchConfig:
        """With numbers for what is auto; `lanes`, if that isn't; `one_search`: no repeat stands beside it in a verdict.

        A lag that followed what auto finds for the lanes would make a search's trials depend on the machine.
        """
        trials = self.trials
        if trials == AUTO_TRIALS:
            trials = ONE_SEARCH if one_search and len(self.over) > 1 else TRIALS
        lag = self.lag
        if lag == AUTO_LAG:
            lag = max(LEAST_LAG, trials // TRIALS_A_LAG, trials // TRIALS_A_LANE - FEW_LANES, 2 * (lanes or 1))
        return replace(self, trials=trials, lag=lag, lag_found=self.lag_found or self.lag == AUTO_LAG)
