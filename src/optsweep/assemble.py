"""From an arm's configuration to the objects that train: task, rule, schedule, search space, fingerprint.

This is the only place where names become code. Everything that can be wrong with an arm is found here, before training.
"""

from __future__ import annotations

import importlib
import inspect
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from optsweep.config import Arm, RangeConfig, TaskConfig, fingerprint_of
from optsweep.errors import UserError, nearest
from optsweep.optim.external import ExternalUpdate
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.rule import Domain, Rule
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.update import Decay, Update
from optsweep.schedules import Schedule, schedule_names, schedule_options, warmup_names
from optsweep.search.space import Range, Space
from optsweep.suggest import (
    Suggestion,
    TaskFacts,
    final_fraction,
    gamma,
    lr_range,
    step_size,
    warmup_fraction,
    weight_decay,
)
from optsweep.tasks.base import Split, Task
from optsweep.train.layout import Layout
from optsweep.train.program import Program, Updater

DECAY_KEY = "weight_decay"
MOMENTUM_KEYS = ("momentum", "beta1")


@dataclass(frozen=True)
class Built:
    """An arm, ready to train."""

    program: Program
    space: Space
    fingerprint: str
    content: Mapping[str, Any]  # what the fingerprint is of, flat
    warnings: tuple[str, ...]


def resolve(target: str, key: str) -> Any:
    """The object that a dotted path names. Raises UserError."""
    module_name, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}: {target!r} can't be imported ({error})") from None


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
    cls = resolve(config.target, "task._target_")
    if not (inspect.isclass(cls) and issubclass(cls, Task)):
        raise UserError(f"task._target_: {config.target} is no optsweep.tasks.base.Task")
    known = [p for p in inspect.signature(cls).parameters if p != "self"]
    for key in config.options:
        if key not in known:
            raise UserError(f"task.{key}: {config.name} has no such option{nearest(key, known)}; {_listed(known)}")
    try:
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
        device=device,
    )
    space = _space(arm, facts, floats, warnings)
    content = _content(arm, task, schedule, space, device)
    return Built(program, space, fingerprint_of(content), content, tuple(warnings))


def check_arm(built: Built) -> list[str]:
    """Build the model's layout and one update, so that what can't train is refused before anything does.

    Returns what a user should know: a partition, a matrix that is not rotated.
    """
    try:
        return list(getattr(built.program.build_update(built.program.layout), "notes", []))
    except (ValueError, TypeError) as error:
        raise UserError(str(error).splitlines()[0]) from None


def task_facts(arm: Arm, task: Task) -> TaskFacts:
    """What the suggestions ask about an arm's task."""
    samples = task.size(Split.TRAIN)
    batch_size = arm.task.batch_size or samples
    return TaskFacts(
        num_samples=samples,
        batch_size=batch_size,
        num_steps=arm.trainer.steps,
        architecture=task.facts.architecture,
        data_type=task.facts.data_type,
        reference_batch_size=task.facts.reference_batch_size,
        fine_tuning=task.facts.fine_tuning,
        deep=task.facts.deep,
        unstable=task.facts.unstable,
        transfer_learning=task.facts.transfer_learning,
        fan_in=task.facts.fan_in,
    )


def lr_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of an optimizer that the suggested LR depends on, as arguments of `suggest.lr_range`."""
    names = {"dampening": "dampening", "scale": "muon_scale"}
    return {argument: options[key] for key, argument in names.items() if key in options}


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
    if schedule.name == "plateau":
        warnings += _plateau_notes(schedule_options(schedule.name) | options, arm.trainer.rungs)
    return schedule


def _plateau_notes(options: Mapping[str, Any], rungs: int) -> list[str]:
    """A line if there are too few evaluations for a reduction before the end. Raises UserError if there are none."""
    wanted = options["patience"] + 3  # a best one, more than patience bad ones, and the last, which is too late
    if rungs == 1:
        raise UserError(
            f"trainer.rungs: with 1 there is no evaluation before the end, and schedule=plateau goes by them; "
            f"give {wanted} or more"
        )
    if rungs >= wanted:
        return []
    return [f"schedule=plateau never reduces the LR with trainer.rungs={rungs}; give {wanted} or more"]


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
    rule = _construct(cls, static, "optimizer")
    iterate = _iterate(arm)
    floats = {**rule.floats, **iterate.floats}

    def build(layout: Layout) -> Updater:
        return Update(rule, layout, decay=decay, clip_norm=clip, iterate=iterate)

    return build, floats


def _construct(cls: Any, static: Mapping[str, Any], group: str) -> Any:
    """An object of a class with its static options. Raises UserError that names the key."""
    known = list(inspect.signature(cls).parameters)
    for key in static:
        if key not in known:
            allowed = [*cls.floats, *known]
            raise UserError(
                f"{group}.{key}: {cls.__name__} has no such option{nearest(key, allowed)}; {_listed(allowed)}"
            )
    try:
        return cls(**static)
    except (ValueError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise UserError(text if text.startswith(group) else f"{group}: {text}") from None


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
    iterate: Iterate = _construct(cls, static, "averaging")
    return iterate


# -- hyperparameters -----------------------------------------------------------------------------------------------


def _space(arm: Arm, facts: TaskFacts, floats: Mapping[str, Domain], warnings: list[str]) -> Space:
    """Which hyperparameters are searched where, and the values of the others."""
    given: dict[str, Any] = {key: arm.optimizer.options[key] for key in floats if key in arm.optimizer.options}
    given |= {key: arm.schedule.options[key] for key in floats if key in arm.schedule.options}
    given |= {key: arm.averaging.options[key] for key in floats if key in arm.averaging.options}
    fixed: dict[str, float] = {}
    for key, domain in floats.items():
        value = given.get(key, domain.default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in domain:
            holders = {"schedule": arm.schedule.options, "averaging": arm.averaging.options}
            group = next((name for name, options in holders.items() if key in options), "optimizer")
            raise UserError(f"{group}.{key}: {value!r} is not allowed; give a number with {domain}")
        fixed[key] = float(value)
    lr = _suggested_lr(arm, facts)
    decay = (
        weight_decay(arm.optimizer.name, arm.decay.mode, facts, arm.schedule.name) if arm.decay.mode != "none" else None
    )
    fixed["lr"] = arm.optimizer.lr if arm.optimizer.lr is not None else lr.value if lr else 0.0
    fixed[DECAY_KEY] = arm.decay.value if arm.decay.value is not None else decay.value if decay else 0.0
    ranges: dict[str, Range] = {}
    if arm.search.trials:
        suggested = {"lr": lr, DECAY_KEY: decay}
        for key in arm.search.over:
            found = _range(arm, key, suggested, floats)
            if found is not None:
                ranges[key] = found
                fixed.pop(key)
        if not ranges:
            raise UserError(
                "search.trials: nothing is left to search (optimizer.lr is fixed); give search=none, or search.over"
            )
    elif arm.optimizer.lr is None and lr is None:
        raise UserError(f"optimizer.lr: there is no suggested value for {arm.optimizer.target}; give a number")
    if arm.decay.mode != "none" and arm.decay.value is None and decay is None and DECAY_KEY not in ranges:
        raise UserError(f"weight_decay.value: there is no suggested value for {arm.optimizer.target}; give a number")
    if arm.decay.mode == "independent" and max(fixed.get(DECAY_KEY, 0.0), _high(ranges)) >= 1e-2:
        warnings.append("weight_decay=independent with λ ≥ 1e-2 shrinks the weights by 1 % and more at every step")
    return Space(ranges, fixed)


def _high(ranges: Mapping[str, Range]) -> float:
    return ranges[DECAY_KEY].high if DECAY_KEY in ranges else 0.0


def _range(
    arm: Arm, key: str, suggested: Mapping[str, Suggestion | None], floats: Mapping[str, Domain]
) -> Range | None:
    """The range of a searched key; None if its value is fixed by the user or has no effect."""
    user: RangeConfig | None = arm.search.space.get(key)
    known = ["lr", DECAY_KEY, *floats]
    if key not in known:
        raise UserError(
            f"search.space.{key}: this arm has no such hyperparameter{nearest(key, known)}; {_listed(known)}"
        )
    if key in MOMENTUM_KEYS and arm.schedule.name == "schedule_free":
        raise UserError(f"search.space.{key}: schedule_free switches {key} off; search averaging_beta instead")
    if key == DECAY_KEY and (arm.decay.mode == "none" or arm.decay.value is not None):
        return None
    if key == "lr" and arm.optimizer.lr is not None:
        return None
    if user is not None:
        if key in floats:
            domain = floats[key]
            for side in ("low", "high"):
                if getattr(user, side) not in domain:
                    raise UserError(f"search.space.{key}.{side}: {getattr(user, side):g} is not in {domain}")
        elif user.low < 0 or (key == "lr" and user.low <= 0):
            raise UserError(f"search.space.{key}.low: {user.low:g} is not > 0")
        return Range(user.low, user.high, user.log, "given in search.space")
    suggestion = suggested.get(key)
    if suggestion is None:
        raise UserError(
            f"search.space.{key}: there is no suggested range for {key} of {arm.optimizer.name}; "
            f"give search.space.{key}.low and search.space.{key}.high"
        )
    return Range(suggestion.low, suggestion.high, True, suggestion.source)


def _suggested_lr(arm: Arm, facts: TaskFacts) -> Suggestion | None:
    """The suggested LR; for an external optimizer a decade to both sides of its class's own default."""
    found = lr_range(arm.optimizer.name, arm.schedule.name, facts, **lr_options(arm.optimizer.options))
    if found is not None:
        return found
    cls = resolve(arm.optimizer.target, "optimizer._target_")
    default = inspect.signature(cls).parameters.get("lr")
    if default is None or not isinstance(default.default, float) or default.default <= 0:
        return None
    lr = default.default
    text = f"{lr:g} (default of {arm.optimizer.target}) × 0.1 … × 10"
    return Suggestion("lr", lr / 10, lr * 10, lr, f"default of {arm.optimizer.target} × 0.1 – 10", text)


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


def _listed(names: list[str]) -> str:
    return "known: " + ", ".join(dict.fromkeys(names)) if names else "it has none"
