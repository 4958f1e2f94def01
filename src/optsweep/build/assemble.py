"""From an arm's configuration to the objects that train: task, rule, schedule, search space, fingerprint.

This is the only place where names become code. Everything that can be wrong with an arm is found here, before training.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from optsweep.build.hyperparameters import DECAY_KEY, momentum_keys, space_of
from optsweep.build.suggestions import (
    TaskFacts,
    final_fraction,
    gamma,
    step_size,
    warmup_fraction,
)
from optsweep.build.targets import construct, listed, resolve
from optsweep.config.arm import Arm, TaskConfig, fingerprint_of
from optsweep.errors import UserError, nearest
from optsweep.optim.external import ExternalUpdate
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout
from optsweep.optim.rule import Domain, Rule
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule, schedule_names, schedule_options, warmup_names
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater
from optsweep.search.space import Space
from optsweep.tasks.base import Split, Task
from optsweep.train.process import isolated
from optsweep.train.program import Program


@dataclass(frozen=True)
class Built:
    """An arm, ready to train."""

    program: Program
    space: Space
    fingerprint: str
    content: Mapping[str, Any]  # what the fingerprint is of, flat
    warnings: tuple[str, ...]


def device_of(name: str) -> torch.device:
    """The device; `auto` is CUDA, MPS or CPU, the first there is. Raises UserError for one that isn't there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *(["mps"] if mps else [])]
    if name not in there and not (name == "cuda" and cuda):
        raise UserError(f"trainer.device: {name} is not on this machine; there are {', '.join(there)}")
    return torch.device(name)


def build_task(config: TaskConfig) -> Task:
    """The task with its data, on the CPU."""
    with isolated():
        cls = resolve(config.target, "task._target_")
    if not (inspect.isclass(cls) and issubclass(cls, Task)):
        raise UserError(f"task._target_: {config.target} is no optsweep.tasks.base.Task")
    known = [p for p in inspect.signature(cls).parameters if p != "self"]
    for key in config.options:
        if key not in known:
            raise UserError(f"task.{key}: {config.name} has no such option{nearest(key, known)}; {listed(known)}")
    try:
        with isolated():
            task = cls(**config.options)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(str(error).splitlines()[0]) from None
    if config.batch_size is not None and config.batch_size > task.size(Split.TRAIN):
        raise UserError(
            f"task.batch_size: {config.batch_size} is more than the {task.size(Split.TRAIN)} training samples of "
            f"{config.name}; give a smaller number, or full"
        )
    return task


def build_arm(arm: Arm, task: Task | None = None, device: torch.device | None = None) -> Built:
    """Everything an arm needs; `task` saves building it again. Raises UserError with one line."""
    device = device or device_of(arm.trainer.device)
    task = task or build_task(arm.task)
    task.to(device)
    batch_size = arm.task.batch_size or task.size(Split.TRAIN)
    if batch_size % arm.trainer.accumulate:
        raise UserError(
            f"trainer.accumulate: a batch of {batch_size} samples is not divisible by {arm.trainer.accumulate}"
        )
    facts = task_facts(arm, task)
    warnings: list[str] = []
    schedule = _schedule(arm, facts, warnings)
    builder, floats = _updater(arm)
    program = Program(
        task=task,
        build_update=builder,
        schedule=schedule,
        num_steps=arm.trainer.steps,
        batch_size=batch_size,
        num_rungs=arm.trainer.rungs,
        log_every=arm.trainer.log_every,
        accumulate=arm.trainer.accumulate,
        decay_all=arm.decay.apply_to == "all",
        precision=arm.trainer.precision,  # type: ignore[arg-type]
        vmapped=arm.trainer.lanes > 1,
        divergence_factor=arm.trainer.divergence_factor,
        eval_batch_size=arm.trainer.eval_batch_size,
        deterministic=arm.trainer.deterministic,
        device=device,
    )
    space = space_of(arm, facts, floats, warnings)
    content = _content(arm, task, schedule, space, device)
    return Built(program, space, fingerprint_of(content), content, tuple(warnings))


def algorithm_of(built: Built) -> str:
    """A key that is equal for arms that are the same algorithm under two names.

    Adam with decoupled decay is AdamW; SGD and momentum are one under schedule-free, which switches momentum off.
    """
    update = built.program.build_update(built.program.layout)
    if not isinstance(update, Update):
        return built.fingerprint
    relevant = {"lr", DECAY_KEY, *update.rule.floats, *update.iterate.floats}
    if not update.rule.has_momentum:
        relevant -= momentum_keys(type(update.rule))
    content = {
        key: value
        for key, value in built.content.items()
        if not key.startswith("optimizer.") and not (key.startswith("fixed.") and key[6:] not in relevant)
    }
    parts = {"": update.rule, **{f"{label}.": rule for label, rule in getattr(update.rule, "rules", {}).items()}}
    static = {
        prefix + key: value
        for prefix, rule in parts.items()
        for key, value in vars(rule).items()
        if isinstance(value, (bool, int, str))
    }
    ranges = {key: (r.low, r.high) for key, r in built.space.ranges.items()}
    return fingerprint_of({**content, "rule": type(update.rule).__qualname__, **static, **ranges})


def check_arm(built: Built) -> list[str]:
    """Build the model's layout and one update, so that what can't train is refused before anything does.

    Returns what a user should know: a partition, a matrix that is not rotated.
    """
    try:
        update = built.program.build_update(built.program.layout)
    except (ValueError, TypeError) as error:
        raise UserError(str(error).splitlines()[0]) from None
    plateau = _plateau_notes(built, update.period) if built.program.schedule.name == "plateau" else []
    return [*built.program.notes, *update.notes, *plateau]


def task_facts(arm: Arm, task: Task) -> TaskFacts:
    """What the suggestions ask about an arm's task; what `suggest` says of it comes first."""
    assumed = {key: value for key, value in asdict(arm.suggest).items() if value is not None}
    samples = task.size(Split.TRAIN)
    batch_size = arm.task.batch_size or samples
    return TaskFacts(
        num_samples=samples,
        batch_size=batch_size,
        num_steps=arm.trainer.steps,
        architecture=task.facts.architecture,
        data_type=task.facts.data_type,
        reference_batch_size=task.facts.reference_batch_size,
        fine_tuning=assumed.get("fine_tuning", task.facts.fine_tuning),
        deep=assumed.get("deep", task.facts.deep),
        unstable=assumed.get("unstable", task.facts.unstable),
        transfer_learning=assumed.get("transfer_learning", task.facts.transfer_learning),
        fan_in=task.facts.fan_in,
    )


# -- schedule ------------------------------------------------------------------------------------------------------


def _schedule(arm: Arm, facts: TaskFacts, warnings: list[str]) -> Schedule:
    config = arm.schedule
    name = config.target or config.name
    if config.target is None and name not in schedule_names():
        raise UserError(f"schedule.name: {name!r} doesn't exist; there are {', '.join(schedule_names())}")
    if config.warmup not in warmup_names():
        raise UserError(f"warmup.name: {config.warmup!r} doesn't exist; there are {', '.join(warmup_names())}")
    length = config.warmup_steps
    if length is None:
        length = warmup_fraction(facts, config.name).value
    steps = round(length * arm.trainer.steps) if length < 1 else int(length)
    if length > 0:
        steps = max(1, steps)
    options = {key: value for key, value in config.options.items() if key not in ("averaging_beta", "decay_at")}
    options = _resolved(options, config.name, facts, warnings)
    try:
        schedule = Schedule(name, options, config.warmup, steps)
        warnings += schedule.notes(arm.trainer.steps)
    except (ValueError, TypeError) as error:
        raise UserError(str(error).splitlines()[0]) from None
    return schedule


def _plateau_notes(built: Built, period: int) -> list[str]:
    """A line if there are too few evaluations for a reduction before the end. Raises UserError if there are none."""
    schedule = built.program.schedule
    patience = (schedule_options(schedule.name) | dict(schedule.options))["patience"]
    wanted = patience + 3  # a best one, more than patience bad ones, and the last, which is too late
    rungs = len(built.program.rung_steps(period))  # the rule may need longer ones than trainer.rungs asks for
    if rungs == 1:
        raise UserError(
            f"trainer.rungs: with 1 there is no evaluation before the end, and schedule=plateau goes by them; "
            f"give {wanted} or more, or a longer run"
        )
    if rungs >= wanted:
        return []
    return [f"schedule=plateau never reduces the LR with {rungs} evaluations; give trainer.rungs={wanted} or more"]


def _resolved(options: Mapping[str, Any], schedule: str, facts: TaskFacts, warnings: list[str]) -> dict[str, Any]:
    """Options of a schedule, `suggested` replaced by the suggested value."""
    resolved = dict(options)
    for key in (key for key, value in options.items() if value == "suggested"):
        offer = {"step_size": step_size(facts), "gamma": gamma(), "final": final_fraction(schedule)}.get(key)
        if offer is None:
            raise UserError(f"schedule.{key}: there is no suggested value for it under {schedule}; give a value")
        resolved[key] = offer.value
        if offer.note:
            warnings.append(f"schedule.{key}=suggested is {offer.value:g}: {offer.note}")
    return resolved


# -- rule ----------------------------------------------------------------------------------------------------------


def _updater(arm: Arm) -> tuple[Any, Mapping[str, Domain]]:
    """A function from a layout to the update, and the update's float hyperparameters."""
    cls = resolve(arm.optimizer.target, "optimizer._target_")
    decay = Decay(arm.decay.mode)
    clip = arm.trainer.clip_norm
    if not (inspect.isclass(cls) and issubclass(cls, Rule)):
        averaged = "schedule=schedule_free" if arm.schedule.name == "schedule_free" else None
        averaged = averaged or (f"averaging={arm.averaging.name}" if arm.averaging.target else None)
        if averaged:
            raise UserError(
                f"{averaged}: an external optimizer keeps momentum of its own and can't be averaged this way; choose "
                f"one of optsweep's rules, or go without"
            )
        kwargs = dict(arm.optimizer.options)

        def external(layout: Layout) -> Updater:
            return ExternalUpdate(cls, kwargs, layout, decay=decay, clip_norm=clip)

        try:
            external(Layout.build({}, {}))
        except (ValueError, TypeError) as error:
            raise UserError(str(error).splitlines()[0]) from None
        return external, {}
    static = {key: value for key, value in arm.optimizer.options.items() if key not in cls.floats}
    rule = construct(cls, static, "optimizer")
    iterate = _iterate(arm)
    floats = {**rule.floats, **iterate.floats}

    def build(layout: Layout) -> Updater:
        return Update(rule, layout, decay=decay, clip_norm=clip, iterate=iterate)

    return build, floats


def _iterate(arm: Arm) -> Iterate:
    if arm.schedule.name == "schedule_free":
        at = arm.schedule.options.get("decay_at", "y")
        if at not in ("y", "z"):
            raise UserError(f"schedule.decay_at: {at!r} is not allowed; give y or z")
        return ScheduleFree(at)
    if arm.averaging.target is None:
        return Last()
    cls = resolve(arm.averaging.target, "averaging._target_")
    if not (inspect.isclass(cls) and issubclass(cls, Iterate)):
        raise UserError(f"averaging._target_: {arm.averaging.target} is no optsweep.optim.iterate.Iterate")
    static = {key: value for key, value in arm.averaging.options.items() if key not in cls.floats}
    iterate: Iterate = construct(cls, static, "averaging")
    return iterate


# -- fingerprint ---------------------------------------------------------------------------------------------------


def _content(arm: Arm, task: Task, schedule: Schedule, space: Space, device: torch.device) -> dict[str, Any]:
    """Everything that decides a trial's numbers beside its searched hyperparameters and its seed."""
    trainer = asdict(arm.trainer)
    for key in ("device", "log_every", "lanes"):
        trainer.pop(key)
    parts: dict[str, Any] = {
        "task": {
            "target": arm.task.target,
            "batch_size": arm.task.batch_size,
            "data": task.digest(),
            **{key: value for key, value in arm.task.options.items() if key != "target_loss"},
        },
        "optimizer": {"target": arm.optimizer.target, **arm.optimizer.options},
        "schedule": {"name": schedule.name, **arm.schedule.options, **schedule.options},
        "warmup": {"name": schedule.warmup, "steps": schedule.warmup_steps},
        "weight_decay": {"mode": arm.decay.mode, "apply_to": arm.decay.apply_to},
        "averaging": {"name": arm.averaging.name, **arm.averaging.options},
        "fixed": space.fixed,
        "trainer": {**trainer, "device": device.type, "lanes": "several" if arm.trainer.lanes > 1 else "one"},
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
        "sweep": {"seed": arm.seed},
    }
    return {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
