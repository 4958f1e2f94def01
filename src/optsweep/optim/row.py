"""Parameters that are updated together: one row in which they live, the state of their update, and how far it has come.

Whoever has parameters that don't take part in every step cuts them into several rows: each counts its own steps, as
torch.optim counts those of each parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from optsweep.optim.iterate import BEGINNING, Past
from optsweep.optim.layout import Layout, flatten
from optsweep.optim.rule import Floats, State
from optsweep.optim.updater import Updater

MOST_AHEAD = 64
"""Steps whose numbers are computed at once."""


class Numbers:
    """The numbers of a row's steps, computed ahead for as long as what was expected comes true."""

    def __init__(self, update: Updater, past: Past = BEGINNING, multiplier: float | None = None) -> None:
        """`past` are the steps before the last one, whose multiplier is `multiplier`; None: no step was taken."""
        self.update = update
        self._past = past
        self._expected: list[float] = [] if multiplier is None else [multiplier]  # multipliers since `past`
        self._taken = len(self._expected)
        self._hyper: Mapping[str, float] = {}
        self._table: list[dict[str, float]] = []
        self._ahead = 1

    @property
    def last(self) -> tuple[Past, float] | None:
        """What was before the last step, and its multiplier; None before the first."""
        if not self._taken:
            return None
        done = np.array(self._expected[: self._taken])
        return self._past.after(done[:-1]), float(done[-1])

    @property
    def steps(self) -> int:
        """Steps taken."""
        return self._past.steps + self._taken

    def take(
        self, hyper: Mapping[str, float], multiplier: float, expect: Callable[[int], Floats] | None = None
    ) -> dict[str, float]:
        """The numbers of the next step; `expect(n)` are the multipliers to expect from it on, by default equal ones."""
        if self._taken < len(self._table) and self._expected[self._taken] == multiplier and self._hyper == hyper:
            self._taken += 1
            return self._table[self._taken - 1]
        foreseen = self._taken == len(self._table)  # it is only that the table has come to its end
        self._ahead = min(2 * self._ahead, MOST_AHEAD) if foreseen else 1
        self._past = self._past.after(np.array(self._expected[: self._taken]))
        coming = expect(self._ahead) if expect is not None else np.full(self._ahead, multiplier)
        self._hyper, self._expected, self._taken = dict(hyper), coming.tolist(), 1
        self._table = self._rows(hyper, coming)
        return self._table[0]

    def again(self, hyper: Mapping[str, float]) -> dict[str, float]:
        """Those of the last step again."""
        if self._table:
            return self._table[self._taken - 1]
        if self.last is None:
            raise ValueError("no step has been taken")
        past, multiplier = self.last
        (numbers,) = self._rows(hyper, np.array([multiplier]), past)
        return numbers

    def _rows(
        self, hyper: Mapping[str, float], multipliers: Floats, past: Past | None = None
    ) -> list[dict[str, float]]:
        table = self.update.coefficients(hyper, multipliers, past or self._past)
        columns = [values.tolist() for values in table.values()]
        return [dict(zip(table, values, strict=True)) for values in zip(*columns, strict=True)]


class Row:
    """Parameters of one dtype on one device as views of `row [1, P]`, with an update that knows nothing of others."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        layout: Layout,
        update: Updater,
        past: Past = BEGINNING,
        multiplier: float | None = None,
    ) -> None:
        """`past` and `multiplier` as `Numbers` has them."""
        self.layout, self.update = layout, update
        self.parameters = {slot.name: parameters[slot.name] for slot in layout.slots}
        first = next(iter(self.parameters.values()))
        self.row = flatten(layout, self.parameters, dtype=first.dtype, device=first.device)
        self.numbers = Numbers(update, past, multiplier)
        self._state: State | None = None
        for name, view in layout.views(self.row[0]):
            self.parameters[name].data = view

    @property
    def state(self) -> State:
        """Of the update."""
        if self._state is None:
            self._state = self.update.init(self.row)
        return self._state

    def advance(self, grads: Tensor, c: Mapping[str, float]) -> None:
        """One update with the numbers `c`; `grads [1, P]` may be overwritten."""
        tick = self.numbers.steps - 1  # which `c` was taken for
        self.update.step(self.row, grads, self.state, c, tick)

    def weights(self, hyper: Mapping[str, float]) -> Tensor:
        """The weights one would ship, `[1, P]`: `row` itself, a state tensor or a new one."""
        if self._state is None or self.numbers.last is None:
            return self.row
        return self.update.weights(self.row, self._state, self.numbers.again(hyper))

    def state_bytes(self) -> int:
        """Bytes of optimizer state."""
        return 0 if self._state is None else self.update.state_bytes(self._state)
