"""An arm's float hyperparameters: which are searched in which range, and the values of the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from optsweep.build.suggestions import Suggestion, TaskFacts, lr_range, weight_decay
from optsweep.build.targets import listed, resolve
from optsweep.config.arm import Arm
from optsweep.config.search_space import RangeConfig
from optsweep.errors import UserError, nearest
from optsweep.optim.rule import Domain
from optsweep.search.space import Range, Space

DECAY_KEY = "weight_decay"


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
    ranges: dict[str, Range] = {}
    if arm.search.trials:
        suggested = {"lr": lr, DECAY_KEY: decay}
        for key in arm.search.over:
            if key in switched_off:
                raise UserError(
                    f"search.space.{key}: {arm.schedule.name} switches {key} off; search {switched_off[key]} instead"
                )
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
            f"search.space.{key}: this arm has no such hyperparameter{nearest(key, known)}; {listed(known)}"
        )
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


def lr_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of an optimizer that the suggested LR depends on, as arguments of `suggest.lr_range`."""
    names = {"dampening": "dampening", "scale": "muon_scale"}
    return {argument: options[key] for key, argument in names.items() if key in options}
