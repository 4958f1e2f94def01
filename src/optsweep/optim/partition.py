"""Several rules over one model: every group of parameters goes to exactly one of them.

The row is cut into spans of neighbouring groups with one label, and each span has a rule of its own over views of it:
nothing is gathered or scattered.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Self, TypeVar

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
    rule: Rule

    @property
    def prefix(self) -> str:
        """Before the names of its state."""
        return f"{self.label}{self.begin}."


class Partition(Rule):
    """A rule made of `rules` by label.

    The floats of the rule labelled `main` go by their own names, those of another by `label_name`; its learning rate is
    `label_lr_factor` times the main one. A subclass lists them all in `floats`.
    """

    main: str = "main"

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = dict(rules)
        self.has_momentum = any(rule.has_momentum for rule in rules.values())
        self._spans: tuple[Span, ...] = ()

    @abstractmethod
    def label(self, group: ShapeGroup) -> str:
        """Which rule a group of parameters goes to."""

    def without_momentum(self) -> Self:
        """All rules without theirs."""
        other = copy.copy(self)
        other.rules = {k: r.without_momentum() if r.has_momentum else r for k, r in self.rules.items()}
        other.has_momentum = False
        return other

    def spans(self, layout: Layout) -> Iterator[Span]:
        """The row cut by label. Raises ValueError for a label that has no rule."""
        ends = [*(group.offset for group in layout.groups[1:]), layout.size]
        labelled = [(self.label(g), g, end) for g, end in zip(layout.groups, ends, strict=True)]
        for label, items in groupby(labelled, key=lambda item: item[0]):
            if label not in self.rules:
                raise ValueError(f"no rule for label {label!r}; there are {', '.join(self.rules)}")
            members = list(items)
            begin, end = members[0][1].offset, members[-1][2]
            names = {name for _, group, _ in members for name in group.names}
            part = Layout(
                tuple(replace(s, offset=s.offset - begin) for s in layout.slots if s.name in names),
                tuple(replace(group, offset=group.offset - begin) for _, group, _ in members),
                min(max(layout.decayed - begin, 0), end - begin),
                end - begin,
            )
            yield Span(label, begin, end, part, copy.copy(self.rules[label]))

    def notes(self, layout: Layout) -> list[str]:
        """Which parameters go to which rule."""
        names: dict[str, list[str]] = {label: [] for label in self.rules}
        for span in self.spans(layout):
            names[span.label] += [name for group in span.layout.groups for name in group.names]
        return [f"{label}: {', '.join(members) or 'nothing'}" for label, members in names.items()]

    def init(self, params: Tensor, layout: Layout) -> State:
        """Every span's state, its names behind the span's prefix."""
        self._spans = tuple(self.spans(layout))
        return {
            span.prefix + name: tensor
            for span in self._spans
            for name, tensor in span.rule.init(params[:, span.begin : span.end], span.layout).items()
        }

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

    def update(self, grads: Tensor, state: State, params: Tensor, c: Coefficients, tick: int) -> Tensor:
        """Each span's direction in its place."""
        result = torch.empty_like(grads)
        by_label = {label: _behind(f"{label}.", c) for label in self.rules}
        for span in self._spans:
            part = slice(span.begin, span.end)
            own = by_label[span.label]
            direction = span.rule.update(grads[:, part], _behind(span.prefix, state), params[:, part], own, tick)
            if span.label == self.main:
                result[:, part].copy_(direction)
            else:
                torch.mul(direction, own["lr_factor"], out=result[:, part])
        return result


def _behind(prefix: str, items: Mapping[str, T]) -> dict[str, T]:
    """The items whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): item for name, item in items.items() if name.startswith(prefix)}
