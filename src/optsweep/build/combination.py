"""What has no meaning together is refused in one line, by what rule and schedule declare of themselves."""

from __future__ import annotations

import inspect
from typing import Any

from optsweep.config.arm import Arm
from optsweep.config.sections import ScheduleConfig
from optsweep.errors import UserError
from optsweep.imported import imported
from optsweep.optim.iterate import Iterate
from optsweep.optim.rule import Rule
from optsweep.optim.schedule_functions import Traits
from optsweep.optim.schedules import Schedule, traits_of


def schedule_traits(config: ScheduleConfig) -> Traits:
    """What the schedule declares to be special about it. Raises UserError if there is no such schedule."""
    try:
        return traits_of(config.target or config.name)
    except ValueError as error:
        raise UserError(str(error)) from None


def iterate_options(iterate: type[Iterate] | None) -> frozenset[str]:
    """Names of the options that go to an iterate."""
    return frozenset() if iterate is None else frozenset({*iterate.floats, *inspect.signature(iterate).parameters})


def ships_average(arm: Arm) -> bool:
    """Whether a trial evaluates and ships an average of its weights, by its schedule or by `averaging`."""
    return schedule_traits(arm.schedule).iterate is not None or arm.averaging.target is not None


def rule_class(arm: Arm) -> type[Rule] | None:
    """The class of the arm's rule; None for an optimizer that is none of ours."""
    cls: Any = imported(arm.optimizer.target, "optimizer._target_")
    return cls if inspect.isclass(cls) and issubclass(cls, Rule) else None


def check_combination(arm: Arm) -> None:
    """Raises UserError for a warm-up, an averaging or a weight decay that rule or schedule can't have."""
    traits, rule = schedule_traits(arm.schedule), rule_class(arm)
    schedule, averaging, mode = arm.schedule.name, arm.averaging.name, arm.decay.mode
    if traits.own_warmup and arm.schedule.warmup != "none":
        raise UserError(f"warmup={arm.schedule.warmup}: {schedule} has its own warm-up; give warmup=none")
    if traits.iterate is not None and arm.averaging.target is not None:
        raise UserError(f"averaging={averaging}: {schedule} averages already; give averaging=none")
    if rule is not None and mode in rule.refused_decays:
        raise UserError(f"weight_decay={mode}: {rule.refused_decays[mode]}")
    averaged = f"schedule={schedule}" if traits.iterate else f"averaging={averaging}" if arm.averaging.target else None
    if rule is None and averaged:
        raise UserError(
            f"{averaged}: an external optimizer keeps momentum of its own and can't be averaged this way; choose "
            f"one of optsweep's rules, or go without"
        )


def evaluation_notes(schedule: Schedule, num_steps: int, rungs: int) -> list[str]:
    """A line if a schedule that goes by evaluations gets too few of them. Raises UserError if there are none."""
    if not schedule.listens:
        return []
    patience = schedule.patience(num_steps)
    wanted = 2 if patience is None else patience + 1  # the last one is too late
    if rungs == 1:
        raise UserError(
            f"trainer.rungs: with 1 there is no evaluation before the end, and schedule={schedule.name} goes by them; "
            f"give {wanted} or more, or a longer run"
        )
    if rungs >= wanted:
        return []
    return [
        f"schedule={schedule.name} never reduces the LR with {rungs} evaluations; give trainer.rungs={wanted} or more"
    ]
