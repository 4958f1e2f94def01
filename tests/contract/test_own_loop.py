"""A loop of the user's is trained, scored and judged as optsweep's own loop over the same model and data."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optsweep.errors import UserError
from optsweep.optim.adam import AdamW
from optsweep.optim.averaging import EMA
from optsweep.optim.external import ExternalComposition
from optsweep.optim.iterate import Iterate, Last
from optsweep.optim.rule import Rule
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.soap import SOAP
from optsweep.tasks.base import Split
from optsweep.tasks.pieces import Pieces
from optsweep.train.loop import train_all
from optsweep.train.own.loop import Loop
from optsweep.train.own.losses import TOGETHER, Losses
from optsweep.train.own.program import time_loop, train_loop
from optsweep.train.own.running import RunningTrial
from optsweep.train.program import Program
from optsweep.train.run import Silent
from optsweep.train.trial import End, Trial
from own_loops import (
    CLASSES,
    HYPER,
    INPUTS,
    TEST,
    TRAIN,
    VAL,
    Told,
    finish,
    loader,
    outcome,
    program,
    stepped,
    told,
    train,
)
from own_pieces import net

COSINE = Schedule("cosine", {}, "linear", 3)
PLAIN = Schedule("schedule_free", {}, "none", 0)
KINDS = [
    (AdamW(), Last(), COSINE),
    (AdamW(), ScheduleFree(), PLAIN),
    (AdamW(), EMA(), COSINE),
    (SOAP(), Last(), COSINE),
    (SOAP(), ScheduleFree(), PLAIN),
]


@pytest.mark.parametrize(("rule", "iterate", "schedule"), KINDS)
def test_the_numbers_are_those_of_our_loop(rule: Rule, iterate: Iterate, schedule: Schedule) -> None:
    task = Pieces(
        net, (INPUTS[TRAIN], CLASSES[TRAIN]), (INPUTS[VAL], CLASSES[VAL]), (INPUTS[TEST], CLASSES[TEST]), batch_size=16
    )

    def same(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        order = task.train_indices(trial.seed, 0, trial.steps, trial.batch_size)
        for step in range(1, trial.steps + 1):
            rows = torch.from_numpy(order[step - 1])
            trial.log(train_loss=stepped(model, optimizer, (INPUTS[TRAIN][rows], CLASSES[TRAIN][rows])))
            if trial.rung(step):
                told(trial, model)
        finish(trial, model)

    hyper = {"lr": 1e-2, "weight_decay": 0.1}
    hyper |= {name: domain.default for name, domain in {**rule.floats, **iterate.floats}.items()}
    ours = Program(
        task=task,
        build_update=program(Loop(same), iterate.prepare(rule) and rule, iterate).build_update,
        schedule=schedule,
        num_steps=12,
        batch_size=16,
        num_rungs=2,
        log_every=3,
    )
    mine, theirs = Told(), Told()
    (expected,) = train_all(ours, [Trial(hyper, seed=1, test=True)], mine)
    found = outcome(same, hyper=hyper, observer=theirs, rule=rule, iterate=iterate, schedule=schedule)
    for key in ("val_loss", "val_score", "test_loss", "test_score"):
        assert vars(found)[key] == pytest.approx(vars(expected)[key], rel=1e-5), key
    assert [rung.step for rung in theirs.rungs] == [rung.step for rung in mine.rungs if rung.step]
    ours_points = [point for rung in mine.rungs for point in rung.points]
    own_points = [point for rung in theirs.rungs for point in rung.points]
    for one, other in zip(ours_points, own_points, strict=True):
        assert other == pytest.approx(one, rel=1e-3)


def test_losses_of_any_number_of_steps_are_few_tensors() -> None:
    losses = Losses()
    for step in range(2 * TOGETHER + 3):
        losses.add(step, torch.tensor(float(step)) if step % 2 else float(step))
    assert (len(losses._together), len(losses._loose)) == (2, 3)
    steps, values = losses.take()
    assert steps == values == list(range(2 * TOGETHER + 3))
    assert losses.take() == ([], [])


def test_a_trial_is_a_function_of_its_seed() -> None:
    def numbers(seed: int) -> tuple[float, float | None]:
        torch.manual_seed(random.randrange(1000))
        found = outcome(train, seed=seed, loop={"options": {"dropout": 0.3}})
        return found.val_loss, found.test_loss

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)


def test_evaluations_leave_no_trace() -> None:
    def looking(trial: RunningTrial) -> None:
        model = nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(4), net())
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            stepped(model, optimizer, batch)
            if often:
                with trial.evaluating(model):
                    model(torch.randn(3, 4))
            if trial.rung(step):
                told(trial, model)
        finish(trial, model)

    often = False
    once = outcome(looking)
    often = True
    assert outcome(looking).val_loss == once.val_loss


def test_what_is_found_by_rehearsal() -> None:
    loop = Loop(train, batch_size=16)
    assert (loop.metric, loop.higher_is_better, loop.tests) == ("accuracy", True, True)
    assert loop.size(Split.TRAIN) == 120
    assert loop.size(Split.TEST) is None
    assert loop.facts.architecture == "mlp"
    assert list(loop.notes) == []
    assert program(loop).num_parameters == sum(p.numel() for p in net().parameters())


def test_without_a_metric_the_loss_stands_for_one() -> None:
    def bare(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            stepped(model, optimizer, batch)
            if trial.rung(step):
                trial.report(val_loss=F.cross_entropy(model(INPUTS[VAL]), CLASSES[VAL]))
        trial.finish()

    loop = Loop(bare, batch_size=16)
    assert not loop.higher_is_better
    (note,) = loop.notes
    assert "rests on the validation data" in note
    found = outcome(bare)
    assert found.val_score == found.val_loss == found.test_loss


def test_two_networks_are_trained_by_the_arm_together() -> None:
    counts: dict[str, object] = {}

    def adversarial(trial: RunningTrial) -> None:
        generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
        second = trial.optimizer(critic, steps=2 * trial.steps)
        first = trial.optimizer(generator, groups={"bias": {"lr_factor": 0.5}})
        for step, (real, _) in trial.batches(loader()):
            for _ in range(2):
                fake = generator(torch.randn(len(real), 2)).detach()
                second.zero_grad()
                (critic(fake).mean() - critic(real).mean() + critic.weight.square().sum()).backward()
                second.step()
            first.zero_grad()
            (-critic(generator(torch.randn(len(real), 2))).mean()).backward()
            first.step()
            if trial.rung(step):
                with trial.evaluating(generator):
                    trial.report(val_loss=generator(torch.randn(50, 2)).square().mean())
        counts["steps"] = first.steps, second.steps
        counts["lr"] = [group["peak_lr"] for group in first.param_groups]
        trial.finish(test_loss=0.0)

    heard = Told()
    assert outcome(adversarial, observer=heard).end is End.FINISHED
    assert [point.step for rung in heard.rungs for point in rung.points] == [3, 6, 9, 12]
    assert counts == {"steps": (12, 24), "lr": [0.01, 0.005]}


def test_pruned_in_spite_of_a_loop_that_catches_everything() -> None:
    steps = []

    def catching(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            try:
                stepped(model, optimizer, batch)
                if trial.rung(step):
                    told(trial, model)
            except Exception:
                steps.append(step)

    found = outcome(catching, prune_above={6: 0.0})
    assert (found.end, found.step, found.test_loss) == (End.PRUNED, 6, None)
    assert not steps


def test_a_loss_that_is_no_number_is_divergence() -> None:
    def wild(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            stepped(model, optimizer, batch)
            if trial.rung(step):
                trial.report(val_loss=float("nan") if not trial.rehearsal else 1.0)

    found = outcome(wild)
    assert (found.end, found.step) == (End.DIVERGED, 6)


def test_what_an_observer_raises_leaves_a_loop_that_catches_everything() -> None:
    class Interrupting(Told):
        def on_rung(self, key: int, rung: Any) -> None:
            raise RuntimeError("the sweep was stopped")

    def catching(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            try:
                stepped(model, optimizer, batch)
                if trial.rung(step):
                    told(trial, model)
            except Exception:
                pass

    with pytest.raises(RuntimeError, match="the sweep was stopped"):
        outcome(catching, observer=Interrupting())


def test_a_step_is_timed_without_the_evaluation() -> None:
    asked = []

    def listening(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        for step, batch in trial.batches(loader()):
            stepped(model, optimizer, batch)
            asked.append(trial.rung(step))
            if asked[-1]:
                told(trial, model)

    built = program(Loop(listening, steps=12))
    asked.clear()
    assert time_loop(built, Trial(HYPER, seed=0), 4) > 0
    assert asked == [False] * 7  # the eighth step is the last


def test_generators_of_a_loader_are_seeded_too() -> None:
    orders: list[list[Tensor]] = []

    def ordered(trial: RunningTrial) -> None:
        model = net()
        optimizer = trial.optimizer(model)
        own = loader()
        own.sampler.generator = torch.Generator()  # type: ignore[attr-defined]
        orders.append([])
        for step, batch in trial.batches(own):
            orders[-1].append(batch[0][0])
            stepped(model, optimizer, batch)
            if trial.rung(step):
                told(trial, model)
        finish(trial, model)

    for seed in (1, 1, 2):
        outcome(ordered, seed=seed)
    first, again, other = (torch.stack(rows) for rows in orders if len(rows) == 12)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:5], first[7:])  # epochs of seven batches


def test_any_optimizer_of_torch_in_a_loop_of_one_s_own() -> None:
    hyper = {"lr": 1e-2, "weight_decay": 0.1}
    options = {"betas": (0.9, 0.99), "eps": 1e-8}
    external = ExternalComposition(cls=torch.optim.AdamW, kwargs=options, schedule=COSINE, num_steps=12, clip_norm=0.5)
    ours = program(Loop(train, steps=12), schedule=COSINE)
    theirs = replace(ours, composition=external)
    ours = replace(ours, composition=replace(ours.composition, clip_norm=0.5))
    found = train_loop(theirs, Trial(hyper, seed=1, test=True), Silent())
    expected = train_loop(ours, Trial({**HYPER, **hyper}, seed=1, test=True), Silent())
    assert found.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
    assert found.test_loss == pytest.approx(expected.test_loss, rel=1e-5)
    assert found.state_bytes > expected.state_bytes / 2


def test_an_external_optimizer_can_t_lose_its_state_unnoticed() -> None:
    def rarely(trial: RunningTrial) -> None:
        first, second = nn.Linear(4, 2), nn.Linear(4, 2)
        optimizer = trial.optimizer(nn.ModuleList([first, second]))
        for step, (inputs, classes) in trial.batches(loader()):
            outputs = first(inputs) if step % 3 == 0 else first(inputs) + second(inputs)
            optimizer.zero_grad()
            F.cross_entropy(outputs, classes).backward()
            optimizer.step()
            if trial.rung(step):
                trial.report(val_loss=1.0)

    external = ExternalComposition(cls=torch.optim.AdamW, schedule=COSINE, num_steps=12)
    built = replace(program(Loop(rarely, steps=12)), composition=external)
    with pytest.raises(UserError, match=r"the state of 1\.weight is of another optimizer"):
        train_loop(built, Trial({"lr": 1e-2, "weight_decay": 0.0}, seed=1), Silent())
