"""The door: a composed Hydra config becomes an `Arm`, frozen and validated. Nothing behind it sees a dictionary."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optsweep.config.search_space import RangeConfig, read_space
from optsweep.config.section import Section
from optsweep.errors import UserError
from optsweep.inference.looks import AUTO, Seeds

GROUPS = ("task", "recipe", "optimizer", "schedule", "warmup", "weight_decay", "averaging")
"""Config groups whose choices make an arm."""

DEVICES = "auto, cpu, cuda, cuda:N, mps"
Value = bool | int | float | str | None
Options = Mapping[str, Any]


@dataclass(frozen=True)
class TaskConfig:
    """Which task, with its constructor's options."""

    name: str
    target: str
    options: Options
    batch_size: int | None  # None: the whole training set
    steps: int  # default length of a trial, in optimizer steps


@dataclass(frozen=True)
class OptimizerConfig:
    """Which rule: `options` holds everything but the target and the LR, not yet split into per-lane and static."""

    name: str
    target: str
    lr: float | None  # None: searched, or the suggested default where nothing is searched
    options: Options


@dataclass(frozen=True)
class ScheduleConfig:
    """Which schedule and which warm-up. `warmup_steps` below 1 is a fraction of the run, None is "suggested"."""

    name: str
    target: str | None  # dotted path of a function that is none of optsweep.schedules
    options: Options
    warmup: str
    warmup_steps: float | None


@dataclass(frozen=True)
class DecayConfig:
    """Weight decay: its mode, λ (None: searched or suggested), and what it applies to."""

    mode: str
    value: float | None
    apply_to: str


@dataclass(frozen=True)
class AveragingConfig:
    """Averaging of weights beside the schedule; `target` is None for none."""

    name: str
    target: str | None
    options: Options


@dataclass(frozen=True)
class TrainerConfig:
    """How trials are trained."""

    steps: int
    device: str
    lanes: int
    precision: str
    clip_norm: float | None
    rungs: int
    log_every: int
    accumulate: int
    threads: int
    divergence_factor: float
    eval_batch_size: int
    deterministic: bool


@dataclass(frozen=True)
class SuggestConfig:
    """What the suggestions should assume of the task; None: what the task says."""

    fine_tuning: bool | None
    transfer_learning: bool | None
    unstable: bool | None
    deep: bool | None


@dataclass(frozen=True)
class SearchConfig:
    """How the arm is tuned. `trials` 0: not at all."""

    trials: int
    sampler: str
    pruner: str
    reruns: float  # share of the trials that re-run the top settings on further seeds
    lag: int
    over: tuple[str, ...]
    space: Mapping[str, RangeConfig]


@dataclass(frozen=True)
class Arm:
    """One cell of the grid, with all that its trials share."""

    choices: Mapping[str, str]
    axes: Mapping[str, str]  # other overrides that tell this arm from its siblings
    task: TaskConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    decay: DecayConfig
    averaging: AveragingConfig
    trainer: TrainerConfig
    search: SearchConfig
    suggest: SuggestConfig
    confirm_seeds: Seeds
    confirm_delta: float | None  # a difference of test loss too small to matter; None: equality is never claimed
    sweep: str
    seed: int
    baseline: str | None
    tracking_uri: str
    storage: str
    retries: int
    yaml: str = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Unique within the sweep, and the same whatever other arms there are."""
        return " ".join(f"{key}={value}" for key, value in self.combination.items())

    @property
    def combination(self) -> Mapping[str, str]:
        """All that tells the arm from its siblings: choices, then axes."""
        return {**self.choices, **self.axes}


def read_arm(config: Mapping[str, Any], choices: Mapping[str, str], axes: Mapping[str, str], yaml: str = "") -> Arm:
    """Validate one composed config (plain containers, no `hydra` node)."""
    root = Section(config, "")
    task = _task(root.section("task"))
    trainer = _trainer(root.section("trainer"), task)
    sweep = root.section("sweep")
    confirm = root.section("confirm")
    tracking = root.section("tracking")
    arm = Arm(
        choices={group: choices[group] for group in GROUPS if choices.get(group, "none") != "none"},
        axes=dict(sorted(axes.items())),
        task=task,
        optimizer=_optimizer(root.section("optimizer")),
        schedule=_schedule(root.section("schedule"), root.section("warmup"), trainer.steps),
        decay=_decay(root.section("weight_decay")),
        averaging=_averaging(root.section("averaging")),
        trainer=trainer,
        search=_search(root.section("search"), trainer),
        suggest=_suggest(root.section("suggest")),
        confirm_seeds=_confirm_seeds(confirm),
        confirm_delta=confirm.optional_number("delta", above=0.0),
        sweep=_sweep_name(sweep),
        seed=sweep.integer("seed", low=0),
        baseline=sweep.optional_text("baseline"),
        tracking_uri=tracking.text("uri"),
        storage=tracking.text("storage"),
        retries=sweep.integer("retries", low=0),
        yaml=yaml,
    )
    for section in (sweep, confirm, tracking):
        section.close()
    root.rest()  # users may keep keys of their own at the top level, for interpolation
    _check_combination(arm)
    return arm


def _task(section: Section) -> TaskConfig:
    batch_size = section.raw("batch_size")
    if batch_size == "full":
        size = None
    elif isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1:
        size = batch_size
    else:
        raise section.fail("batch_size", batch_size, "a whole number ≥ 1, or full")
    return TaskConfig(
        name=section.text("name"),
        target=section.text("_target_"),
        batch_size=size,
        steps=section.integer("steps", low=2),
        options=dict(section.rest()),
    )


def _optimizer(section: Section) -> OptimizerConfig:
    return OptimizerConfig(
        name=section.text("name"),
        target=section.text("_target_"),
        lr=section.optional_number("lr", above=0.0),
        options=dict(section.rest()),
    )


def _schedule(section: Section, warmup: Section, num_steps: int) -> ScheduleConfig:
    kind = warmup.text("name")
    length: float | None = 0.0
    if kind == "none":
        warmup.raw("steps")  # without effect, so that warmup=none,linear warmup.steps=100 is a grid
    elif warmup._data.get("steps") == "suggested":
        warmup.raw("steps")
        length = None
    else:
        length = warmup.number("steps", least=0.0)
        if length >= 1 and length != int(length):
            raise warmup.fail("steps", length, "a whole number of steps, or a fraction of the run below 1")
        if length >= num_steps:
            raise warmup.fail(
                "steps", int(length), f"fewer steps than the run has (trainer.steps={num_steps}), or a fraction"
            )
    warmup.close()
    return ScheduleConfig(section.text("name"), section.optional_text("_target_"), section.rest(), kind, length)


def _decay(section: Section) -> DecayConfig:
    value = section.raw("value")
    mode = section.text("mode", ("none", "l2", "decoupled", "independent"))
    if value is not None and value != "suggested":
        bad = isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf")
        if bad:
            raise section.fail("value", value, "a number ≥ 0, or null (searched or suggested)")
    decay = DecayConfig(
        mode=mode,
        value=0.0 if mode == "none" else (float(value) if isinstance(value, (int, float)) else None),
        apply_to=section.text("apply_to", ("matrices", "all")),
    )
    section.close()
    return decay


def _averaging(section: Section) -> AveragingConfig:
    name = section.text("name")
    target = section.text("_target_") if name != "none" else None
    return AveragingConfig(name, target, dict(section.rest()))


def _trainer(section: Section, task: TaskConfig) -> TrainerConfig:
    steps = section.optional_integer("steps", low=2)
    device = section.text("device")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise section.fail("device", device, f"one of {DEVICES}")
    trainer = TrainerConfig(
        steps=task.steps if steps is None else steps,
        device=device,
        lanes=section.integer("lanes", low=1),
        precision=section.text("precision", ("fp32", "bf16")),
        clip_norm=section.optional_number("clip_norm", above=0.0),
        rungs=section.integer("rungs", low=1),
        log_every=section.integer("log_every", low=1),
        accumulate=section.integer("accumulate", low=1),
        threads=section.integer("threads", low=1),
        divergence_factor=section.number("divergence_factor", above=1.0),
        eval_batch_size=section.integer("eval_batch_size", low=1),
        deterministic=section.boolean("deterministic"),
    )
    section.close()
    if task.batch_size is not None and task.batch_size % trainer.accumulate:
        raise UserError(
            f"trainer.accumulate: task.batch_size={task.batch_size} is not divisible by {trainer.accumulate}"
        )
    return trainer


def _search(section: Section, trainer: TrainerConfig) -> SearchConfig:
    over = section.raw("over")
    if not isinstance(over, Sequence) or isinstance(over, str) or not all(isinstance(k, str) for k in over):
        raise section.fail("over", over, "a list of hyperparameter names, such as [lr,weight_decay]")
    spaces = section.section("space")
    space = read_space(spaces)
    lag = section.raw("lag")
    if lag == "auto":
        lag = 2 * trainer.lanes
    if isinstance(lag, bool) or not isinstance(lag, int) or lag < 1:
        raise section.fail("lag", lag, "a whole number ≥ 1, or auto")
    search = SearchConfig(
        trials=section.integer("trials", low=0),
        sampler=section.text("sampler", ("tpe", "gp", "quasi-random")),
        pruner=section.text("pruner", ("none", "median")),
        reruns=section.number("reruns", least=0.0, most=0.5),
        lag=lag,
        over=tuple(dict.fromkeys([*over, *space])),
        space=space,
    )
    section.close()
    return search


def _confirm_seeds(section: Section) -> Seeds:
    seeds = section.raw("seeds")
    if seeds == AUTO:
        return AUTO
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise section.fail("seeds", seeds, "a whole number ≥ 1, or auto")
    return seeds


def _suggest(section: Section) -> SuggestConfig:
    suggest = SuggestConfig(
        fine_tuning=section.optional_boolean("fine_tuning"),
        transfer_learning=section.optional_boolean("transfer_learning"),
        unstable=section.optional_boolean("unstable"),
        deep=section.optional_boolean("deep"),
    )
    section.close()
    return suggest


def _sweep_name(section: Section) -> str:
    name = section.text("name")
    if name.strip(". ") == "" or len(name) > 200 or any(c in name for c in "\n\r\t/\\|"):
        raise section.fail("name", name, "1 to 200 characters on one line, without slashes and bars")
    return name


def _check_combination(arm: Arm) -> None:
    """Refuse what has no meaning (one line, before any arm trains)."""
    optimizer, schedule = arm.choices.get("optimizer", ""), arm.schedule.name
    if schedule == "one_cycle" and arm.schedule.warmup != "none":
        raise UserError(f"warmup={arm.schedule.warmup}: one_cycle has its own warm-up; give warmup=none")
    if schedule == "schedule_free" and arm.averaging.name != "none":
        raise UserError(f"averaging={arm.averaging.name}: schedule_free averages already; give averaging=none")
    if optimizer == "adamw" and arm.decay.mode == "l2":
        raise UserError("weight_decay=l2: AdamW is Adam with decoupled decay; for l2 give optimizer=adam")
    if arm.search.trials and arm.optimizer.lr is not None and "lr" in arm.search.space:
        raise UserError(f"optimizer.lr: {arm.optimizer.lr:g} is fixed, but search.space.lr asks to search it; give one")
    decay = arm.decay.value if arm.decay.mode != "none" else None
    if arm.search.trials and decay is not None and "weight_decay" in arm.search.space:
        raise UserError(
            f"weight_decay.value: {decay:g} is fixed, but search.space.weight_decay asks to search it; give one"
        )


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What changed between two flat mappings, in a line."""
    changed = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    return "; ".join(changed)
