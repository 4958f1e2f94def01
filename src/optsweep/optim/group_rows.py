"""The rows of a group of parameters that have gradients of their own: made, cut and filled as the gradients come."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from optsweep.errors import UserError
from optsweep.optim.composition import Composition, Label
from optsweep.optim.iterate import BEGINNING, Past
from optsweep.optim.layout import Layout
from optsweep.optim.row import Row
from optsweep.optim.rule import State
from optsweep.optim.update import Update
from optsweep.optim.updater import Separable

Saved = MutableMapping[Tensor, dict[str, Any]]
"""By parameter: "step", the number of steps it took; "progress", the last one's multiplier and the averages' weights
before; and its state, in its own shape."""

PROGRESS = ("step", "progress")
GRAD = attrgetter("grad")

Grads = Tensor | list[Tensor]
"""Of a row: a row `[1, P]`, or where an update takes them as they come, those of its parameters."""


class GradientRow(Row):
    """A row whose parameters keep gradients of their own until the step."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        layout: Layout,
        update: Separable,
        past: Past = BEGINNING,
        multiplier: float | None = None,
    ) -> None:
        super().__init__(parameters, layout, update, past, multiplier)
        self.compose(update)
        self.leaves = list(self.parameters.values())
        self._pointers = [leaf.data_ptr() for leaf in self.leaves]
        # Between parameters there may be padding, which has a gradient too: zero.
        self._parts: list[Tensor] = []
        self._places: list[int] = []
        end = 0
        for slot in layout.slots:
            self._pad(slot.offset - end)
            self._places.append(len(self._parts))
            self._parts.append(self.row)
            end = slot.offset + slot.numel
        self._pad(layout.size - end)
        # On a CPU fresh memory costs as much as the copy; on a GPU it is cheap to get and dear to keep.
        self._kept = self.row.device.type == "cpu"
        self._scratch: Tensor | None = None
        self._views: list[Tensor] = []
        _ = self.state  # from the parameters as they are now

    def _pad(self, count: int) -> None:
        if count:
            self._parts.append(self.row.new_zeros(count))

    def compose(self, update: Separable) -> None:
        """Go on with another update of the same rule."""
        self.composed = self.update = self.numbers.update = update
        self.direct = update if isinstance(update, Update) and update.direct else None  # which takes parts of a row too

    def pieces(self) -> dict[str, State]:
        """The state by parameter."""
        return self.composed.pieces(self.state)

    def gradients(self) -> list[Tensor | None]:
        """Of every parameter, in the order of the row."""
        return list(map(GRAD, self.leaves))

    def present(self) -> list[Tensor]:
        """Those that there are."""
        return [leaf.grad for leaf in self.leaves if leaf.grad is not None]

    def stays(self) -> bool:
        """Whether the parameters still are in the row."""
        return list(map(Tensor.data_ptr, self.leaves)) == self._pointers

    def advance(self, grads: Grads, c: Mapping[str, float]) -> None:
        """One update with the numbers `c`; a row of gradients may be overwritten."""
        if isinstance(grads, Tensor):
            super().advance(grads, c)
        else:
            assert self.direct is not None
            self.direct.step_parts(self.row, self.leaves, grads, c)

    def flat(self, grads: list[Tensor]) -> Tensor:
        """Gradients copied to a row `[1, P]`, which lasts until the next step."""
        if self._kept:
            if self._scratch is None:
                self._scratch = torch.zeros_like(self.row)
                self._views = [view for _, view in self.layout.views(self._scratch[0])]
            torch._foreach_copy_(self._views, grads)
            return self._scratch
        parts = self._parts.copy()
        for place, grad in zip(self._places, grads, strict=True):
            parts[place] = grad
        row: Tensor = _flatten_dense_tensors(parts)  # type: ignore[no-untyped-call]
        return row.unsqueeze(0)


class GroupRows:
    """One row per dtype, device and history of missed gradients. Raises UserError, headed by `title`."""

    def __init__(
        self, title: str, composition: Composition, labels: Mapping[Tensor, Label], parameters: Sequence[Tensor]
    ) -> None:
        self.title, self.composition, self.labels = title, composition, labels
        self.rows: list[GradientRow] = []
        self.weight_decay = 0.0
        self._loose = [parameter for parameter in parameters if parameter.numel()]  # that never had a gradient

    def decay(self, weight_decay: float) -> None:
        """Let rows decay by so much from now on."""
        if bool(weight_decay) != bool(self.weight_decay):
            for row in self.rows:
                row.compose(self.composition.update(row.layout, weight_decay))
        self.weight_decay = weight_decay

    def present(self, saved: Saved) -> list[tuple[GradientRow, Grads]]:
        """The rows that have gradients, with them; a row is cut where only some of its parameters have."""
        if arrived := [parameter for parameter in self._loose if parameter.grad is not None]:
            self._loose = [parameter for parameter in self._loose if parameter.grad is None]
            for parameter in arrived:
                self._refuse_sparse(parameter)
            self._place(arrived, saved)
        result: list[tuple[GradientRow, Grads]] = []
        for row in list(self.rows):
            grads = row.gradients()
            some = [grad for grad in grads if grad is not None]
            if not some:
                continue
            if len(some) == len(grads) and row.stays():
                result.append((row, self._taken(row, some)))
                continue
            have = [leaf for leaf, grad in zip(row.leaves, grads, strict=True) if grad is not None]
            lack = [leaf for leaf, grad in zip(row.leaves, grads, strict=True) if grad is None]
            self._drop(row, saved)
            self._place(lack, saved)
            result += [(new, self._taken(new, new.present())) for new in self._place(have, saved)]
        return result

    def _taken(self, row: GradientRow, grads: list[Tensor]) -> Grads:
        """Gradients as a row takes them; those that are clipped together lie in rows."""
        return grads if row.direct is not None and self.composition.clip_norm is None else row.flat(grads)

    def settle(self, saved: Saved) -> None:
        """New rows for parameters that were moved or replaced."""
        for row in [row for row in self.rows if not row.stays()]:
            self._drop(row, saved)
            self._place(row.leaves, saved)

    def publish(self, saved: Saved) -> None:
        """Let `saved` be what the parameters have come to."""
        for row in self.rows:
            _publish(row, saved)

    def restore(self, saved: Saved) -> None:
        """Rows anew from `saved`."""
        started = [parameter for parameter in self._loose if saved.get(parameter, {}).get("step")]
        self._loose = [parameter for parameter in self._loose if not saved.get(parameter, {}).get("step")]
        self._place(started, saved)

    def _drop(self, row: GradientRow, saved: Saved) -> None:
        """Give up a row; its state is left in `saved`."""
        _publish(row, saved)
        self.rows.remove(row)

    def _place(self, parameters: Sequence[Tensor], saved: Saved) -> list[GradientRow]:
        """Rows for these parameters, with the state that `saved` has for them."""
        alike: dict[object, list[Tensor]] = {}
        for parameter in parameters:
            own = saved.get(parameter, {})
            progress = (own.get("step", 0), *own.get("progress", ()))
            alike.setdefault((parameter.dtype, parameter.device, progress), []).append(parameter)
        rows = [self._row(members, saved) for members in alike.values()]
        self.rows += rows
        return rows

    def _row(self, members: Sequence[Tensor], saved: Saved) -> GradientRow:
        """A row for parameters of one dtype and device that have come equally far."""
        layout = self.composition.layout(members, self.labels)
        update = self.composition.update(layout, self.weight_decay)
        named = {self.labels[parameter].name: parameter for parameter in members}
        own = saved.get(members[0], {})
        if not (steps := own.get("step", 0)):
            row = GradientRow(named, layout, update)
        else:
            multiplier, largest, total = own["progress"]
            row = GradientRow(named, layout, update, Past(steps - 1, largest, total), multiplier)
            for name, piece in row.pieces().items():
                self._fill(name, piece, saved[named[name]])
        _publish(row, saved)
        return row

    @torch.no_grad()
    def _fill(self, name: str, piece: State, own: Mapping[str, Any]) -> None:
        """Copy a parameter's saved state."""
        theirs = {key: tensor for key, tensor in own.items() if key not in PROGRESS}
        if _shapes(theirs) != _shapes(piece):
            raise UserError(
                f"{self.title}: the state of {name} is of another optimizer or model: it has {_described(theirs)}, and "
                f"here there is {_described(piece)}"
            )
        for key, view in piece.items():
            view.copy_(theirs[key])

    def _refuse_sparse(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if parameter.grad.layout is not torch.strided:
            raise UserError(
                f"{self.title}: {self.labels[parameter].name} has a sparse gradient, and only dense ones can be used; "
                f"give nn.Embedding sparse=False"
            )


def _publish(row: GradientRow, saved: Saved) -> None:
    past, multiplier = row.numbers.last or (BEGINNING, 0.0)
    pieces = row.pieces()
    for name, parameter in row.parameters.items():
        progress = [multiplier, past.largest, past.total]
        saved[parameter] = {"step": row.numbers.steps, "progress": progress, **pieces[name]}


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of state tensors, by name."""
    return {key: tuple(value.shape) if isinstance(value, Tensor) else () for key, value in state.items()}


def _described(state: Mapping[str, Any]) -> str:
    """Names and shapes, for an error message."""
    return ", ".join(f"{key} {list(shape)}" for key, shape in sorted(_shapes(state).items())) or "nothing"
