"""The search space of an arm: what is searched, among which values, and the float hyperparameters that are not."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optsweep.build.arithmetic import Suggestion
from optsweep.build.suggestions import TaskFacts, lr_range, weight_decay
from optsweep.build.targets import listed
from optsweep.build.variants import no_choice, searchable
from optsweep.config.arm import Arm
from optsweep.config.search_space import ChoicesConfig, RangeConfig
from optsweep.errors import UserError, nearest
from optsweep.imported import imported
from optsweep.optim.rule import Domain
from optsweep.search.space import Dimension, Scope, Space, choices, numbers

DECAY_KEY = "weight_decay"
NO_DECAY = 0.01
"""A λ that shrinks the weights by less than this over a whole run at the highest LR is as good as none."""
GIVEN = "given in search.space"


def space_of(
    arm: Arm,
    facts: TaskFacts,
    floats: Mapping[str, Domain],
    switched_off: Mapping[str, str],
    warnings: list[str],
) -> Space:
    """Which hyperparameters are searched where, and the values of the others.

    `switched_off` has those that the schedule leaves without effect, with what is searched in their place.
    """
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
    dimensions: dict[str, Dimension] = {}
    if arm.search.trials:
        suggested = {"lr": lr, DECAY_KEY: decay}
        for key, user in _searched(arm, floats).items():
            if key in switched_off:
                raise UserError(
                    f"search.space.{key}: {arm.schedule.name} switches {key} off; search {switched_off[key]} instead"
                )
            found = _dimension(arm, key, user, suggested, floats)
            if found is not None:
                dimensions[key] = found
                fixed.pop(key, None)
        if DECAY_KEY in dimensions:
            highest = _highest(dimensions["lr"]) if "lr" in dimensions else fixed["lr"]
            dimensions[DECAY_KEY] = _within(dimensions[DECAY_KEY], _decay_limits(arm.decay.mode, facts, highest))
        if not dimensions:
            if DECAY_KEY in arm.search.over and arm.decay.mode == "none":
                raise UserError(
                    "search.over: weight_decay=none has no value to search; choose weight_decay=decoupled, or add lr"
                )
            fixed_lr = " (optimizer.lr is fixed)" if arm.optimizer.lr is not None else ""
            raise UserError(f"search.trials: nothing is left to search{fixed_lr}; give search=none, or search.over")
    elif arm.optimizer.lr is None and lr is None:
        raise UserError(f"optimizer.lr: there is no suggested value for {arm.optimizer.target}; give a number")
    if arm.decay.mode != "none" and arm.decay.value is None and decay is None and DECAY_KEY not in dimensions:
        raise UserError(f"weight_decay.value: there is no suggested value for {arm.optimizer.target}; give a number")
    largest = _highest(dimensions[DECAY_KEY]) if DECAY_KEY in dimensions else 0.0
    if arm.decay.mode == "independent" and max(fixed.get(DECAY_KEY, 0.0), largest) >= 1e-2:
        warnings.append("weight_decay=independent with λ ≥ 1e-2 shrinks the weights by 1 % and more at every step")
    return Space(dimensions, fixed)


def _highest(dimension: Dimension) -> float:
    return max((end for end in dimension.ends if isinstance(end, (int, float))), default=0.0)


def _decay_limits(mode: str, facts: TaskFacts, highest_lr: float) -> tuple[float, float]:
    """From a λ that is as good as none to one that leaves nothing of the weights in one step.

    Under `l2` what a λ amounts to depends on the gradients: no lower limit, and no λ above that of the loss itself.
    """
    if mode == "l2":
        return 0.0, 1.0
    most = 1 / highest_lr if mode == "decoupled" and highest_lr else 1.0
    return NO_DECAY * most / facts.num_steps, most


def _within(dimension: Dimension, limits: tuple[float, float]) -> Dimension:
    """A range of numbers that may grow between limits, which are no narrower than the range itself."""
    found = dimension.number
    if found is None:
        return dimension
    return replace(dimension, limits=(min(limits[0], found.low), max(limits[1], found.high)))


def _searched(arm: Arm, floats: Mapping[str, Domain]) -> dict[str, RangeConfig | ChoicesConfig | None]:
    """What is searched, with the values that the user gives; float hyperparameters by their short names."""
    groups = {"optimizer": arm.optimizer.options, "schedule": arm.schedule.options, "averaging": arm.averaging.options}
    short = {f"{group}.{key}": key for key in floats for group, options in groups.items() if key in options}
    short |= {"optimizer.lr": "lr", "weight_decay.value": DECAY_KEY}
    found: dict[str, RangeConfig | ChoicesConfig | None] = {}
    for key in arm.search.over:
        given = arm.search.space.get(key)
        if given is not None and found.get(short.get(key, key)) is not None:
            raise UserError(f"search.space.{key}: given twice, as {short.get(key, key)} too; give one of them")
        found[short.get(key, key)] = given or found.get(short.get(key, key))
    return found


def _dimension(
    arm: Arm,
    key: str,
    user: RangeConfig | ChoicesConfig | None,
    suggested: Mapping[str, Suggestion | None],
    floats: Mapping[str, Domain],
) -> Dimension | None:
    """The values of a searched key; None if its value is fixed by the user or has no effect."""
    if "." in key:
        return _choice_of_program(arm, key, user)
    known = ["lr", DECAY_KEY, *floats]
    if key not in known:
        raise UserError(
            f"search.space.{key}: this arm has no such hyperparameter{nearest(key, known)}; {listed(known)}"
        )
    if key == DECAY_KEY and (arm.decay.mode == "none" or arm.decay.value is not None):
        return None
    if key == "lr" and arm.optimizer.lr is not None:
        return None
    if isinstance(user, RangeConfig):
        for side, value in (("low", user.low), ("high", user.high)):
            _check_number(key, f".{side}", value, floats)
        domain = (floats[key].low, floats[key].high) if key in floats else (0.0, math.inf)
        return _within(numbers(user.low, user.high, log=user.log, source=GIVEN), domain)
    if user is not None:
        values = [_check_number(key, "", value, floats) for value in user.values]
        return choices(values, scope=Scope.LANE, source=GIVEN)
    suggestion = suggested.get(key)
    if suggestion is None:
        raise UserError(
            f"search.space.{key}: there is no suggested range for {key} of {arm.optimizer.name}; "
            f"give search.space.{key}.low and search.space.{key}.high"
        )
    return _within(numbers(suggestion.low, suggestion.high, source=suggestion.source), (0.0, math.inf))


def _check_number(key: str, side: str, value: object, floats: Mapping[str, Domain]) -> float:
    """A value of a float hyperparameter. Raises UserError for one that it can't have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"search.space.{key}: {value!r} is not allowed; give numbers")
    if key in floats:
        if value not in floats[key]:
            raise UserError(f"search.space.{key}{side}: {value:g} is not in {floats[key]}")
    elif value < 0 or (key == "lr" and value <= 0):
        raise UserError(f"search.space.{key}{side}: {value:g} is not > 0")
    return float(value)


def _choice_of_program(arm: Arm, key: str, user: RangeConfig | ChoicesConfig | None) -> Dimension:
    """The values of a key of the config; a range is of whole numbers where its present value is one."""
    present = searchable(arm)
    if key not in present:
        raise no_choice(arm, key, list(present))
    if user is None:
        raise UserError(
            f"search.space.{key}: there is no suggested range for it; give a list of values, or "
            f"search.space.{key}.low and search.space.{key}.high"
        )
    if isinstance(user, ChoicesConfig):
        return choices(user.values, source=GIVEN)
    value = 1 if key == "task.batch_size" else present[key]  # which may be "full"
    whole = isinstance(value, int) or (key == "warmup.steps" and user.high >= 1)
    if isinstance(value, bool) or not (value is None or isinstance(value, (int, float))):
        raise UserError(f"search.space.{key}: {value!r}, its present value, is no number; give a list of values")
    if whole and not (isinstance(user.low, int) and isinstance(user.high, int)):
        raise UserError(f"search.space.{key}: low={user.low!r} and high={user.high!r} are not both whole numbers")
    return numbers(user.low, user.high, log=user.log, whole=whole, scope=Scope.PROGRAM, source=GIVEN)


def _suggested_lr(arm: Arm, facts: TaskFacts) -> Suggestion | None:
    """The suggested LR; for an external optimizer a decade to both sides of its class's own default."""
    found = lr_range(arm.optimizer.name, arm.schedule.name, facts, **lr_options(arm.optimizer.options))
    if found is not None:
        return found
    cls = imported(arm.optimizer.target, "optimizer._target_")
    default = inspect.signature(cls).parameters.get("lr")
    if default is None or not isinstance(default.default, float) or default.default <= 0:
        return None
    lr = default.default
    text = f"{lr:g} (default of {arm.optimizer.target}) × 0.1 … × 10"
    return Suggestion("lr", lr / 10, lr * 10, lr, f"default of {arm.optimizer.target} × 0.1 – 10", text)


def lr_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of an optimizer that the suggested LR depends on, as arguments of `suggestions.lr_range`."""
    names = {"dampening": "dampening", "scale": "muon_scale"}
    return {argument: options[key] for key, argument in names.items() if key in options}
