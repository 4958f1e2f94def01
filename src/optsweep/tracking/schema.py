"""What a sweep, an arm and a trial leave in MLflow, as dataclasses that writer and reader share.

A sweep and each of its arms have one sheet, a JSON artifact of their run, which only the planner writes. A trial has no
file: its head is tags and params, its end tags, a param and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsweep.inference.looks import AUTO, LOOKS, Repeats, Seeds
from optsweep.inference.repeats import repeat_of
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.train.trial import Phase

SCHEMA_VERSION = 3
"""Goes up where a sheet of before can't be read any more. A new field with a default is no reason (see codec.py)."""

Setting = bool | int | float | str | None
"""What a key can be set to."""

SWEEP_FILE = "optsweep/sweep.json"
ARM_FILE = "optsweep/arm.json"

# -- a sweep -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmTitle:
    """An arm of the plan, whether it has started or not."""

    name: str
    label: str


@dataclass(frozen=True)
class SearchTerms:
    """`search` of the plan, the same for every arm."""

    trials: int = 0
    reruns: float = 0.0  # share of the trials
    lag: int = 0
    sampler: str = ""
    pruner: str = ""


@dataclass(frozen=True)
class ConfirmTerms:
    """`confirm` of the plan, the same for every arm."""

    seeds: Seeds = 0
    looks: tuple[int, ...] = ()  # of confirm.seeds=auto, now or in an earlier call
    delta: float | None = None


@dataclass(frozen=True)
class Size:
    """How much of every arm was planned."""

    repeats: Repeats
    trials: int
    seeds: Seeds


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is to run."""

    baseline: str = ""  # name of an arm
    seed: int = 0
    objective: str = names.VAL_LOSS
    arms: tuple[ArmTitle, ...] = ()  # in the order of the command line
    search: SearchTerms = SearchTerms()
    confirm: ConfirmTerms = ConfirmTerms()
    repeats: Repeats = 1  # searches of each arm, every one with `search` and `confirm`
    repeat_looks: tuple[int, ...] = ()  # of sweep.repeats=auto, now or in an earlier call
    repeats_before: int = 0  # a fixed number that an earlier call asked for, from which auto goes on
    grown: tuple[Size, ...] = ()  # sizes at which a verdict was there before the plan grew

    def planned(self, phase: Phase) -> int:
        """How many trials each search of an arm is to have in a phase; with confirm.seeds=auto at least."""
        if phase is Phase.SEARCH:
            return self.search.trials
        return self.looks[0] if self.confirm.seeds == AUTO else self.confirm.seeds

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which confirm.seeds=auto has looked or will; none where it was never asked for."""
        return self.confirm.looks or (LOOKS if self.confirm.seeds == AUTO else ())


@dataclass(frozen=True)
class Environment:
    """The machine and the versions; what is empty isn't known."""

    python: str = ""
    platform: str = ""
    processor: str = ""
    cores: int = 0
    memory_bytes: int = 0
    device: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)  # name: version
    git_commit: str | None = None


@dataclass(frozen=True)
class Session:
    """One call that ran trials of the sweep."""

    start: float  # unix seconds
    end: float
    workers: int
    train_seconds: float  # of the trials that it ran
    trials: int


@dataclass(frozen=True)
class SweepSheet:
    """Everything that machines read of a sweep."""

    plan: SweepPlan = SweepPlan()
    environment: Environment = Environment()
    command: str = ""  # the command line that repeats the sweep
    sessions: tuple[Session, ...] = ()
    reported: str = ""  # fingerprint of the plan and the number of results that the last report was written from
    schema_version: int = SCHEMA_VERSION


# -- an arm --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RangeRecord:
    """The suggested range of a searched hyperparameter, before any extension."""

    low: float
    high: float
    log: bool
    source: str


@dataclass(frozen=True)
class Chosen:
    """The setting that the search ended on."""

    params: Mapping[str, float]  # of the keys searched in a range
    mean: float | None  # validation loss over its `n` trials
    n: int
    bracketed: Mapping[str, Mapping[str, bool]]  # key: {"low": …, "high": …}
    searched: Mapping[str, tuple[float, float]]  # key: range with extensions
    slots: tuple[int, ...]
    choices: Mapping[str, Setting] = field(default_factory=dict)  # of the keys searched among choices


@dataclass(frozen=True)
class Timing:
    """Milliseconds per step of the dedicated timing pass: median and quartiles of `n` measurements."""

    ms_per_step: float
    low: float
    high: float
    n: int
    device: str = ""  # the model on which; empty: nobody noted it


@dataclass(frozen=True)
class ArmFacts:
    """What an arm's numbers mean, and what must be equal for them to be compared."""

    num_parameters: int
    num_steps: int
    batch_size: int
    samples_seen: int  # by a trial that runs to its end
    metric: str
    higher_is_better: bool
    loss_unit: str
    chance_loss: float | None
    target_loss: float | None
    warmup_steps: int
    device: str
    precision: str
    lanes: int
    threads: int
    data: str  # the data's digest
    num_test: int | None = None  # samples of the test split
    resplit: bool = False  # further repeats divide training and validation anew
    averaged: bool = False  # what is evaluated is an average of the weights, so a run may stop anywhere
    decides: str = ""  # what settings are chosen by and verdicts are stated on, if not the loss: "1 − auc"
    lanes_found: str = ""  # how `trainer.lanes=auto` came to its number; empty: it was given


@dataclass(frozen=True, eq=False)
class ScheduleTrace:
    """The multipliers of the peak learning rate that a schedule applies, every step or evenly thinned."""

    steps: NDArray[np.int64]  # 0-based
    multipliers: NDArray[np.float64]


@dataclass(frozen=True)
class OptimizerTerms:
    """What an arm's optimizer has from its task, beside the config: with these it is made again without the task."""

    schedule_options: Mapping[str, float] = field(default_factory=dict)  # that the config leaves to suggestions
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of parameters, by pattern
    heads: tuple[str, ...] = ()  # names of the output's modules


@dataclass(frozen=True)
class ArmSheet:
    """Everything that machines read of an arm."""

    name: str
    label: str  # for figures: what tells the arm from the others, "soap + schedule_free"
    choices: Mapping[str, str] = field(default_factory=dict)  # task, optimizer, schedule, … and the sweep's other axes
    fingerprint: str = ""
    space: Mapping[str, RangeRecord] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)  # the hyperparameters that are not searched
    facts: ArmFacts | None = None
    schedule: ScheduleTrace | None = None  # None: it listens to evaluations, so that each trial has its own
    config: str = ""  # composed, as YAML: what runs a trial again
    optimizer: OptimizerTerms = OptimizerTerms()
    warnings: tuple[str, ...] = ()
    chosen: Chosen | None = None  # None until the search ends, and where every trial of it diverged
    chosen_again: tuple[Chosen | None, ...] = ()  # by the further searches of sweep.repeats
    timing: Timing | None = None
    device: str = ""  # the model on which its trials began; a trial's own is a tag of its run
    versions: str = ""  # of torch and Python there
    schema_version: int = SCHEMA_VERSION


# -- a trial -------------------------------------------------------------------------------------------------------

_SEED, _SLOT, _REPEAT = "seed", "slot", "repeat"
_ORIGIN, _LANES, _STATE_BYTES = "origin", "lanes", "state_bytes"
_NO_SETTINGS = (_REPEAT, _ORIGIN, _LANES, _STATE_BYTES, *names.LOGARITHMS.values())
_WORDS: Mapping[str, Setting] = {"True": True, "False": False, "None": None}


@dataclass(frozen=True)
class TrialHead:
    """What is known of a trial when it begins."""

    arm: str
    phase: Phase
    slot: int  # 0-based place in the phase of its search
    seed: int  # index of the seed within its phase: equal indices are the same seed in every arm; tells the repeat
    origin: str  # quasi-random | model | bracket | rerun | chosen | fixed
    hyper: Mapping[str, Setting]  # all hyperparameters and searched keys
    lanes: int = 1  # trials in training when it began, itself included; others may come and go
    id: str = ""  # of the trial in the studies: an attempt at a slot has one, and so has its run
    label: str = ""  # what its arm is called
    colour: str = ""  # that its arm has
    device: str = ""  # its model; of a trial that went on elsewhere, both
    versions: str = ""  # of torch and Python

    @property
    def repeat(self) -> int:
        """Which of the arm's searches it belongs to."""
        return repeat_of(self.seed)

    @property
    def run_name(self) -> str:
        """What tells it from the others comes first: lists cut a name off at its end."""
        repeat = f"repeat {self.repeat}, " if self.repeat else ""
        rate = self.hyper.get("lr")
        tried = f"lr {rate:.3g}" if self.phase is Phase.SEARCH and isinstance(rate, float) else ""
        return " · ".join(filter(None, (f"{repeat}{self.phase.value} {self.slot}", tried, self.label)))

    def tags(self) -> dict[str, str]:
        """The tags of its run."""
        return {
            names.KIND: "trial",
            names.ARM: self.arm,
            names.PHASE: self.phase.value,
            names.TRIAL: self.id,
            names.STATUS: Status.RUNNING.value,
            **{key: text for key, text in self._said.items() if text},
        }

    @property
    def _said(self) -> Mapping[str, str]:
        """Tags that aren't there where there is nothing to say."""
        on = {names.DEVICE: self.device, names.VERSIONS: self.versions}
        return {names.LABEL: self.label, names.COLOUR: self.colour, **on}

    def params(self) -> dict[str, str]:
        """The params of its run."""
        own = {_SEED: self.seed, _SLOT: self.slot, _REPEAT: self.repeat, _ORIGIN: self.origin, _LANES: self.lanes}
        return {key: str(value) for key, value in {**self.hyper, **self._logarithms(), **own}.items()}

    def _logarithms(self) -> dict[str, str]:
        held = {name: self.hyper.get(key) for key, name in names.LOGARITHMS.items()}
        return {
            name: f"{math.log10(value):.4f}" for name, value in held.items() if isinstance(value, float) and value > 0
        }

    @staticmethod
    def of(tags: Mapping[str, str], params: Mapping[str, str]) -> TrialHead:
        """The head that a run's tags and params tell of."""
        return TrialHead(
            arm=names.tag(tags, names.ARM) or "",
            phase=_enum(Phase, tags.get(names.PHASE), Phase.SEARCH),
            slot=_whole(params.get(_SLOT), 0),
            seed=_whole(params.get(_SEED), 0),
            origin=params.get(_ORIGIN, ""),
            hyper={key: _setting(text) for key, text in trial_params(params).items() if key not in (_SEED, _SLOT)},
            lanes=_whole(params.get(_LANES), 1),
            id=names.tag(tags, names.TRIAL) or "",
            label=tags.get(names.LABEL, ""),
            colour=tags.get(names.COLOUR, ""),
            device=tags.get(names.DEVICE, ""),
            versions=tags.get(names.VERSIONS, ""),
        )


@dataclass(frozen=True)
class TrialEnd:
    """What is known of a trial when it has ended."""

    status: Status
    error: str = ""
    train_seconds: float | None = None
    state_bytes: int | None = None  # of optimizer state of one trial

    def tags(self) -> dict[str, str]:
        """The tags that its end adds."""
        return {names.STATUS: self.status.value, **({names.ERROR: self.error} if self.error else {})}

    def params(self) -> dict[str, str]:
        """The params that its end adds."""
        return {} if self.state_bytes is None else {_STATE_BYTES: str(self.state_bytes)}

    @staticmethod
    def of(tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float]) -> TrialEnd:
        """The end that a run tells of; of one that runs yet, what there is."""
        size = number(params.get(_STATE_BYTES))
        return TrialEnd(
            status=_enum(Status, tags.get(names.STATUS), Status.RUNNING),
            error=tags.get(names.ERROR, ""),
            train_seconds=metrics.get(names.TRAIN_SECONDS),
            state_bytes=None if size is None else int(size),
        )


def trial_params(params: Mapping[str, str]) -> dict[str, str]:
    """A trial's params without those that say how it ran: its hyperparameters, seed and slot."""
    return {key: value for key, value in params.items() if key not in _NO_SETTINGS}


def number(text: str | None) -> float | None:
    """A param or tag as a number; None if it is none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _setting(text: str) -> Setting:
    """A param as it was set, as far as its text tells."""
    if text in _WORDS:
        return _WORDS[text]
    found = number(text)
    return text if found is None else found


def _whole(text: str | None, default: int) -> int:
    found = number(text)
    return default if found is None else int(found)


def _enum(kind: Any, value: str | None, default: Any) -> Any:
    return kind(value) if value in set(kind) else default
