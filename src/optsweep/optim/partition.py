"""Several rules over one model: every group of parameters goes to exactly one of them.

The row is cut into spans of neighbouring groups with one label, and each span has a rule of its own over views of it:
nothing is gathered or scattered.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from math import lcm
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from optsweep.optim.layout import Layout, ShapeGroup
from optsweep.optim.rule import Coefficients, Floats, Rule, State, Steps

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """Neighbouring groups with one label: elements `begin` to `end` of the row, laid out by `layout`."""

    label: str
    begin: int
    end: int
    layout: Layout

    @property
    def prefix(self) -> str:
        """Before the names of its state."""
        return f"{self.label}{self.begin}."


class Partition(Rule):
    """A rule made of `rules` by label.

    The floats of the rule labelled `main` go by their own names, those of another by `label_name`; its learning rate is
    `label_lr_factor` times the main one. A subclass lists them all in `floats`.
    """

    by_role: ClassVar[bool] = True
    main: str = "main"

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = dict(rules)
        self.has_momentum = any(rule.has_momentum for rule in rules.values())
        self.period = lcm(*(rule.period for rule in rules.values()))

    @abstractmethod
    def label(self, group: ShapeGroup) -> str:
        """Which rule a group of parameters goes to."""

    def without_momentum(self) -> Self:
        """All rules without theirs."""
        other = copy.copy(self)
        other.rules = {k: r.without_momentum() if r.has_momentum else r for k, r in self.rules.items()}
        other.has_momentum = False
        return other

    def parts(self) -> Mapping[str, Rule]:
        """The rules, by label."""
        return self.rules

    def spans(self, layout: Layout) -> tuple[Span, ...]:
        """The row cut by label. Raises ValueError for a label that has no rule."""
        spans = _spans(layout, tuple(self.label(group) for group in layout.groups))
        if unknown := {span.label for span in spans} - self.rules.keys():
            raise ValueError(f"no rule for label {min(unknown)!r}; there are {', '.join(self.rules)}")
        return spans

    def notes(self, layout: Layout) -> list[str]:
        """Which parameters go to which rule."""
        names: dict[str, list[str]] = {label: [] for label in self.rules}
        for span in self.spans(layout):
            names[span.label] += [name for group in span.layout.groups for name in group.names]
        return [f"{label}: {', '.join(members) or 'nothing'}" for label, members in names.items()]

    def init(self, params: Tensor, layout: Layout) -> State:
        """Every span's state, its names behind the span's prefix."""
        return {
            span.prefix + name: tensor
            for span in self.spans(layout)
            for name, tensor in self.rules[span.label].init(params[:, span.begin : span.end], span.layout).items()
        }

    def pieces(self, state: State, layout: Layout) -> dict[str, State]:
        """Those of each span's rule, and of what lies beside the rules."""
        spans = self.spans(layout)
        prefixes = tuple(span.prefix for span in spans)
        result = super().pieces({key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}, layout)
        for span in spans:
            for name, own in self.rules[span.label].pieces(_behind(span.prefix, state), span.layout).items():
                result[name] |= own
        return result

    def coefficients(self, hyper: Mapping[str, float], steps: Steps) -> dict[str, Floats]:
        """Every rule's, behind its label."""
        c: dict[str, Floats] = {}
        for label, rule in self.rules.items():
            prefix = "" if label == self.main else f"{label}_"
            own = {name: hyper[prefix + name] for name in rule.floats}
            c |= {f"{label}.{name}": values for name, values in rule.coefficients(own, steps).items()}
            if prefix:
                c[f"{label}.lr_factor"] = np.full(len(steps), hyper[prefix + "lr_factor"])
        return c

    def kind(self, tick: int) -> Hashable | None:
        """The kinds of all rules."""
        kinds = tuple(rule.kind(tick) for rule in self.rules.values())
        return None if None in kinds else kinds

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int, layout: Layout) -> Tensor:
        """Each span's direction in its place."""
        result = torch.empty_like(grads)
        by_label = {label: _behind(f"{label}.", c) for label in self.rules}
        for span in self.spans(layout):
            part = slice(span.begin, span.end)
            own = by_label[span.label]
            direction = self.rules[span.label].update(
                grads[:, part], _behind(span.prefix, state), params[:, part], own, tick, span.layout
            )
            if span.label == self.main:
                result[:, part].copy_(direction)
            else:
                torch.mul(direction, own["lr_factor"], out=result[:, part])
        return result


@lru_cache
def _spans(layout: Layout, labels: tuple[str, ...]) -> tuple[Span, ...]:
    """The row cut where the label of the groups changes; the padding behind a group belongs to its span."""
    ends = [*(group.offset for group in layout.groups[1:]), layout.size]
    spans: list[Span] = []
    for label, items in groupby(zip(labels, layout.groups, ends, strict=True), key=lambda item: item[0]):
        members = list(items)
        begin, end = members[0][1].offset, members[-1][2]
        names = {name for _, group, _ in members for name in group.names}
        part = Layout(
            tuple(replace(slot, offset=slot.offset - begin) for slot in layout.slots if slot.name in names),
            tuple(replace(group, offset=group.offset - begin) for _, group, _ in members),
            min(max(layout.decayed - begin, 0), end - begin),
            end - begin,
        )
        spans.append(Span(label, begin, end, part))
    return tuple(spans)


def _behind(prefix: str, items: Mapping[str, T]) -> dict[str, T]:
    """The items whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): item for name, item in items.items() if name.startswith(prefix)}
