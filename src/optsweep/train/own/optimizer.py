"""The arm's optimizer in a loop of the user's: rule, decay, schedule and averaging, within the budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.nn.utils import get_total_norm

from optsweep.groups import Grouped, Patterns, checked_groups, grouped
from optsweep.optim.composition import Composition
from optsweep.optim.group_rows import PROGRESS
from optsweep.optim.layout import parameter_roles
from optsweep.optim.torch_optimizer import RowOptimizer, Taken
from optsweep.optim.update import norm_of
from optsweep.train.own.faults import LoopError


@dataclass(frozen=True)
class Norms:
    """Of one step, on the device."""

    step: int
    lr: float
    grad_norm: Tensor
    update_ratio: Tensor


class TrialOptimizer(RowOptimizer):
    """What `trial.optimizer` returns: a torch optimizer that counts its steps and may be watched."""

    def __init__(
        self,
        params: Sequence[Mapping[str, Any]],
        composition: Composition,
        hyper: Mapping[str, float],
        *,
        before_step: Callable[[int], None],
        after_step: Callable[[], None],
        watched: Callable[[int], bool],
    ) -> None:
        self._before_step, self._after_step, self._watched = before_step, after_step, watched
        self._norms: list[Norms] = []
        super().__init__(params, composition, hyper)

    @property
    def title(self) -> str:
        """Its name in messages."""
        return "optimizer"

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self._steps

    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient, which is one of the trial's budget."""
        before = self._steps
        self._before_step(before)
        loss = super().step(closure)
        if self._steps > before:
            self._after_step()
        return loss

    def take_norms(self) -> list[Norms]:
        """Those since the last call."""
        taken, self._norms = self._norms, []
        return taken

    def trains(self, ids: Collection[int]) -> bool:
        """Whether any of the parameters with these ids is its own."""
        return any(id(parameter) in ids for parameter in self._labels)

    def state_bytes(self) -> int:
        """Bytes of its state."""
        return sum(row.state_bytes() for rows in self._rows for row in rows.rows)

    def saved(self) -> dict[str, Any]:
        """Its `state_dict`, and what the updates of its rows hold beside their state."""
        rows = [
            [{"names": list(row.parameters), "held": row.update.held(0)} for row in rows.rows] for rows in self._rows
        ]
        return {**self.state_dict(), "rows": rows}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from there, with the same rows. Raises what `load_state_dict` does, KeyError for other rows."""
        theirs = {tuple(row["names"]): row["held"] for rows in saved["rows"] for row in rows if row["held"] is not None}
        state = saved["state"]
        if theirs:  # their state is inside
            state = {key: {name: own[name] for name in PROGRESS} for key, own in state.items()}
        self.load_state_dict({**saved, "state": state})
        for index, rows in enumerate(self._rows if theirs else ()):
            self._hyper(index)  # from which the updates know whether they decay
            for row in rows.rows:
                row.update.init(row.row)
                row.update.take_up([theirs[tuple(row.parameters)]])

    def _advance(self, taken: Sequence[Taken]) -> None:
        if not self._watched(self._steps + 1):
            super()._advance(taken)
            return
        rows = [row.row for row, _, _ in taken]
        before = [row.clone() for row in rows]
        grads = [leaf.grad for row, _, _ in taken for leaf in row.leaves if leaf.grad is not None]
        grad_norm = get_total_norm(grads)
        super()._advance(taken)
        changes = [new - old for old, new in zip(before, rows, strict=True)]
        ratio = norm_of(changes) / norm_of(before)
        lr = self.param_groups[0]["lr"]
        self._norms.append(Norms(self._steps + 1, float(lr), grad_norm, ratio))


def groups_of(
    model: nn.Module, hyper: Mapping[str, float], patterns: Patterns | None, heads: Iterable[str]
) -> list[dict[str, Any]]:
    """Parameter groups of a model, by their factor of the LR and by whether they decay. Raises LoopError."""
    roles = parameter_roles(model, heads)
    if not roles:
        raise LoopError(f"trial.optimizer(model): {type(model).__name__} has no trainable parameter")
    settings = grouped(roles, checked_groups(patterns))
    parts: dict[Grouped, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if name not in roles:
            continue
        kind = settings.get(name, Grouped())
        own = {"lr": hyper["lr"] * kind.lr_factor} | ({} if kind.decays else {"weight_decay": 0.0})
        group = parts.setdefault(kind, {"params": [], "roles": [], **own})
        group["params"].append((name, parameter))
        group["roles"].append(roles[name])
    return list(parts.values())
