"""A loop of the user's as something that an arm may train: what is known of it is found by running two steps of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from optsweep.checks import flag, number, optional, text, whole
from optsweep.errors import UserError, nearest
from optsweep.tasks.base import UNNAMED, Facts, Split, Trainable
from optsweep.train.own.rehearsal import Rehearsed, rehearse
from optsweep.train.own.running import RunningTrial

NO_METRIC = "mean loss"


class Loop(Trainable):
    """A function `train(trial, **options)` with what can't be seen by running it; docs/own-model.md, level two.

    `options` are further arguments of the function: keys of the task, which may be axes or searched.
    """

    def __init__(
        self,
        train: Callable[..., Any],
        *,
        options: Mapping[str, Any] | None = None,
        metric: str | None = None,
        higher_is_better: bool = True,
        test: bool | None = None,
        loss_unit: str = "loss",
        loss_floor: float | None = None,
        chance_loss: float | None = None,
        target_loss: float | None = None,
        samples: int | None = None,
        facts: Facts | None = None,
        batch_size: int = 64,
        steps: int = 500,
        name: str = UNNAMED,
    ) -> None:
        self.function = train
        self.options = _checked(train, options or {})
        self.name = text("name", name)
        self.batch_size, self.steps = whole("batch_size", batch_size), whole("steps", steps, low=2)
        self.loss_unit = text("task.loss_unit", loss_unit)
        self.loss_floor = optional(number)("task.loss_floor", loss_floor)
        self.chance_loss = optional(number)("task.chance_loss", chance_loss)
        self.target_loss = optional(number)("task.target_loss", target_loss)
        self.declared = optional(text)("task.metric", metric)
        self._higher_is_better = flag("task.higher_is_better", higher_is_better)
        self._test, self._facts = optional(flag)("task.test", test), facts
        self._samples = optional(whole)("task.samples", samples)
        self._device = torch.device("cpu")

    def given(self, options: Mapping[str, Any], batch_size: int | None, steps: int) -> Loop:
        """The same function, with other options, batches of another size, another budget. Raises UserError."""
        other = self._copy()
        other.options = _checked(self.function, {**self.options, **options})
        other.batch_size, other.steps = batch_size or self.batch_size, steps
        return other

    def on(self, device: torch.device) -> Loop:
        """Where it is rehearsed, and trains."""
        if device == self._device:
            return self
        other = self._copy()
        other._device = device
        return other

    def _copy(self) -> Loop:
        """The same, not rehearsed."""
        other = Loop.__new__(Loop)
        vars(other).update({key: value for key, value in vars(self).items() if key != "rehearsed"})
        return other

    @cached_property
    def rehearsed(self) -> Rehearsed:
        """What two steps of it have shown. Raises UserError, in one line, for a loop that can't be a trial's."""
        return rehearse(self, self._device)

    def run(self, trial: RunningTrial) -> None:
        """Call the function."""
        self.function(trial, **self.options)

    @property
    def place(self) -> str:
        """Where the function is written, for an error that no line of it has raised."""
        code = inspect.unwrap(self.function)
        try:
            file, line = inspect.getsourcefile(code), inspect.getsourcelines(code)[1]
        except (OSError, TypeError):
            return str(code)
        return f"{(file or '').rpartition('/')[2]}:{line}, {code.__name__}"

    # -- what it says of itself ---------------------------------------------------------------------------------------

    @property
    def metric(self) -> str:  # type: ignore[override]
        """As it was given, or the first that is reported beside the loss."""
        return self.declared or next(iter(self.rehearsed.metrics), NO_METRIC)

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """As it was given; without a metric, the loss stands for one."""
        return self._higher_is_better and self.has_metric

    @property
    def has_metric(self) -> bool:
        """Whether it reports one."""
        return bool(self.declared or self.rehearsed.metrics)

    @property
    def tests(self) -> bool:
        """Whether it tells a test loss; unknown, it is expected to."""
        return self._test if self._test is not None else self.rehearsed.tested is not False

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        """As they were given, or as the model looks."""
        return self._facts or replace(self.rehearsed.start.facts, reference_batch_size=self.batch_size)

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        """What the rehearsal has shown, and no test split."""
        found = list(self.rehearsed.notes(self))
        if not self.tests:
            found.append(
                "task.test: the loop tells no test loss (trial.finish(test_loss=…)): the verdict rests on the "
                "validation data, on which the settings were chosen, so every arm looks better than it is"
            )
        return found

    def size(self, split: Split) -> int | None:
        """Samples of an epoch, as far as they are known: those of the loader, or all that a trial sees."""
        if split is not Split.TRAIN:
            return None
        return self._samples or self.rehearsed.seen.samples or self.batch_size * self.steps

    def digest(self) -> str:
        """Of the first batch, if the loop takes its batches by `trial.batches`."""
        return self.rehearsed.seen.digest or "unknown"

    def code(self) -> Sequence[Any]:
        """The function."""
        return (self.function,)


def is_loop(found: object) -> bool:
    """Whether a function is a loop rather than one that returns a task: its first argument is called trial."""
    return inspect.isfunction(found) and next(iter(inspect.signature(found).parameters), "") == "trial"


def _checked(train: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that the function takes. Raises UserError for one that it doesn't, or for what is no such function."""
    if not callable(train) or inspect.isclass(train):
        raise UserError(f"task.train: {train!r} is no function; give one that is called with a trial: def train(trial)")
    parameters = list(inspect.signature(train).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not positional:
        raise UserError("task.train: the function takes no argument; it is called with the trial: def train(trial)")
    others = [p for p in parameters if p is not positional[0]]
    if not any(p.kind is p.VAR_KEYWORD for p in others):
        known = [p.name for p in others]
        for key in options:
            if key not in known:
                listed = f"there are {', '.join(known)}" if known else "it has the trial alone"
                raise UserError(f"task.{key}: the loop has no such argument{nearest(key, known)}; {listed}")
    for p in others:
        needed = p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if needed and p.name not in options:
            raise UserError(f"task.{p.name}: the loop needs it, and it isn't given")
    own = {p.name: p.default for p in others if isinstance(p.default, (bool, int, float, str))}
    return {**own, **options}
