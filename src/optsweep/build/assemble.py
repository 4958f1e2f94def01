"""From an arm's configuration to the objects that train: task, rule, schedule, search space, fingerprint.

This is the only place where names become code. Everything that can be wrong with an arm is found here, before training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from optsweep.build.combination import (
    check_combination,
    evaluation_notes,
    iterate_options,
    rule_class,
    schedule_traits,
)
from optsweep.build.fingerprint import Identity, described, fingerprint_of, identify
from optsweep.build.hyperparameters import space_of
from optsweep.build.machine import Machine
from optsweep.build.named_task import build_task, not_counted, samples_of_a_batch, with_searched
from optsweep.build.resplit import divided, redraws
from optsweep.build.stated import stated
from optsweep.build.suggestions import (
    TaskFacts,
    final_fraction,
    gamma,
    step_size,
    warmup_fraction,
)
from optsweep.build.targets import construct
from optsweep.build.variants import Programs
from optsweep.checks import in_steps
from optsweep.config.arm import Arm
from optsweep.config.sections import TaskConfig
from optsweep.errors import UserError, first_line, nearest
from optsweep.imported import imported
from optsweep.optim.composition import Composition
from optsweep.optim.external import ExternalComposition, ExternalUpdate
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import Layout
from optsweep.optim.rule import Domain, Rule
from optsweep.optim.schedules import Schedule, schedule_names, warmup_names
from optsweep.optim.update import Decay, Update
from optsweep.optim.updater import Updater, try_out
from optsweep.search.space import Params, Space
from optsweep.tasks.base import ARCHITECTURES, Split, Task, Trainable
from optsweep.train.own.loop import Loop
from optsweep.train.own.program import LoopProgram
from optsweep.train.process import DEFAULT_DTYPE
from optsweep.train.program import Program
from optsweep.train.workload import ArmProgram, Workload, workload_of


@dataclass(frozen=True)
class Built:
    """An arm, ready to train."""

    program: ArmProgram  # with the first of the choices of the program, where such are searched
    programs: Programs
    task: Trainable  # as the config has it, for another arm of the same
    space: Space
    content: Mapping[str, Any]  # the settings that decide a trial's numbers, flat
    code: tuple[Any, ...]  # what dotted paths name: rule, schedule, average
    rule: str  # which class, with which options
    warnings: tuple[str, ...]

    def program_for(self, params: Params) -> ArmProgram:
        """The program of a trial with the setting `params`; built once per combination of its choices."""
        return self.programs.of(self.space.program_values(params))

    def workload_for(self, params: Params) -> Workload:
        """What a trial with the setting `params` trains."""
        return workload_of(self.program_for(params))

    @cached_property
    def identity(self) -> Identity:
        """What decides a trial's numbers beside the settings: model, data, code and machine. Probes the model."""
        return identify(self.program, self.rule, self.code)

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of everything exact that decides a trial's numbers."""
        return fingerprint_of({**self.content, **self.identity.exact})


def device_of(name: str) -> torch.device:
    """The device; `auto` is CUDA, MPS or CPU, the first there is. Raises UserError for one that isn't there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *(["mps"] if mps else [])]
    if name not in there and not (name == "cuda" and cuda):
        raise UserError(f"trainer.device: {name} is not on this machine; there are {', '.join(there)}")
    return torch.device(name)


def foreign_default_dtype() -> list[str]:
    """A line if the calling program has set torch's default dtype: trials don't follow it."""
    if (found := torch.get_default_dtype()) is DEFAULT_DTYPE:
        return []
    return [
        f"torch's default dtype is {found} in this process, and {DEFAULT_DTYPE} for the trials; "
        f"a model of another dtype sets it in task.model()"
    ]


def build_arm(arm: Arm, task: Trainable | None = None, device: torch.device | None = None, repeat: int = 0) -> Built:
    """Everything that a repeat of an arm needs; `task` saves building it again. Raises UserError with one line."""
    check_combination(arm)
    arm = with_searched(arm)
    device = device or device_of(arm.trainer.device)
    whole = (task or build_task(arm.task)).on(device)
    task = divided(arm, whole, repeat)
    warnings = [*task.notes, *not_counted(arm.task, task), *_unknown_architecture(task), *foreign_default_dtype()]
    _, floats, switched_off, _ = _updater(arm)
    space = space_of(arm, task_facts(arm, task), floats, switched_off, warnings)
    tasks = {_task_key(arm.task): task}

    def program(values: Params) -> ArmProgram:
        chosen = arm.with_values(values)
        if (key := _task_key(chosen.task)) not in tasks:
            del tasks[next(iter(tasks))]
            tasks[key] = divided(chosen, build_task(chosen.task).on(device), repeat)
        return _program(chosen, tasks[key], device, [] if values else warnings)

    programs = Programs(program)
    first = space.program_values(space.first)
    first_program = programs.of(first)
    content = _content(arm.with_values(first), first_program, space)
    targets = {"optimizer": arm.optimizer.target, "schedule": arm.schedule.target, "averaging": arm.averaging.target}
    code = tuple(imported(target, f"{group}._target_") for group, target in targets.items() if target is not None)
    static = {key: value for key, value in arm.optimizer.options.items() if f"optimizer.{key}" not in space.program}
    return Built(
        program=first_program,
        programs=programs,
        task=whole,
        space=space,
        content=content,
        code=code,
        rule=described(code[0], static),
        warnings=tuple(warnings),
    )


def _task_key(config: TaskConfig) -> str:
    """Equal for tasks that are the same object: how its samples are batched is not the task's."""
    return f"{config.target} {config.options!r}"


def _program(arm: Arm, task: Trainable, device: torch.device, warnings: list[str]) -> ArmProgram:
    """The program of an arm, its task's data on the device."""
    if isinstance(task, Loop):
        return _loop_program(arm, task, device, warnings)
    assert isinstance(task, Task)
    task.to(device)
    batch_size = samples_of_a_batch(arm.task, stated(task))
    arm.trainer.check_batch(batch_size, f"a batch of {batch_size} samples")
    return Program(
        task=task,
        build_update=_updater(arm)[0],
        schedule=_schedule(arm, task_facts(arm, task), warnings),
        num_steps=arm.trainer.steps,
        batch_size=batch_size,
        num_rungs=arm.trainer.rungs,
        log_every=arm.trainer.steps_per_point,
        accumulate=arm.trainer.accumulate,
        ranks=arm.trainer.ranks,
        decay_all=arm.decay.apply_to == "all",
        precision=arm.trainer.precision,  # type: ignore[arg-type]
        vmapped=arm.trainer.in_lanes,
        divergence_factor=arm.trainer.divergence_factor,
        eval_batch_size=arm.trainer.eval_batch_size,
        deterministic=arm.trainer.deterministic,
        compile=arm.trainer.compile,
        device=device,
    )


def _loop_program(arm: Arm, loop: Loop, device: torch.device, warnings: list[str]) -> LoopProgram:
    """The program of an arm whose loop is the user's. Raises UserError for what is the loop's affair."""
    instead_of = {"precision": "use torch.autocast", "accumulate": "accumulate", "ranks": "use torch.distributed"}
    for key, instead in instead_of.items():
        if (value := vars(arm.trainer)[key]) not in ("fp32", 1):
            raise UserError(f"trainer.{key}: {value} is for optsweep's loop; {instead} in yours, {loop.place}")
    if arm.trainer.in_lanes:
        warnings.append("trainer.lanes: a loop of one's own trains one trial at a time")
    build, _, _, composition = _updater(arm)
    schedule = _schedule(arm, task_facts(arm, loop), warnings)
    return LoopProgram(
        task=loop,
        build_update=build,
        composition=replace(composition, schedule=schedule, num_steps=arm.trainer.steps),
        schedule=schedule,
        num_steps=arm.trainer.steps,
        batch_size=arm.task.batch_size or loop.batch_size,
        num_rungs=arm.trainer.rungs,
        log_every=arm.trainer.steps_per_point,
        decay_all=arm.decay.apply_to == "all",
        divergence_factor=arm.trainer.divergence_factor,
        deterministic=arm.trainer.deterministic,
        device=device,
    )


def algorithm_of(built: Built) -> str:
    """A key that is equal for arms that are the same algorithm under two names.

    Adam with decoupled decay is AdamW; SGD and momentum are one under schedule-free, which switches momentum off.
    """
    update = built.program.build_update(built.program.layout)
    content = {
        key: value
        for key, value in built.content.items()
        if not key.startswith("optimizer.") and not (key.startswith("fixed.") and key[6:] not in update.relevant)
    }
    ranges = {key: found.content for key, found in built.space.dimensions.items()}
    return fingerprint_of({**content, **update.identity, **ranges})


def check_arm(built: Built) -> list[str]:
    """Build the model's layout, an update and a step of it, so that what can't train is refused before anything does.

    Where trials choose their program, each program is built, and the model of the first one. Returns what a user should
    know: a partition, a matrix that is not rotated.
    """
    built.programs.check(built.space)
    program = built.program
    try:
        update = program.build_update(program.layout)
        notes = update.notes
        try_out(update, dtype=program.dtype, device=program.device)
    except (ValueError, TypeError) as error:
        raise UserError(first_line(error)) from None
    rungs = len(program.rung_steps())
    return [*program.notes, *notes, *evaluation_notes(program.schedule, program.num_steps, rungs)]


def task_facts(arm: Arm, task: Trainable) -> TaskFacts:
    """What the suggestions ask about an arm's task; what `suggest` says of it comes first."""
    assumed = {key: value for key, value in asdict(arm.suggest).items() if value is not None}
    said = stated(task)
    samples = said.sizes[Split.TRAIN]
    batch_size = arm.task.batch_size or samples
    return TaskFacts(
        num_samples=samples,
        batch_size=batch_size,
        num_steps=arm.trainer.steps,
        architecture=task.facts.like or task.facts.architecture,
        data_type=task.facts.data_type,
        reference_batch_size=task.facts.reference_batch_size,
        fine_tuning=assumed.get("fine_tuning", task.facts.fine_tuning),
        deep=assumed.get("deep", task.facts.deep),
        unstable=assumed.get("unstable", task.facts.unstable),
        transfer_learning=assumed.get("transfer_learning", task.facts.transfer_learning),
        fan_in=task.facts.fan_in,
    )


def _unknown_architecture(task: Trainable) -> Iterator[str]:
    """What it costs to be of a kind that no table knows."""
    if (found := task.facts.architecture) not in ARCHITECTURES and task.facts.like is None:
        yield (
            f"task.facts.architecture: no published range is for {found!r}{nearest(found, ARCHITECTURES)}, so weight "
            f"decay and warm-up are suggested as for no architecture in particular, and learning rates as for large "
            f"models; Facts(…, like='mlp') takes the ranges of one of {', '.join(ARCHITECTURES)}"
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
        length = float(warmup_fraction(facts, config.name).value)
    steps = round(in_steps(length, arm.trainer.steps)) if length > 0 else 0
    averaging = iterate_options(schedule_traits(config).iterate)
    options = {key: value for key, value in config.options.items() if key not in averaging}
    options = _resolved(options, config.name, facts, warnings)
    try:
        schedule = Schedule(name, options, config.warmup, steps)
        warnings += schedule.notes(arm.trainer.steps)
    except (ValueError, TypeError) as error:
        raise UserError(first_line(error)) from None
    return schedule


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


def _updater(
    arm: Arm,
) -> tuple[Callable[[Layout], Updater], Mapping[str, Domain], Mapping[str, str], Composition]:
    """A function from a layout to the update; its float hyperparameters; those switched off, and by what.

    Last the same apart from any layout and schedule.
    """
    decay = Decay(arm.decay.mode)
    clip = arm.trainer.clip_norm
    cls = rule_class(arm)
    if cls is None:
        target = imported(arm.optimizer.target, "optimizer._target_")
        kwargs = dict(arm.optimizer.options)

        def external(layout: Layout) -> Updater:
            return ExternalUpdate(target, kwargs, layout, decay=decay, clip_norm=clip)

        try:
            external(Layout.build({}, {}))
        except (ValueError, TypeError) as error:
            raise UserError(first_line(error)) from None
        composition = ExternalComposition(
            decay=decay, decay_all=arm.decay.apply_to == "all", clip_norm=clip, cls=target, kwargs=kwargs
        )
        return external, {}, {}, composition
    static = {key: value for key, value in arm.optimizer.options.items() if key not in cls.floats}
    rule: Rule = construct(cls, static, "optimizer")
    iterate = _iterate(arm)
    floats = {**rule.floats, **iterate.floats}
    instead = iterate.replaces_momentum
    switched_off = dict.fromkeys(rule.momentum_floats, instead) if instead else {}

    def build(layout: Layout) -> Updater:
        return Update(rule, layout, decay=decay, clip_norm=clip, iterate=iterate)

    return build, floats, switched_off, Composition(rule, iterate, decay, arm.decay.apply_to == "all", clip)


def _iterate(arm: Arm) -> Iterate:
    """The iterate that the schedule averages by, or that `averaging` names, or the plain one."""
    cls, group, options = schedule_traits(arm.schedule).iterate, "schedule", arm.schedule.options
    if cls is not None:
        options = {key: value for key, value in options.items() if key in iterate_options(cls)}
    elif arm.averaging.target is None:
        return Last()
    else:
        cls, group, options = imported(arm.averaging.target, "averaging._target_"), "averaging", arm.averaging.options
        if not (inspect.isclass(cls) and issubclass(cls, Iterate)):
            raise UserError(f"averaging._target_: {arm.averaging.target} is no optsweep.optim.iterate.Iterate")
    iterate: Iterate = construct(cls, {k: v for k, v in options.items() if k not in cls.floats}, group)
    return iterate


# -- fingerprint ---------------------------------------------------------------------------------------------------


def _content(arm: Arm, program: ArmProgram, space: Space) -> dict[str, Any]:
    """The settings that decide a trial's numbers beside what is searched and its seed."""
    task, schedule = program.task, program.schedule
    trainer = {**asdict(arm.trainer), **program.execution}
    for key in ("device", "log_every", "lanes", "timeout", "checkpoint_seconds", "compile"):
        trainer.pop(key)
    if arm.trainer.ranks == 1:  # as it was before there were others
        trainer.pop("ranks")
    parts: dict[str, Any] = {
        "task": {
            "target": arm.task.target,
            "batch_size": arm.task.batch_size,
            "data": task.digest(),
            "resplit": redraws(arm, task),
            **({"groups": task.groups} if task.groups else {}),
            **{key: value for key, value in arm.task.options.items() if key != "target_loss"},
        },
        "optimizer": {"target": arm.optimizer.target, **arm.optimizer.options},
        "schedule": {"name": schedule.name, **arm.schedule.options, **schedule.options},
        "warmup": {"name": schedule.warmup, "steps": schedule.warmup_steps},
        "weight_decay": {"mode": arm.decay.mode, "apply_to": arm.decay.apply_to},
        "averaging": {"name": arm.averaging.name, **arm.averaging.options},
        "fixed": space.fixed,
        "trainer": {**trainer, "device": program.device.type, "lanes": "several" if program.stacked else "one"},
        "versions": Machine.of(program.device).by_package,
        "sweep": {"seed": arm.seed},
    }
    content = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    return {key: value for key, value in content.items() if key not in space.program}
