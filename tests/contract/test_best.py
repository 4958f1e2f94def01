"""The best setting of an arm as an optimizer: called or copied, it steps as the sweep's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hand_sweeps as hand
from kinds import Plain
from optsweep.build.assemble import build_arm
from optsweep.config.arm import Arm
from optsweep.config.spoken import arms_of
from optsweep.errors import UserError
from optsweep.inference.repeats import SEEDS_PER_REPEAT
from optsweep.launch.prepare.description import facts_of, optimizer_terms
from optsweep.optim import SOAP
from optsweep.report.comparison import compare
from optsweep.result.best import Best, best_of
from optsweep.tasks.base import Split
from optsweep.tracking.reader import ArmRecord
from optsweep.tracking.schema import Chosen, ConfirmTerms, OptimizerTerms, SearchTerms
from optsweep.train.own.loop import Loop
from optsweep.train.own.running import RunningTrial
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Trial
from own_loops import finish, loader, program, stepped, told
from own_pieces import net

STEPS = 5


class InGroups(Plain):
    """With a slower first layer and biases that don't decay."""

    groups = {"0.*": {"lr_factor": 0.5}, "*.bias": {"weight_decay": 0.0}}  # noqa: RUF012


SPOKEN = (
    "soap + schedule_free + linear warm-up + decoupled decay + trainer.clip_norm=0.5",
    "adamw + wsd + cosine warm-up + independent decay + optimizer.beta1=0.8 + weight_decay.apply_to=all",
    "momentum + linear + l2 decay + averaging=ema",
    "muon + step + schedule.step_size=2 + warmup=none",
    "lion + constant + warmup=none",
    "nesterov + plateau",
)


@cache
def arm_of(spoken: str) -> Arm:
    shared = {"task": "own", "task._target_": "optsweep.Task", "task.batch_size": 32, "sweep.name": "best"}
    shared |= {"search": "none", "trainer.steps": STEPS, "trainer.rungs": 2, "trainer.device": "cpu"}
    (arm,) = arms_of([spoken], {**shared, "optimizer.lr": 0.0123456789})
    return arm


@cache
def program_of(spoken: str) -> tuple[Program, ArmRecord]:
    """What the sweep trains, and what its store has of the arm."""
    arm = arm_of(spoken)
    built = build_arm(arm, InGroups())
    record = replace(
        hand.arm("x", hand.seeds(1.0)),
        choices=arm.combination,
        fixed=built.space.fixed,
        chosen=None,
        config=arm.yaml,
        facts=asdict(facts_of(arm, built.program)),
        optimizer=optimizer_terms(arm, built.program),
    )
    assert isinstance(built.program, Program)
    return built.program, record


def best(record: ArmRecord, **plan: Any) -> Best:
    sweep = hand.sweep(record)
    ((group,),) = (compare([replace(sweep, plan=replace(sweep.plan, **plan))]),)
    return best_of(group.arms[0])


def after(program: Program, optimizer: Any, model: nn.Module, seed: int) -> dict[str, Tensor]:
    """The weights to ship after a loop by hand."""
    for step, indices in enumerate(program.task.train_indices(seed, 0, STEPS, 32)):
        torch.manual_seed(step_seeds(seed, step, step + 1)[0])
        x, y = program.task.batch(Split.TRAIN, torch.from_numpy(indices))
        optimizer.zero_grad()
        program.task.loss(model(x), y).backward()
        optimizer.step()
    with optimizer.averaged(model):
        return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_printed_code_and_the_optimizer_step_as_the_sweep(spoken: str) -> None:
    program, record = program_of(spoken)
    found = best(record)
    sweep = Run(program, [Trial(found.hyper, seed=3)], Silent())  # type: ignore[arg-type]
    sweep.advance(STEPS)

    model = program.model(3)
    names: dict[str, Any] = {"model": model}
    exec(str(found), names)
    copied = after(program, names["optimizer"], model, 3)
    model = program.model(3)
    called = after(program, found.optimizer(model), model, 3)
    for name, value in sweep.shown([0]).weights.items():
        assert torch.equal(copied[name], called[name]), name
        assert torch.allclose(copied[name], value, rtol=1e-5, atol=1e-6), name


def test_what_is_printed_says_only_what_differs_from_the_defaults() -> None:
    code = best(program_of(SPOKEN[0])[1]).code()
    assert (
        code
        == """# charlm + x: validation loss 1
# in runs of 5 steps of 32 samples
import optsweep

optimizer = optsweep.optim.for_model(
    model,
    "soap",
    lr=0.0123456789,
    weight_decay=0.01,
    averaging="schedule_free",
    clip_norm=0.5,
    groups={"0.*": {"lr_factor": 0.5}, "*.bias": {"weight_decay": 0.0}},
    schedule="constant",
    total_steps=5,
    warmup_steps=1,
)
# evaluate and save inside `with optimizer.averaged(model, batches):`
"""
    )
    assert "# after every evaluation: optimizer.observe(val_loss)\n" in best(program_of(SPOKEN[-1])[1]).code()


def test_a_run_of_another_length_keeps_the_share_of_warm_up() -> None:
    found = best(program_of("adamw + cosine + warmup.steps=0.4")[1])
    assert "total_steps=5,\n    warmup_steps=2," in found.code()
    assert "total_steps=50,\n    warmup_steps=20," in found.code(steps=50)
    fixed = best(program_of("adamw + cosine + warmup.steps=3")[1])
    assert "total_steps=50,\n    warmup_steps=3," in fixed.code(steps=50)
    for steps, line in ((0, "steps: 0 is not allowed"), (True, "steps: True"), (2, r"steps=2: .* longer than the run")):
        with pytest.raises(UserError, match=line):
            fixed.code(steps=steps)


def test_what_the_library_lacks_is_said_and_the_numbers_are_printed() -> None:
    record = program_of("external + optimizer._target_=torch.optim.Adagrad")[1]
    with pytest.raises(UserError, match=r"Adagrad is no rule of optsweep's: call it yourself, with lr=0.012"):
        best(record).optimizer(nn.Linear(2, 2))
    assert "#   lr = 0.0123456789\n" in str(best(record))
    assert "don't say how charlm + x was configured" in str(best(replace(record, config="")))
    suggested = replace(program_of("adamw + step + schedule.step_size=suggested")[1], optimizer=OptimizerTerms())
    assert "don't say what schedule.step_size=suggested was" in str(best(suggested))


def test_suggested_options_are_those_of_the_sweep() -> None:
    program, record = program_of("adamw + step + schedule.step_size=suggested")
    assert record.optimizer.schedule_options == {"step_size": program.schedule.options["step_size"]}
    assert f'"step_size": {program.schedule.options["step_size"]!r}' in str(best(record))


def test_groups_that_a_loop_gives_its_optimizer_are_part_of_it() -> None:
    def grouped(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model, groups={"*.bias": {"weight_decay": 0}}, heads=("2",))
        for step, batch in trial.batches(loader()):
            stepped(model, optimizer, batch)
            if trial.rung(step):
                told(trial, model)
        finish(trial, model)

    terms = optimizer_terms(arm_of(SPOKEN[0]), program(Loop(grouped, steps=STEPS), num_steps=STEPS))
    assert (terms.groups, terms.heads) == ({"*.bias": {"weight_decay": 0.0}}, ("2",))


# -- of several searches -----------------------------------------------------------------------------------------------


def chosen(lr: float, mean: float, **choices: Any) -> Chosen:
    return Chosen({"lr": lr}, mean, 2, {}, {}, (), choices)


def searched(losses: Mapping[int, float | None], *found: Chosen | None) -> ArmRecord:
    """An arm whose search n ended on `found[n]`; confirm losses by seed index."""
    record = program_of(SPOKEN[0])[1]
    trials = tuple(hand.trial(record.name, seed, loss, None) for seed, loss in losses.items())
    return replace(record, chosen=found[0], chosen_again=found[1:], trials=trials)


SECOND = SEEDS_PER_REPEAT
PLAN: Any = {"search": SearchTerms(trials=4), "confirm": ConfirmTerms(seeds=1), "repeats": 3}


def test_the_best_is_that_of_the_search_whose_confirm_trials_end_lowest() -> None:
    three = (chosen(1e-3, 1.0), chosen(2e-3, 3.0), chosen(4e-3, 2.0))
    found = best(searched({0: 2.0, SECOND: 1.0, 2 * SECOND: None}, *three), **PLAN)
    assert found.hyper["lr"] == 2e-3
    assert [setting["lr"] for setting in found.settings] == [1e-3, 2e-3, 4e-3]
    assert found.losses == (2.0, 1.0, math.inf)
    assert found.provisional == ""
    assert "chosen by search 2 of 3, validation loss 1\n" in str(found)


def test_before_all_is_there_it_is_provisional() -> None:
    unconfirmed = best(searched({}, chosen(1e-3, 1.5), chosen(2e-3, 1.2)), **PLAN)
    assert unconfirmed.hyper["lr"] == 2e-3
    assert unconfirmed.provisional == "no confirm trial has ended yet"
    assert "# provisional: no confirm trial has ended yet\n" in str(unconfirmed)
    one = best(searched({0: 2.0}, chosen(1e-3, 1.5), chosen(2e-3, 1.2)), **PLAN)
    assert one.hyper["lr"] == 1e-3, "what is confirmed goes before what a search hopes"
    assert one.provisional == "1 of 3 searches is complete"
    with pytest.raises(UserError, match=r"charlm \+ x has no chosen setting: its search has 0 of 4 trials"):
        best(searched({}, None), **PLAN)


def test_what_else_was_searched_is_in_it() -> None:
    keys = {"trainer.clip_norm": 0.25, "task.width": 8.0}
    found = best(searched({0: 2.0}, chosen(1e-3, 1.0, **keys)), **PLAN)
    assert found.hyper["task.width"] == 8.0
    assert "clip_norm=0.25" in found.code()
    assert "# in runs of 5 steps of 32 samples, task.width=8.0\n" in found.code()
    assert isinstance(found.optimizer(nn.Sequential(nn.Linear(2, 2))), SOAP.__mro__[1])
