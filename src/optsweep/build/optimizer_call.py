"""An arm's optimizer for a loop of one's own: the arguments of `optsweep.optim.for_model`, to call or to write out."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from optsweep.build.combination import iterate_options, rule_class, schedule_traits
from optsweep.checks import in_steps
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.imported import imported
from optsweep.optim.family import AVERAGINGS, RULES, RuleOptimizer, for_model, optimizer_of
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.rule import Rule
from optsweep.optim.schedules import Schedule, schedule_options
from optsweep.tracking.schema import OptimizerTerms


@dataclass(frozen=True)
class OptimizerCall:
    """What `for_model` is given beside the model."""

    rule: type[Rule]
    arguments: Mapping[str, Any]

    def __call__(self, model: nn.Module) -> RuleOptimizer:
        """The optimizer of a model."""
        return for_model(model, self._name or optimizer_of(self.rule), **self.arguments)

    @property
    def _name(self) -> str | None:
        """By which the library knows the rule; None for one of the user's own."""
        return next((name for name, rule in RULES.items() if rule is self.rule), None)

    @property
    def listens(self) -> bool:
        """Whether its schedule is to be told of evaluations."""
        schedule = self.arguments.get("schedule", "constant")
        return (schedule if isinstance(schedule, Schedule) else Schedule(schedule)).listens

    @property
    def code(self) -> str:
        """The same as Python, for a script that has a `model`."""
        imports, first = "import optsweep\n", _spelled(self._name)
        if self._name is None:
            imports += f"from {self.rule.__module__} import {self.rule.__qualname__}\n"
            first = f"optsweep.optim.optimizer_of({self.rule.__qualname__})"
        lines = ["model", first, *(f"{key}={_spelled(value)}" for key, value in self.arguments.items())]
        return f"{imports}\noptimizer = optsweep.optim.for_model(\n" + "".join(f"    {x},\n" for x in lines) + ")\n"


def optimizer_call(arm: Arm, hyper: Mapping[str, Any], terms: OptimizerTerms, warmup: int, steps: int) -> OptimizerCall:
    """The call for an arm with these numbers; only what differs from the defaults is in it.

    `warmup`: steps of it in the arm's own run, whose share of the run is kept in one of another length. Raises
    UserError for what the library doesn't have: another's optimizer, an averaging of one's own.
    """
    rule = rule_class(arm)
    if rule is None:
        raise UserError(
            f"{arm.optimizer.target} is no rule of optsweep's: call it yourself, with lr={hyper['lr']!r} and the other "
            f"numbers of .hyper"
        )
    averaging, iterate = _averaging(arm)
    clip = arm.trainer.clip_norm
    decays = arm.decay.mode != "none" and hyper.get("weight_decay")
    given: dict[str, Any] = {"lr": float(hyper["lr"])}
    if decays:
        given["weight_decay"] = float(hyper["weight_decay"])
        given |= {"decay_mode": arm.decay.mode} if arm.decay.mode != "decoupled" else {}
        given |= {"decay_apply_to": arm.decay.apply_to} if arm.decay.apply_to != "matrices" else {}
    given |= _own_options(rule, arm.optimizer.options, hyper, leaving=iterate.replaces_momentum is not None)
    given |= {"averaging": averaging} if averaging != "none" else {}
    options = arm.averaging.options if schedule_traits(arm.schedule).iterate is None else arm.schedule.options
    given |= _own_options(iterate, {k: v for k, v in options.items() if k in iterate_options(iterate)}, hyper)
    given |= {"clip_norm": clip} if clip is not None else {}
    given |= {"heads": list(terms.heads)} if terms.heads else {}
    given |= {"groups": {name: dict(group) for name, group in terms.groups.items()}} if terms.groups else {}
    schedule = schedule_of(arm, terms, warmup, steps)
    return OptimizerCall(rule, given | _scheduled(schedule, steps))


def schedule_of(arm: Arm, terms: OptimizerTerms, warmup: int, steps: int) -> Schedule:
    """The arm's schedule, in a run of `steps`, without its averaging; what was suggested is as the sweep had it."""
    config, traits = arm.schedule, schedule_traits(arm.schedule)
    length = warmup / arm.trainer.steps if config.warmup_steps is None else config.warmup_steps
    rising = round(in_steps(length, steps)) if length > 0 else 0
    if traits.iterate is not None and config.target is not None:
        raise UserError(f"{config.target} averages the weights, and the library has no such averaging")
    if traits.iterate is not None:
        return Schedule("constant", {}, config.warmup, rising)
    options: dict[str, Any] = {key: terms.schedule_options.get(key, value) for key, value in config.options.items()}
    if left := [key for key, value in options.items() if value == "suggested"]:
        raise UserError(f"these results don't say what schedule.{left[0]}=suggested was; run the sweep's command again")
    schedule = Schedule(config.target or config.name, options, config.warmup, rising)
    try:
        schedule.notes(steps)
    except ValueError as error:
        raise UserError(f"steps={steps}: {error}") from None
    return schedule


def _averaging(arm: Arm) -> tuple[str, type[Iterate]]:
    """The name and the class of what averages the weights."""
    cls: Any = schedule_traits(arm.schedule).iterate
    if cls is None:
        cls = Last if arm.averaging.target is None else imported(arm.averaging.target, "averaging._target_")
    for name, known in AVERAGINGS.items():
        if known is cls:
            return name, known
    raise UserError(f"the library has no averaging {arm.averaging.target}; there are {', '.join(AVERAGINGS)}")


def _own_options(
    cls: type[Rule] | type[Iterate], static: Mapping[str, Any], hyper: Mapping[str, Any], leaving: bool = False
) -> dict[str, Any]:
    """Numbers and options of a rule or an averaging that differ from its defaults; `leaving` out momentum."""
    idle = cls.momentum_floats if leaving and issubclass(cls, Rule) else ()
    numbers = {name: float(hyper.get(name, domain.default)) for name, domain in cls.floats.items() if name not in idle}
    found = {name: value for name, value in numbers.items() if value != cls.floats[name].default}
    known = {} if cls.__init__ is object.__init__ else inspect.signature(cls).parameters
    return found | {
        name: value
        for name, value in static.items()
        if name not in cls.floats and name in known and value != known[name].default
    }


def _scheduled(schedule: Schedule, steps: int) -> dict[str, Any]:
    """The arguments for a schedule: as words where it has nothing but its defaults; none where the LR is constant."""
    defaults = schedule_options(schedule.name)
    options = {key: value for key, value in schedule.options.items() if value != defaults[key]}
    if schedule.name == "constant" and not schedule.length:
        return {}
    if options or schedule.warmup not in ("none", "linear"):
        return {"schedule": Schedule(schedule.name, options, schedule.warmup, schedule.length), "total_steps": steps}
    rising = {"warmup_steps": schedule.length} if schedule.length else {}
    return {"schedule": schedule.name, "total_steps": steps, **rising}


def _spelled(value: Any) -> str:
    """A value as a script has it."""
    if isinstance(value, Schedule):
        given = (value.name, value.options, value.warmup, value.warmup_steps)
        return f"optsweep.optim.Schedule({', '.join(map(_spelled, given))})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_spelled(key)}: {_spelled(held)}" for key, held in value.items()) + "}"
    return json.dumps(value) if isinstance(value, str) else repr(value)
