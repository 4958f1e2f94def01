"""An arm with what its trials amount to: losses by seed, means, costs, what was chosen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from optsweep.inference import statistics
from optsweep.inference.repeats import independent, repeat_of
from optsweep.inference.statistics import Basin, Interval
from optsweep.report.complete import complete, lacking, without_setting
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import LEARNING_RATE, ArmRecord, SweepRecord, TrialRecord
from optsweep.train.trial import Phase

LOSS = "loss"

BASIN_TOLERANCE = 0.05  # of the best loss


@dataclass(frozen=True, eq=False)
class ArmResult:
    """An arm with what its trials amount to."""

    sweep: SweepRecord
    arm: ArmRecord
    label: str  # unique within its group
    style: int  # same number, same colour, in every figure
    num_seeds: int = 0  # confirm seeds that the plan asks of a search; with confirm.seeds=auto by what is known so far
    repeats: int = 1  # searches that the plan asks for; with sweep.repeats=auto by what is known so far
    timed_on: str = ""  # the device's model on which times are compared; empty: all are

    @property
    def name(self) -> str:
        """The arm's name, unique in its sweep."""
        return self.arm.name

    @cached_property
    def confirm(self) -> Mapping[int, TrialRecord]:
        """Confirm trials by seed index."""
        return {trial.seed: trial for trial in self.arm.of(Phase.CONFIRM)}

    @cached_property
    def test_losses(self) -> Mapping[int, float]:
        """Test loss by seed, of the confirm trials that finished with a finite one, and of complete repeats only."""
        found = {seed: loss for seed, loss in sorted(self._metrics(names.TEST_LOSS).items()) if math.isfinite(loss)}
        counted = self.complete or [0]  # a first one under way as it is
        return {seed: loss for seed, loss in found.items() if repeat_of(seed) in counted}

    @cached_property
    def complete(self) -> list[int]:
        """Repeats that have run to the end."""
        return complete(self.arm, self.sweep.plan, self.num_seeds, self.repeats)

    def _metrics(self, key: str) -> dict[int, float]:
        """A metric's last value by seed, of the confirm trials that finished."""
        found = {seed: trial.metric(key) for seed, trial in self.confirm.items() if finished(trial)}
        return {seed: value for seed, value in found.items() if value is not None}

    @cached_property
    def test_blocks(self) -> Mapping[int, Sequence[float]]:
        """Mean losses of parts of the test split by seed, of the trials that `test_losses` has."""
        return {seed: held for seed in self.test_losses if (held := self.confirm[seed].test_blocks)}

    @property
    def losses(self) -> Mapping[int, float]:
        """What the arm's mean is over: mean test losses by repeat where there are several, else those by seed."""
        return independent(self.test_losses)

    @cached_property
    def val_losses(self) -> Mapping[int, float]:
        """Validation loss at the last step by seed, of the confirm trials that finished with a finite one."""
        found = {seed: trial.metric(names.VAL_LOSS) for seed, trial in self.confirm.items() if finished(trial)}
        return {seed: loss for seed, loss in sorted(found.items()) if loss is not None and math.isfinite(loss)}

    @property
    def test(self) -> Interval | None:
        """Mean test loss with its t interval over repeats, or over the seeds of one."""
        return mean_of(self.losses.values())

    @property
    def metric_name(self) -> str:
        """The task's metric."""
        return str(self.arm.facts.get("metric", ""))

    @property
    def only_loss(self) -> bool:
        """Whether the metric is the loss again, as of a task that has none."""
        return self.metric_name == "mean loss"

    @property
    def unit(self) -> str:
        """Unit of what decides."""
        return "" if self.arm.facts.get("decides") else self.loss_unit

    @property
    def loss_unit(self) -> str:
        """Unit of the loss."""
        return str(self.arm.facts.get("loss_unit", ""))

    @property
    def measure(self) -> str:
        """What decides, and is called the loss in what follows: it, or a metric, as "1 − auc"."""
        return str(self.arm.facts.get("decides", "")) or LOSS

    @property
    def measures(self) -> str:
        """It in the plural: "losses"; a metric has none."""
        return "losses" if self.measure == LOSS else self.measure

    @property
    def aside(self) -> Interval | None:
        """Mean test loss where a metric decides in its place."""
        return mean_of(independent(self._metrics(names.TEST_ASIDE)).values())

    @property
    def metric(self) -> Interval | None:
        """Mean of the task's metric on the test split."""
        key = names.test_metric(self.metric_name)
        return mean_of(independent(self._metrics(key)).values())

    @property
    def val(self) -> Interval | None:
        """Mean validation loss at the last step of the confirm trials."""
        return mean_of(independent(self.val_losses).values())

    @property
    def num_searched(self) -> int:
        """Search trials with a result."""
        return sum(self.count(Phase.SEARCH, status) for status in (Status.FINISHED, Status.PRUNED, Status.DIVERGED))

    @property
    def num_test(self) -> int | None:
        """Samples of the test split."""
        value = self.arm.facts.get("num_test")
        return int(value) if value is not None else None

    @property
    def resplit(self) -> bool:
        """Whether its repeats divide training and validation anew."""
        return bool(self.arm.facts.get("resplit", False))

    def count(self, phase: Phase, status: Status) -> int:
        """Trials of a phase that ended so."""
        return self._counts[phase, status]

    @cached_property
    def _counts(self) -> Counter[tuple[Phase, Status]]:
        return Counter((trial.phase, trial.status) for trial in self.arm.trials)

    @property
    def diverged_seeds(self) -> int:
        """Confirm trials that diverged, a test loss that is not finite included."""
        ends = [t.metrics.get(names.TEST_LOSS, 0.0) for t in self.confirm.values() if finished(t)]
        lost = sum(not math.isfinite(loss) for loss in ends)
        return self.count(Phase.CONFIRM, Status.DIVERGED) + lost + self._without_setting

    @property
    def confirm_seeds(self) -> int:
        """Confirm seeds that there are, those that a search without a setting was to have included."""
        return len(self.confirm) + self._without_setting

    @cached_property
    def _without_setting(self) -> int:
        return without_setting(self.arm, self.sweep.plan, self.num_seeds, self.repeats)

    @property
    def unbracketed(self) -> tuple[tuple[str, str], ...]:
        """(hyperparameter, side) where at least half of the searches tried nothing worse beyond what they chose.

        One of several that ends at an edge may be noise; a range that is too narrow shows in most.
        """
        every = self.arm.all_chosen.values()
        edges = Counter(
            (key, side)
            for chosen in every
            for key, sides in chosen.bracketed.items()
            for side, held in sides.items()
            if not held
        )
        return tuple(edge for edge, count in edges.items() if 2 * count >= len(every))

    def settings(self, key: str) -> list[float]:
        """The values of a hyperparameter that the searches chose, in order; the fixed one where it wasn't searched."""
        chosen = [held.params[key] for held in self.arm.all_chosen.values() if key in held.params]
        alone = self.setting(key)
        return chosen or ([] if alone is None else [alone])

    def setting(self, key: str) -> float | None:
        """The value of a hyperparameter that the first search chose, else the fixed one."""
        if self.arm.chosen and key in self.arm.chosen.params:
            return self.arm.chosen.params[key]
        if isinstance(fixed := self.arm.fixed.get(key), (int, float)):
            return float(fixed)
        values = {trial.number(key) for trial in self.confirm.values()}
        return values.pop() if len(values) == 1 else None

    @property
    def ms_per_step(self) -> float | None:
        """Median milliseconds per step of the timing pass; trials that share a machine are no substitute.

        None where that was on another device than the baseline's: times of two devices say nothing about optimizers.
        """
        timing = self.arm.timing
        return None if timing is None or self.timed_elsewhere else timing.ms_per_step

    @property
    def timed_elsewhere(self) -> str:
        """The device's model on which it was timed, if that is another than the baseline's."""
        device = self.arm.timing.device if self.arm.timing else ""
        return device if self.timed_on not in ("", device) else ""

    @cached_property
    def with_result(self) -> Sequence[TrialRecord]:
        """Its trials that came to a result."""
        return [trial for trial in self.arm.trials if trial.status not in (Status.CRASHED, Status.RUNNING)]

    @cached_property
    def state_bytes(self) -> float | None:
        """Bytes of optimizer state of one trial."""
        known = [trial.state_bytes for trial in self.arm.trials if trial.state_bytes is not None]
        return float(np.median(known)) if known else None

    @property
    def num_steps(self) -> int | None:
        """Optimizer steps of one trial."""
        value = self.arm.facts.get("num_steps")
        return int(value) if value is not None else None

    @property
    def run_seconds(self) -> float | None:
        """Seconds of one trial: steps × the timing pass's ms per step."""
        return None if self.ms_per_step is None or not self.num_steps else self.num_steps * self.ms_per_step / 1e3

    @property
    def basin(self) -> Basin | None:
        """Width of the LR region with a validation loss within 5 % of the best, from the space-filling points."""
        points = []
        for trial in self.arm.of(Phase.SEARCH):
            lr, loss = trial.number(LEARNING_RATE), trial.metric(names.VAL_LOSS)
            if trial.origin == "quasi-random" and lr is not None and lr > 0:
                if trial.status is Status.DIVERGED:
                    points.append((lr, math.inf))
                elif trial.status is Status.FINISHED and loss is not None:
                    points.append((lr, loss))
        finite = [loss for _, loss in points if math.isfinite(loss)]
        if not finite:
            return None
        lrs, losses = zip(*points, strict=True)
        return statistics.basin(lrs, losses, BASIN_TOLERANCE * abs(min(finite)))

    def missing(self, phase: Phase) -> int:
        """Planned trials of a phase without a result."""
        plan = self.sweep.plan
        return sum(lacking(self.arm, plan, self.num_seeds, phase, repeat) for repeat in range(self.repeats))


def measured(arms: Iterable[ArmResult]) -> str:
    """What decides among arms of perhaps several tasks: "loss", "1 − auc", "loss or 1 − auc"."""
    return " or ".join(dict.fromkeys(arm.measure for arm in arms))


def finished(trial: TrialRecord) -> bool:
    """Whether it trained to its end."""
    return trial.status is Status.FINISHED


def mean_of(values: Iterable[float | None]) -> Interval | None:
    """Mean of the finite values with its t interval; None if there are none."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.mean_interval(found) if found else None
