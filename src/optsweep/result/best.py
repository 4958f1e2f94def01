"""The setting that an arm's searches ended on, as an optimizer for a loop of one's own, and as code to copy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optsweep.errors import UserError
from optsweep.inference.repeats import repeat_of
from optsweep.report.arm_result import ArmResult, finished
from optsweep.report.wording import number, plural
from optsweep.tracking.names import VAL_LOSS
from optsweep.tracking.reader import ArmRecord
from optsweep.tracking.schema import Setting
from optsweep.train.trial import Phase

if TYPE_CHECKING:  # torch takes a second
    from torch import nn

    from optsweep.build.optimizer_call import OptimizerCall
    from optsweep.config.arm import Arm
    from optsweep.optim.family import RuleOptimizer


@dataclass(frozen=True, eq=False)
class Best:
    """The best setting of an arm.

    Of several searches there are as many settings, all in `settings`. The best is that of the search whose confirm
    trials have the lowest mean validation loss at the last step, a diverged seed being infinite; before there are
    confirm trials, that with the lowest mean in its search. So it is a setting that was trained as it stands, chosen
    without the test data. Which of several is best may be chance: where they are far apart and end alike, the loss
    hardly depends on it.

    `print(best)` is Python code that makes the optimizer.
    """

    arm: ArmResult
    settings: tuple[Mapping[str, Setting], ...]  # by search, in order
    losses: tuple[float, ...]  # validation losses of the settings; NaN where none is known
    confirmed: bool  # whether the losses are of confirm trials
    repeats: tuple[int, ...]  # which search each setting is of, from 0

    @property
    def label(self) -> str:
        """The arm."""
        return self.arm.label

    @property
    def place(self) -> int:
        """Place of the best one among the settings."""
        return min(range(len(self.settings)), key=lambda at: (math.isnan(self.losses[at]), self.losses[at]))

    @property
    def hyper(self) -> Mapping[str, Setting]:
        """All numbers of the best setting by key: lr, weight_decay, the rule's own, and whatever else was searched."""
        return self.settings[self.place]

    @property
    def provisional(self) -> str:
        """Why a later look may choose another setting; empty where nothing is to come."""
        planned = self.arm.repeats
        if self.arm.sweep.planned(Phase.CONFIRM) and not self.confirmed:
            return "no confirm trial has ended yet"
        if (done := len(self.arm.complete)) < planned:
            return f"{done} of {planned} searches {'is' if done == 1 else 'are'} complete"
        return ""

    def optimizer(self, model: nn.Module, steps: int | None = None) -> RuleOptimizer:
        """A torch optimizer of the model with these numbers: rule, decay, schedule, warm-up, averaging, clipping.

        `steps`: the length of your run, over which the schedule goes; by default the sweep's. Warm-up given as a
        fraction, or suggested, keeps its share of it. The learning rate was chosen at the sweep's length and batch
        size.
        Raises UserError in one line.
        """
        return self._call(steps)(model)

    def code(self, steps: int | None = None) -> str:
        """`optimizer` as Python, for a script that has a `model`. Raises UserError in one line."""
        call = self._call(steps)
        after = "# after every evaluation: optimizer.observe(val_loss)\n" if call.listens else ""
        if "averaging" in call.arguments:
            after += "# evaluate and save inside `with optimizer.averaged(model, batches):`\n"
        return f"{self._heading}{call.code}{after}"

    def __str__(self) -> str:
        try:
            return self.code()
        except UserError as error:
            values = "".join(f"#   {key} = {value}\n" for key, value in self.hyper.items())
            return f"{self._heading}{values}# {error}\n"

    def __repr__(self) -> str:
        return str(self)

    @property
    def _heading(self) -> str:
        """What it is, as comments."""
        said = f"{self.label}" if self.label.isprintable() else repr(self.label)
        loss = self.losses[self.place]
        if len(self.settings) > 1:
            said += f": chosen by search {self.repeats[self.place] + 1} of {len(self.settings)}"
        if not math.isnan(loss):
            said += f"{',' if len(self.settings) > 1 else ':'} validation loss {number(loss)}"
        lines = [said, self._trained]
        lines += [f"provisional: {self.provisional}"] if self.provisional else []
        return "".join(f"# {line}\n" for line in lines)

    @property
    def _trained(self) -> str:
        """How long, and what beside the optimizer made the step."""
        facts = self.arm.arm.facts
        said = f"in runs of {facts.get('num_steps')} steps of {plural(int(facts.get('batch_size') or 0), 'sample')}"
        said += f" in {facts['precision']}" if facts.get("precision", "fp32") != "fp32" else ""
        others = {key: value for key, value in self.hyper.items() if key.startswith(("task.", "trainer.accumulate"))}
        return said + "".join(f", {key}={value}" for key, value in others.items())

    def _call(self, steps: int | None) -> OptimizerCall:
        from optsweep.build.optimizer_call import optimizer_call

        arm, facts = self._config, self.arm.arm.facts
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise UserError(f"steps: {steps!r} is not allowed; give a whole number ≥ 1")
        warmup = int(facts.get("warmup_steps", 0))
        return optimizer_call(arm, self.hyper, self.arm.arm.optimizer, warmup, steps or arm.trainer.steps)

    @cached_property
    def _config(self) -> Arm:
        """The arm's config, with what was chosen in it."""
        from optsweep.build.variants import searchable

        arm = config_of(self.arm.arm)
        present = searchable(arm)
        of_optimizer = {key: value for key, value in self.hyper.items() if "." in key and not key.startswith("task.")}
        return arm.with_values({key: _typed(value, present.get(key)) for key, value in of_optimizer.items()})


def best_of(arm: ArmResult) -> Best:
    """The best setting of an arm. Raises UserError where there is none yet."""
    record = arm.arm
    chosen = record.all_chosen
    if not chosen and (arm.sweep.planned(Phase.SEARCH) or "lr" not in record.fixed):
        planned = arm.sweep.planned(Phase.SEARCH)
        going = arm.num_searched < planned
        why = f"its search has {arm.num_searched} of {planned} trials" if going else "no trial of it ended well"
        raise UserError(f"best: {arm.label} has no chosen setting: {why}")
    confirmed = {repeat: _confirmed(arm, repeat) for repeat in (chosen or [0])}
    known = {repeat: loss for repeat, loss in confirmed.items() if loss is not None}
    if not chosen:
        return Best(arm, (dict(record.fixed),), (known.get(0, math.nan),), bool(known), (0,))
    # searches that are confirmed are compared among each other: the loss that a search chose by is an optimist's
    held = {repeat: chosen[repeat] for repeat in (known or chosen)}
    found = {
        repeat: known.get(repeat, math.nan if setting.mean is None else setting.mean)
        for repeat, setting in held.items()
    }
    settings = tuple({**record.fixed, **setting.params, **setting.choices} for setting in held.values())
    return Best(arm, settings, tuple(found.values()), bool(known), tuple(held))


def _confirmed(arm: ArmResult, repeat: int) -> float | None:
    """Mean validation loss of a search's confirm trials that have ended; infinite if one diverged."""
    trials = [trial for seed, trial in arm.confirm.items() if repeat_of(seed) == repeat]
    if any(trial.status == "diverged" for trial in trials):
        return math.inf
    losses = [trial.metric(VAL_LOSS) for trial in trials if finished(trial)]
    found = [math.inf if loss is None else loss for loss in losses]
    return sum(found) / len(found) if found else None


def config_of(record: ArmRecord) -> Arm:
    """The arm as it was configured. Raises UserError for results that don't say."""
    import yaml

    from optsweep.config.arm import GROUPS
    from optsweep.config.door import read_arm

    if not record.config:
        raise UserError(
            f"these results don't say how {record.label} was configured; the sweep's command again mends that"
        )
    chosen = {key: value for key, value in record.choices.items() if key in GROUPS}
    axes = {key: value for key, value in record.choices.items() if key not in GROUPS}
    return read_arm(yaml.safe_load(record.config), chosen, axes, record.config)


def _typed(value: Any, present: Any) -> Any:
    """A whole number as one: JSON and the search have them as floats."""
    whole = isinstance(value, float) and value.is_integer() and not isinstance(present, float)
    return int(value) if whole else value
