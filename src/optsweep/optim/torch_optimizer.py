"""A rule and what is composed around it as a `torch.optim.Optimizer`, for a loop of one's own.

As in the sweep, parameters are views of flat rows: one per group, dtype and device, and one more for every set of
parameters that has missed other gradients than the rest. Rows are made at the first step, so a model may be moved
before; one that is moved later gets rows anew, with its state. Gradients stay torch's own (scalers, clipping,
accumulation and hooks work as ever) and are copied into a row at the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from optsweep.checks import number
from optsweep.errors import UserError
from optsweep.optim.batch_norm import Call, on_first, recomputed, running_norms
from optsweep.optim.composition import Composition, Label
from optsweep.optim.group_rows import GradientRow, Grads, GroupRows
from optsweep.optim.layout import Role
from optsweep.optim.rule import Domain, Floats
from optsweep.optim.schedules import Multipliers
from optsweep.optim.update import clip_together

Taken = tuple[GradientRow, Grads, dict[str, float]]
"""A row that takes part in a step, its gradients, and the step's numbers."""

RECALIBRATION_BATCHES = 16
"""Batches from which batch-norm statistics are recomputed, as in a sweep."""


class RowOptimizer(torch.optim.Optimizer):
    """A composition over groups of parameters.

    `params` as torch.optim takes them: tensors, (name, tensor) pairs, or dictionaries whose "lr", "weight_decay" and
    floats of the rule go before those of `hyper`; "roles" are those of optim/layout.py, one for the group or a list.
    Raises UserError in one line.
    """

    def __init__(self, params: Any, composition: Composition, hyper: Mapping[str, float]) -> None:
        self.composition = composition
        self._labels: dict[Tensor, Label] = {}
        self._rows: list[GroupRows] = []  # by group
        self._checked: list[dict[str, float]] = []  # hyperparameters, by group
        self._steps = 0
        self._swapped = False
        self._multipliers = self._schedule()
        super().__init__(params, {"lr": hyper["lr"], "weight_decay": 0.0, **hyper})

    @property
    def title(self) -> str:
        """Its name in messages."""
        return type(self).__name__

    # -- torch.optim ---------------------------------------------------------------------------------------------

    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient.

        A closure (forward and backward pass) is called once, before the update, and what it returns is returned.
        """
        if self._swapped:
            raise UserError(f"{self.title}.step(): inside averaged() the model holds averaged weights; step outside")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hypers = [self._hyper(index) for index in range(len(self.param_groups))]
        taking = [(index, *item) for index, rows in enumerate(self._rows) for item in rows.present(self.state)]
        if not taking:
            return loss
        if self._multipliers is not None:
            self._check_lrs()
        expected = self._expected
        self._advance(
            [
                (row, grads, row.numbers.take(hypers[index], self._multiplier(index), expected))
                for index, row, grads in taking
            ]
        )
        self._steps += 1
        self._write_lrs()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """A further group; see the class."""
        group = dict(param_group)
        known = ["params", "lr", "weight_decay", "roles", *self.composition.floats]
        for key in group.keys() - set(known):
            if close := get_close_matches(key, known, n=1, cutoff=0.8):
                raise UserError(f"{self.title}: a parameter group has {key!r}; did you mean {close[0]!r}?")
        roles = group.pop("roles", None)
        whole = {**self.defaults, **group}
        group.setdefault("peak_lr", number(f"{self.title}: lr", whole["lr"], above=0.0))
        self._check({name: whole[name] for name in ("weight_decay", *self.composition.floats)})
        super().add_param_group(group)
        group = self.param_groups[-1]
        parameters: list[Tensor] = group["params"]
        for place, (parameter, role) in enumerate(zip(parameters, self._roles_of(parameters, roles), strict=True)):
            if not parameter.is_floating_point():
                raise UserError(
                    f"{self.title}: a parameter is {parameter.dtype}; only floating-point ones can be trained"
                )
            name = str(group["param_names"][place] if "param_names" in group else len(self._labels))
            self._labels[parameter] = Label(name, role)
        self._rows.append(self._of_group(group))
        self._checked.append({})
        self._write_lrs()

    def state_dict(self) -> dict[str, Any]:
        """As torch's: each parameter's state, in its own shape, with the steps it took; loads into any other rows."""
        for rows in self._rows:
            rows.publish(self.state)
        for group in self.param_groups:
            group["step"] = self._steps
        saved = super().state_dict()
        return saved if self._multipliers is None else {**saved, "schedule": self._multipliers.state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up a `state_dict`. Raises UserError for one of another optimizer."""
        for group in state_dict["param_groups"]:
            if lacking := [name for name in ("peak_lr", *self.composition.floats) if name not in group]:
                raise UserError(
                    f"{self.title}: the state dict is of another optimizer; its groups have no {lacking[0]}"
                )
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, parameter in zip(ids, parameters, strict=True):
            if key in state_dict["state"]:
                self.state[parameter] = dict(state_dict["state"][key])
        self._restore(state_dict.get("schedule"))

    def __getstate__(self) -> dict[str, Any]:
        saved = self.state_dict()
        own = {key: self.__dict__[key] for key in ("composition", "_labels")}
        return {**super().__getstate__(), **own, "_schedule_state": saved.get("schedule")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "composition" in state:  # else it is torch's load_state_dict that calls
            self._swapped = False
            self._multipliers = self._schedule()
            self._restore(self.__dict__.pop("_schedule_state"))

    # -- beyond torch.optim --------------------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """What to know about the rule on these parameters, a line each; ValueError if it makes no sense on them."""
        return list(self.composition.rule.notes(self.composition.layout(list(self._labels), self._labels)))

    def observe(self, val_loss: float) -> None:
        """Tell a schedule that listens to evaluations (plateau) of one."""
        if self._multipliers is not None:
            self._multipliers.values = self._multipliers.values[: self._steps]
            self._multipliers.observe(val_loss)
            self._multipliers.extend(self.composition.num_steps)
            self._write_lrs()

    @contextmanager
    def averaged(
        self,
        model: nn.Module,
        batches: Iterable[Any] | None = None,
        *,
        call: Call = on_first,
        num_batches: int = RECALIBRATION_BATCHES,
    ) -> Iterator[None]:
        """Inside, `model` is what one would ship: averaged weights, batch norm recomputed, eval mode; then as before.

        Batch-norm statistics are the mean over the first `num_batches` of `batches`, each a forward pass `call(model,
        batch)`; by default the model gets a dictionary as keywords, of a tuple or list the first item. However often
        one looks, the training is the same to the last bit.
        """
        if self._swapped:
            raise UserError(f"{self.title}.averaged(): the averaged weights are in the model already")
        if not any(parameter in self._labels for parameter in model.parameters()):
            raise UserError(f"{self.title}.averaged(model): the model has none of the optimizer's parameters")
        if batches is None and self._ships_others() and (norms := running_norms(model)):
            raise UserError(
                f"{self.title}.averaged(): {next(iter(norms)) or 'the model'} has batch-norm statistics of other "
                f"weights; give batches=… to recompute them, or batches=() to keep them"
            )
        with self.swapped(), recomputed(model, islice(() if batches is None else batches, num_batches), call):
            yield

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, parameters have the averaged weights; nothing else of a model is touched."""
        changed = [(row, row.clone(), weights) for row, weights in self._shipped() if weights is not row]
        try:
            self._swapped = True
            for target, _, weights in changed:
                _overwrite(target, weights)
            yield
        finally:
            for target, before, _ in changed:
                _overwrite(target, before)
            self._swapped = False

    def averaged_state_dict(
        self,
        model: nn.Module,
        batches: Iterable[Any] | None = None,
        *,
        call: Call = on_first,
        num_batches: int = RECALIBRATION_BATCHES,
    ) -> dict[str, Any]:
        """A copy of the model's state dict as it is inside `averaged`."""
        with self.averaged(model, batches, call=call, num_batches=num_batches):
            state = model.state_dict()
            return {key: v.clone() if isinstance(v, Tensor) else v for key, v in state.items()}

    def _shipped(self) -> list[tuple[Tensor, Tensor]]:
        """Every row, and the weights that one would ship."""
        with torch.inference_mode(False), torch.no_grad():  # rows made anew here outlive a look in inference mode
            for rows in self._rows:
                rows.settle(self.state)
            return [(row.row, row.weights(self._hyper(i))) for i, rows in enumerate(self._rows) for row in rows.rows]

    def _ships_others(self) -> bool:
        return any(weights is not row for row, weights in self._shipped())

    def _roles_of(self, parameters: Sequence[Tensor], roles: object) -> list[Role]:
        """The roles of a group's parameters: as given, or by their dimensions."""
        if roles is None:
            if self.composition.rule.by_role:
                raise UserError(
                    f"{self.title} treats embeddings and heads apart, which parameters alone don't tell: build it by "
                    f"optsweep.optim.for_model(model, {self.title.lower()!r}, …), or give groups with roles"
                )
            by_dimensions = {0: Role.VECTOR, 1: Role.VECTOR, 2: Role.HIDDEN}
            return [by_dimensions.get(parameter.ndim, Role.CONV) for parameter in parameters]
        words = [roles] * len(parameters) if isinstance(roles, str) else list(roles)  # type: ignore[call-overload]
        if unknown := [word for word in words if word not in list(Role)]:
            raise UserError(f"{self.title}: roles: {unknown[0]!r} is none; there are {', '.join(Role)}")
        if len(words) != len(parameters):
            raise UserError(f"{self.title}: a group has {len(parameters)} parameters and {len(words)} roles")
        return [Role(word) for word in words]

    def _of_group(self, group: Mapping[str, Any]) -> GroupRows:
        return GroupRows(self.title, self.composition, self._labels, group["params"])

    def _restore(self, schedule: Mapping[str, Any] | None) -> None:
        """Rows anew from `self.state`."""
        self._rows = [self._of_group(group) for group in self.param_groups]
        self._checked = [{} for _ in self.param_groups]
        self._steps = max((group.get("step", 0) for group in self.param_groups), default=0)
        if self._multipliers is not None and self.composition.schedule is not None and schedule is not None:
            self._multipliers = Multipliers.restored(self.composition.schedule, self.composition.num_steps, schedule)
        for rows in self._rows:
            rows.restore(self.state)
        self._write_lrs()

    # -- numbers -------------------------------------------------------------------------------------------------

    def _advance(self, taken: Sequence[Taken]) -> None:
        """Clip all together, and step each row."""
        if self.composition.clip_norm is not None:
            clip_together([grads for _, grads, _ in taken if isinstance(grads, Tensor)], self.composition.clip_norm)
        for row, grads, numbers in taken:
            row.advance(grads, numbers)

    def _hyper(self, index: int) -> dict[str, float]:
        """A group's hyperparameters, `lr` being the one that multipliers are a share of."""
        group, before = self.param_groups[index], self._checked[index]
        hyper = {name: group[name] for name in self.composition.floats}
        hyper |= {"lr": group["peak_lr"], "weight_decay": group["weight_decay"]}
        if hyper != before:
            self._check({name: value for name, value in hyper.items() if name != "lr"})
            self._rows[index].decay(hyper["weight_decay"])
            self._checked[index] = hyper
        return hyper

    def _check(self, hyper: Mapping[str, float]) -> None:
        """Raise for a number out of its range."""
        for name, value in hyper.items():
            domain = self.composition.floats.get(name, ANY)
            if number(f"{self.title}: {name}", value) not in domain:
                raise UserError(f"{self.title}: {name}={value!r} is not allowed; give {domain}")

    def _multiplier(self, index: int) -> float:
        """The share of its peak that a group's LR is at this step."""
        if self._multipliers is not None:
            return float(self._multipliers.values[self._steps])
        group = self.param_groups[index]
        if not 0 <= group["lr"] < float("inf"):
            raise UserError(f"{self.title}: lr={group['lr']!r} is not allowed; give {ANY}")
        return float(group["lr"] / group["peak_lr"])

    @property
    def _expected(self) -> Callable[[int], Floats] | None:
        """The schedule's multipliers from this step on."""
        if self._multipliers is None:
            return None
        coming = self._multipliers.values[self._steps :]
        return lambda count: coming[:count]

    def _schedule(self) -> Multipliers | None:
        """The schedule's multipliers, of the whole run as far as it is known."""
        if self.composition.schedule is None:
            return None
        multipliers = self.composition.schedule.start(self.composition.num_steps)
        multipliers.extend(self.composition.num_steps)
        return multipliers

    def _write_lrs(self) -> None:
        """Let every group's "lr" be the schedule's at the next step."""
        if self._multipliers is not None and self._steps < len(self._multipliers.values):
            for group in self.param_groups:
                group["lr"] = group["peak_lr"] * float(self._multipliers.values[self._steps])

    def _check_lrs(self) -> None:
        """Raise if the run is over, or if somebody else sets the learning rates too."""
        assert self._multipliers is not None
        values = self._multipliers.values
        if self._steps >= len(values):
            raise UserError(f"{self.title}.step(): the schedule ends after total_steps={len(values)} steps")
        for group in self.param_groups:
            if group["lr"] != group["peak_lr"] * float(values[self._steps]):
                raise UserError(
                    f"{self.title} has a schedule of its own, and something else has set lr={group['lr']!r}; give one "
                    f"of the two"
                )


ANY = Domain(0.0, float("inf"), 0.0)


@torch.no_grad()
def _overwrite(target: Tensor, values: Tensor) -> None:
    target.copy_(values)
