"""Every rule as a class of torch optimizers, written by `optimizer_of` from what the rule says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any, ClassVar

from torch import nn

from optsweep.checks import choice, number, of_type
from optsweep.errors import UserError, first_line, nearest
from optsweep.groups import Grouped, Patterns, checked_groups, grouped
from optsweep.optim import adam, adaptive, averaging, lamb, lion, muon, schedule_free, sgd, soap
from optsweep.optim.composition import Composition
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.layout import parameter_roles
from optsweep.optim.rule import Domain, Rule
from optsweep.optim.schedules import Schedule
from optsweep.optim.torch_optimizer import RowOptimizer
from optsweep.optim.update import Decay

AVERAGINGS: Mapping[str, type[Iterate]] = {
    "none": Last,
    "schedule_free": schedule_free.ScheduleFree,
    "ema": averaging.EMA,
    "lawa": averaging.LAWA,
}

ARGUMENTS = """
    params: tensors, (name, tensor) pairs, or dictionaries, a group each, in which lr, weight_decay and the rule's
        numbers may differ, as in torch.optim.
    lr: the peak learning rate. Schedulers of torch set each group's "lr"; what stands there is a share of this one.
    weight_decay, decay_mode: λ, and how it acts: decoupled θ ← θ − ηλθ, independent θ ← θ − (share of the peak LR)·λθ,
        l2 g ← g + λθ.
    decay_apply_to: matrices (two dimensions or more, no embeddings where they are known), or all.
    clip_norm: the norm of all gradients together is brought down to this.
    averaging: none, schedule_free, ema or lawa: `with optimizer.averaged(model)` has the weights to evaluate and ship.
    schedule, total_steps, warmup_steps: the name of a schedule, or a `Schedule`, over so many steps, behind a linear
        warm-up. Without, the LR is what the groups have.
"""

_COMMON: Mapping[str, Any] = {
    "weight_decay": 0.0,
    "decay_mode": "decoupled",
    "decay_apply_to": "matrices",
    "clip_norm": None,
    "averaging": None,
    "schedule": None,
    "total_steps": None,
    "warmup_steps": 0,
}


class RuleOptimizer(RowOptimizer):
    """A rule by its options; made by `optimizer_of`."""

    rule_class: ClassVar[type[Rule]]

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        weight_decay: float = 0.0,
        decay_mode: str = "decoupled",
        decay_apply_to: str = "matrices",
        clip_norm: float | None = None,
        averaging: str | None = None,
        schedule: str | Schedule | None = None,
        total_steps: int | None = None,
        warmup_steps: int = 0,
        **options: Any,
    ) -> None:
        title = self.title
        iterate_class = AVERAGINGS[choice(f"{title}: averaging", averaging, list(AVERAGINGS))]
        mode = Decay(choice(f"{title}: decay_mode", decay_mode, list(Decay)))
        if weight_decay and mode in self.rule_class.refused_decays:
            raise UserError(f"{title}: decay_mode={mode}: {self.rule_class.refused_decays[mode]}")
        known = _options(self.rule_class) | _options(iterate_class)
        for key in options.keys() - known.keys():
            raise UserError(_unknown(title, key, list(known), averaging))
        rule = _built(title, self.rule_class, options)
        iterate = _built(title, iterate_class, options)
        if iterate.replaces_momentum is not None and (idle := sorted(options.keys() & rule.momentum_floats)):
            raise UserError(
                f"{title}: {idle[0]} has no effect under {averaging}, whose {iterate.replaces_momentum} is it"
            )
        composition = Composition(
            rule,
            iterate,
            mode,
            choice(f"{title}: decay_apply_to", decay_apply_to, ["matrices", "all"]) == "all",
            None if clip_norm is None else number(f"{title}: clip_norm", clip_norm, above=0.0),
            *_schedule(title, schedule, total_steps, warmup_steps),
        )
        floats = {name: options.get(name, domain.default) for name, domain in composition.floats.items()}
        super().__init__(params, composition, {"lr": lr, "weight_decay": weight_decay, **floats})


def optimizer_of(rule: type[Rule]) -> type[RuleOptimizer]:
    """The torch optimizer of a rule, of yours too: its arguments are the rule's numbers and options."""
    numbers = {name: domain.default for name, domain in rule.floats.items()}
    given = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("params", "lr")]
    named = {**_options(rule), **_COMMON}
    given += [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in named.items()]
    averages = Parameter("averaging_options", Parameter.VAR_KEYWORD)
    ranges = "".join(f"    {name}: {_range(domain)}\n" for name, domain in rule.floats.items())
    heading = f"{rule.__name__} as a torch.optim.Optimizer.\n\n{inspect.cleandoc(_text(rule))}\n\nArguments:\n"
    averaged = "".join(
        f"    with averaging={name}: {', '.join(f'{key}={value!r}' for key, value in _options(cls).items())}\n"
        for name, cls in AVERAGINGS.items()
        if _options(cls)
    )
    body = {
        "rule_class": rule,
        "__module__": "optsweep.optim" if rule in RULES.values() else rule.__module__,
        "__qualname__": rule.__name__,
        "__doc__": heading + ARGUMENTS.strip("\n") + "\n" + ranges * bool(numbers) + averaged,
        "__signature__": Signature([*given, averages]),
    }
    return type(rule.__name__, (RuleOptimizer,), body)


def for_model(
    model: nn.Module,
    optimizer: str | type[RuleOptimizer],
    *,
    lr: float,
    heads: Iterable[str] = (),
    groups: Patterns | None = None,
    **options: Any,
) -> RuleOptimizer:
    """An optimizer of a model's trainable parameters that knows what each does in the model, as in a sweep.

    So Muon gives embeddings, the head and vectors to its auxiliary Adam, and weight decay leaves embeddings alone.
    `optimizer` is a name (muon) or a class of this package; `heads` are the names of the output's modules where the
    last linear layer isn't it; `groups` are those of a task, {"backbone.*": {"lr_factor": 0.1}, "*.bias":
    {"weight_decay": 0}}, later ones count; `options` are the class's. Raises UserError in one line.
    """
    if isinstance(optimizer, str):
        optimizer = FAMILY[choice("optimizer", optimizer, list(FAMILY))]
    roles = parameter_roles(model, heads)
    named = [(name, parameter) for name, parameter in model.named_parameters() if name in roles]
    if not named:
        raise UserError(f"{type(model).__name__} has no trainable parameter")
    of = grouped(roles, checked_groups(groups, "groups"), "groups")
    alike: dict[Grouped, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named:
        alike.setdefault(of.get(name, Grouped()), []).append((name, parameter))
    params = [
        {
            "params": held,
            "roles": [roles[name] for name, _ in held],
            "lr": lr * group.lr_factor,
            **({} if group.decays else {"weight_decay": 0.0}),
        }
        for group, held in alike.items()
    ]
    made = optimizer(params, lr=lr, **options)
    try:
        _ = made.notes
    except ValueError as error:
        raise UserError(str(error)) from None
    return made


def _text(rule: type[Rule]) -> str:
    """What the rule's module says, formula and source, and the rule itself."""
    module = inspect.getmodule(rule)
    return "\n\n".join(filter(None, [module.__doc__ if module else None, rule.__doc__]))


def _range(domain: Domain) -> str:
    return f"{domain}; {domain.default:g} by default"


def _options(cls: type[Rule] | type[Iterate]) -> dict[str, Any]:
    """Numbers and static options with their defaults."""
    static = {} if cls.__init__ is object.__init__ else inspect.signature(cls).parameters
    numbers = {name: domain.default for name, domain in cls.floats.items()}
    return numbers | {name: parameter.default for name, parameter in static.items()}


def _built(title: str, cls: Any, options: Mapping[str, Any]) -> Any:
    """A rule or an iterate with those of the options that are its static ones."""
    parameters = {} if cls.__init__ is object.__init__ else inspect.signature(cls, eval_str=True).parameters
    own = {
        key: of_type(f"{title}: {key}", options[key], parameter.annotation)
        for key, parameter in parameters.items()
        if key in options
    }
    try:
        return cls(**own)
    except (ValueError, TypeError) as error:
        raise UserError(f"{title}: {first_line(error).removeprefix('optimizer.')}") from None


def _unknown(title: str, key: str, known: list[str], averaging: str | None) -> str:
    """The line for an option that there isn't."""
    for name, cls in AVERAGINGS.items():
        if key in _options(cls):
            return f"{title}: {key} is an option of averaging={name}, and averaging is {averaging or 'none'}"
    allowed = [*known, *_COMMON]
    return f"{title}: there is no option {key}{nearest(key, allowed)}; known: {', '.join(allowed)}"


def _schedule(
    title: str, schedule: str | Schedule | None, total_steps: int | None, warmup_steps: int
) -> tuple[Schedule | None, int]:
    """The schedule and its length."""
    if schedule is None and not warmup_steps:
        if total_steps is not None:
            raise UserError(f"{title}: total_steps is the length of a schedule; give schedule=… too")
        return None, 0
    if total_steps is None:
        raise UserError(f"{title}: a schedule needs total_steps=…, the length of the run")
    try:
        if not isinstance(schedule, Schedule):
            schedule = Schedule(schedule or "constant", {}, "linear" if warmup_steps else "none", warmup_steps)
        elif warmup_steps:
            raise ValueError("a Schedule has its own warm-up; give warmup_steps there")
        schedule.notes(total_steps)
    except ValueError as error:
        raise UserError(f"{title}: {error}") from None
    if schedule.traits.iterate is not None:
        raise UserError(f"{title}: schedule={schedule.name} is an averaging here; give averaging={schedule.name}")
    return schedule, total_steps


RULES: Mapping[str, type[Rule]] = {
    cls.__name__.lower(): cls
    for cls in (
        sgd.SGD,
        sgd.Momentum,
        sgd.Nesterov,
        adaptive.AdaGrad,
        adaptive.RMSprop,
        adaptive.AdaDelta,
        adam.Adam,
        adam.AdamW,
        lion.Lion,
        lamb.LAMB,
        soap.SOAP,
        muon.Muon,
    )
}
"""By the names in conf/optimizer/."""

FAMILY: Mapping[str, type[RuleOptimizer]] = {name: optimizer_of(rule) for name, rule in RULES.items()}

SGD, Momentum, Nesterov, AdaGrad, RMSprop, AdaDelta, Adam, AdamW, Lion, LAMB, SOAP, Muon = FAMILY.values()
