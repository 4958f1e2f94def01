"""The rules as torch optimizers: step by step the sweep's numbers, and what torch.optim promises."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optsweep
from drive import LAYOUT, LAYOUT_DECAY_ALL, ROLES, SHAPES, RuleEntry, defaults, noisy, registry, run, start
from kinds import BatchNorm, Experts, Plain
from optsweep.errors import UserError
from optsweep.optim import LAMB, SGD, SOAP, Adam, AdamW, Momentum, Muon, for_model, optimizer_of, sgd
from optsweep.optim.composition import Composition
from optsweep.optim.family import AVERAGINGS, FAMILY, RULES
from optsweep.optim.iterate import Iterate
from optsweep.optim.layout import Layout, flatten, layout_of, parameter_roles
from optsweep.optim.schedules import Schedule
from optsweep.optim.torch_optimizer import RowOptimizer
from optsweep.optim.update import Decay, Update
from optsweep.tasks.base import Split, Task
from optsweep.train.program import Program
from optsweep.train.randomness import step_seeds
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Trial

STEPS = 34
ENTRIES = registry()
SCHEDULE = Schedule("cosine", {}, "linear", 5)

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=str)
every_averaging = pytest.mark.parametrize("averaging", AVERAGINGS)


class Leaves(nn.Module):
    """The parameters of the tests' layout, starting where its row does, with gradients that are a function of them."""

    def __init__(self, layout: Layout = LAYOUT, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.layout = layout
        views = {name: view[0].clone() for name, view in layout.views(start(layout, dtype=dtype))}
        for name in SHAPES:
            self.register_parameter(name, nn.Parameter(views[name]))
        self.gradient = noisy(layout)

    def row(self) -> Tensor:
        parameters = dict(self.named_parameters())
        return flatten(self.layout, parameters, dtype=next(self.parameters()).dtype, device=torch.device("cpu"))

    def backward(self, step: int, *, without: tuple[str, ...] = ()) -> None:
        grads = dict(self.layout.views(self.gradient(step, self.row())))
        for name, parameter in self.named_parameters():
            parameter.grad = None if name in without else grads[name][0].to(parameter.dtype)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.named_parameters()), "roles": [ROLES[name] for name in SHAPES]}]


def train(model: Leaves, optimizer: torch.optim.Optimizer, first: int = 0, steps: int = STEPS) -> Tensor:
    for step in range(first, first + steps):
        model.backward(step)
        optimizer.step()
    return model.row()


def shipped(model: Leaves, optimizer: torch.optim.Optimizer) -> Tensor:
    assert isinstance(optimizer, RowOptimizer)
    with optimizer.averaged(model):
        return model.row()


def reference(
    entry: RuleEntry, averaging: str, decay: Decay, layout: Layout = LAYOUT, clip_norm: float | None = None
) -> tuple[Tensor, Tensor]:
    """The row and the weights to ship, as the sweep's update has them."""
    iterate: Iterate = AVERAGINGS[averaging]()
    update = Update(entry.rule(), layout, decay=decay, clip_norm=clip_norm, iterate=iterate)
    hyper = defaults(update.floats, weight_decay=0.1)
    row, state, c = run(update, [hyper], num_steps=STEPS, multipliers=SCHEDULE.multipliers(STEPS, STEPS))
    return row, update.weights(row, state, c)


# -- the sweep's numbers -------------------------------------------------------------------------------------------


@every_entry
@every_averaging
@pytest.mark.parametrize("decay", list(Decay))
def test_every_rule_decay_and_averaging_steps_as_in_the_sweep(entry: RuleEntry, averaging: str, decay: Decay) -> None:
    if decay in entry.cls.refused_decays:
        pytest.skip("refused")
    options: dict[str, Any] = {"averaging": averaging, "schedule": SCHEDULE, "total_steps": STEPS, **entry.static}
    model = Leaves()
    optimizer = FAMILY[entry.name](model.groups(), lr=1e-2, weight_decay=0.1, decay_mode=str(decay), **options)
    row = train(model, optimizer)
    expected, weights = reference(entry, averaging, decay)
    assert torch.equal(row, expected)
    assert torch.equal(shipped(model, optimizer), weights)
    assert torch.equal(model.row(), expected)  # looking has changed nothing


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name in ("adamw", "soap")], ids=str)
def test_decay_of_all_and_clipping_are_the_sweeps(entry: RuleEntry) -> None:
    model = Leaves(LAYOUT_DECAY_ALL)
    options: dict[str, Any] = {"schedule": SCHEDULE, "total_steps": STEPS, "decay_apply_to": "all", "clip_norm": 0.5}
    optimizer = FAMILY[entry.name](model.groups(), lr=1e-2, weight_decay=0.1, **options)
    expected, _ = reference(entry, "none", Decay.DECOUPLED, LAYOUT_DECAY_ALL, clip_norm=0.5)
    assert torch.equal(train(model, optimizer), expected)


def program_of(task: Task, rule: str, averaging: str) -> Program:
    def build(layout: Layout) -> Update:
        return Update(RULES[rule](), layout, decay=Decay.DECOUPLED, iterate=AVERAGINGS[averaging]())

    return Program(task, build, SCHEDULE, STEPS, batch_size=32)


def batches(program: Program, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step, indices in enumerate(program.task.train_indices(seed, 0, STEPS, 32)):
        torch.manual_seed(step_seeds(seed, step, step + 1)[0])
        yield program.task.batch(Split.TRAIN, torch.from_numpy(indices))


@pytest.mark.parametrize("task", [Plain(), Experts()], ids=["plain", "experts"])
@pytest.mark.parametrize(("rule", "averaging"), [("soap", "schedule_free"), ("adamw", "ema"), ("lamb", "none")])
def test_a_loop_by_hand_trains_as_the_sweeps_loop(task: Task, rule: str, averaging: str) -> None:
    program = program_of(task, rule, averaging)
    hyper = defaults(program.build_update(program.layout).floats, weight_decay=0.1)
    trial = Trial(hyper, seed=3)
    missing = {name for name, _ in program.model(3).named_parameters()} if isinstance(task, Experts) else set()
    sweep = Run(program, [trial], Silent(), rare=missing)
    sweep.advance(STEPS)

    model = program.model(3)
    options: dict[str, Any] = {"weight_decay": 0.1, "averaging": averaging}
    optimizer = for_model(model, rule, lr=hyper["lr"], schedule=SCHEDULE, total_steps=STEPS, **options)
    for x, y in batches(program, 3):
        optimizer.zero_grad()
        task.loss(model(x), y).backward()
        optimizer.step()
    ours, theirs = optimizer.averaged_state_dict(model), sweep._weights()
    for name in theirs:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6), name


def test_batch_norm_is_recomputed_and_put_back() -> None:
    torch.manual_seed(0)
    model = BatchNorm().model()
    optimizer = for_model(model, "adamw", lr=1e-2, averaging="ema", ema_decay=0.9)
    inputs = [torch.randn(16, 4) for _ in range(20)]
    for x in inputs:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.get_rng_state()

    def look(batches: Any = None) -> None:
        with optimizer.averaged(model, batches):
            first, norm = model.get_submodule("0"), model.get_submodule("1")
            assert isinstance(norm, nn.BatchNorm1d)
            assert norm.running_mean is not None
            assert not model.training
            with torch.no_grad():
                means = torch.stack([first(x).mean(0) for x in inputs[:16]]).mean(0)
            assert torch.allclose(norm.running_mean, means, atol=1e-5)
            assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])
            with pytest.raises(UserError, match="step outside"):
                optimizer.step()
            raise KeyError("mine")

    with pytest.raises(UserError, match="1 has batch-norm statistics of other weights; give batches"):
        look()
    with pytest.raises(KeyError, match="mine"):
        look([(x, 0) for x in inputs])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), noise)
    kept = optimizer.averaged_state_dict(model, ())
    assert torch.equal(kept["1.running_mean"], before["1.running_mean"])


def test_looking_at_the_average_changes_nothing() -> None:
    def end(looks: int) -> Tensor:
        model = Leaves()
        optimizer = SOAP(model.groups(), lr=1e-2, averaging="schedule_free", weight_decay=0.1)
        for step in range(STEPS):
            train(model, optimizer, step, 1)
            for _ in range(looks):
                shipped(model, optimizer)
        return model.row()

    assert torch.equal(end(0), end(2))


# -- torch.optim ---------------------------------------------------------------------------------------------------


@every_entry
@every_averaging
def test_a_state_dict_goes_on_in_a_fresh_object(entry: RuleEntry, averaging: str) -> None:
    def build(model: Leaves) -> RowOptimizer:
        return FAMILY[entry.name](model.groups(), lr=1e-2, weight_decay=0.1, averaging=averaging)

    whole = Leaves()
    optimizer = build(whole)
    train(whole, optimizer, 0, 15)
    file = io.BytesIO()
    torch.save((whole.state_dict(), optimizer.state_dict()), file)
    expected = train(whole, optimizer, 15, 15)

    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other = Leaves()
    other.load_state_dict(weights)
    resumed = build(other)
    resumed.load_state_dict(state)
    assert torch.equal(train(other, resumed, 15, 15), expected)
    assert torch.equal(shipped(other, resumed), shipped(whole, optimizer))


def test_averages_are_known_right_after_loading() -> None:
    for averaging in AVERAGINGS:
        model = Leaves()
        optimizer = AdamW(model.groups(), lr=1e-2, averaging=averaging)
        train(model, optimizer)
        resumed = AdamW(model.groups(), lr=1e-2, averaging=averaging)
        expected = shipped(model, optimizer)
        resumed.load_state_dict(optimizer.state_dict())
        assert torch.equal(shipped(model, resumed), expected)


def test_a_schedule_goes_on_after_loading() -> None:
    def build(model: Leaves) -> RowOptimizer:
        return AdamW(model.groups(), lr=1e-2, schedule=SCHEDULE, total_steps=STEPS)

    whole, half = Leaves(), Leaves()
    train(whole, build(whole))
    first = build(half)
    train(half, first, 0, 20)
    second = build(half)
    second.load_state_dict(first.state_dict())
    assert torch.equal(train(half, second, 20, STEPS - 20), whole.row())
    with pytest.raises(UserError, match="the schedule ends after total_steps=34"):
        train(half, second, 0, 1)


def test_a_pickled_optimizer_goes_on_with_its_own_copy() -> None:
    model = Leaves()
    optimizer = SOAP(model.parameters(), lr=1e-2)
    model.gradient = noisy(LAYOUT, pull=0.0)
    train(model, optimizer, 0, 12)
    copy = pickle.loads(pickle.dumps(optimizer))
    train(model, optimizer, 12, 12)
    for step in range(12, 24):
        model.backward(step)
        for ours, theirs in zip(copy.param_groups[0]["params"], model.parameters(), strict=True):
            ours.grad = theirs.grad
        copy.step()
    for ours, theirs in zip(copy.param_groups[0]["params"], model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_state_dict_of_another_optimizer_is_refused() -> None:
    model = Leaves()
    adam = Adam(model.groups(), lr=1e-2)
    train(model, adam, 0, 2)
    saved = adam.state_dict()
    saved["param_groups"] = LAMB(model.groups(), lr=1e-2, averaging="ema").state_dict()["param_groups"]
    with pytest.raises(UserError, match=r"the state of .* is of another optimizer or model: it has m"):
        LAMB(model.groups(), lr=1e-2, averaging="ema").load_state_dict(saved)
    theirs = torch.optim.Adam(model.parameters(), lr=1e-2)
    with pytest.raises(UserError, match="the state dict is of another optimizer; its groups have no peak_lr"):
        adam.load_state_dict(theirs.state_dict())
    with pytest.raises(UserError, match="the model has none of the optimizer's parameters"):
        adam.averaged_state_dict(Leaves())


def test_groups_have_learning_rates_and_decays_of_their_own() -> None:
    model = Leaves()
    named = list(model.named_parameters())
    settings = [{"lr": 1e-2, "weight_decay": 0.1}, {"lr": 3e-3, "weight_decay": 0.0, "beta1": 0.5}]
    groups = [{"params": named[i::2], **setting} for i, setting in enumerate(settings)]
    optimizer = AdamW(groups, lr=1.0, decay_apply_to="all")
    twin = Leaves()
    others = [p for _, p in twin.named_parameters()]
    theirs = torch.optim.AdamW(
        [
            {"params": others[::2], "lr": 1e-2, "weight_decay": 0.1},
            {"params": others[1::2], "lr": 3e-3, "weight_decay": 0.0, "betas": (0.5, 0.999)},
        ]
    )
    assert torch.allclose(train(model, optimizer), train(twin, theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("clip_norm", [None, 0.3])
def test_parameters_without_gradient_are_skipped_as_torch_skips_them(clip_norm: float | None) -> None:
    model, twin = Leaves(), Leaves()
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}
    first = AdamW(model.parameters(), decay_apply_to="all", clip_norm=clip_norm, **options)
    second = torch.optim.AdamW(twin.parameters(), **options)
    absent = {3: ("hidden1", "bias1"), 4: ("hidden1",), 9: ("embed",), 10: tuple(SHAPES)}
    for step in range(STEPS):
        without = ("stem",) if step < 5 else absent.get(step, ())
        for leaves in (model, twin):
            leaves.backward(step, without=without)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(twin.parameters(), clip_norm)
        first.step()
        second.step()
    assert torch.allclose(model.row(), twin.row(), rtol=0, atol=1e-12)


def test_soap_and_muon_go_on_with_rows_that_were_cut() -> None:
    for name in ("soap", "muon"):
        model = Leaves()
        optimizer = FAMILY[name](model.groups(), lr=1e-2, averaging="lawa")
        for step in range(25):
            model.backward(step, without=("hidden1", "embed") if step == 12 else ())
            optimizer.step()
        state = optimizer.state_dict()["state"]
        assert {entry["step"] for entry in state.values()} == {24, 25}
        alone = Leaves()
        groups = [{"params": [(n, p)], "roles": [ROLES[n]]} for n, p in alone.named_parameters()]
        separate = FAMILY[name](groups, lr=1e-2, averaging="lawa")
        for step in range(25):
            alone.backward(step, without=("hidden1", "embed") if step == 12 else ())
            separate.step()
        assert torch.allclose(model.row(), alone.row(), rtol=0, atol=1e-12)
        assert torch.allclose(shipped(model, optimizer), shipped(alone, separate), rtol=0, atol=1e-12)


def test_schedulers_of_torch_set_the_learning_rate() -> None:
    multipliers = SCHEDULE.multipliers(STEPS, STEPS).tolist()
    for averaging in ("none", "schedule_free"):
        model, twin = Leaves(), Leaves()
        options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, "decay_mode": "independent", "averaging": averaging}
        optimizer = Momentum(model.groups(), **options) if averaging == "none" else SGD(model.groups(), **options)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: multipliers[min(step, STEPS - 1)])
        for step in range(STEPS):
            train(model, optimizer, step, 1)
            scheduler.step()
        cls = Momentum if averaging == "none" else SGD
        expected = train(twin, cls(twin.groups(), schedule=SCHEDULE, total_steps=STEPS, **options))
        assert torch.allclose(model.row(), expected, rtol=0, atol=1e-12)


def test_a_scheduler_beside_a_schedule_is_refused() -> None:
    model = Leaves()
    optimizer = SGD(model.groups(), lr=1e-2, schedule="cosine", total_steps=STEPS)
    train(model, optimizer, 0, 3)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(UserError, match=r"has a schedule of its own, and something else has set lr=0\.5"):
        train(model, optimizer, 3, 1)


def test_plateau_listens() -> None:
    model = Leaves()
    schedule = Schedule("plateau", {"patience": 1, "factor": 0.1})
    optimizer = SGD(model.groups(), lr=1e-2, schedule=schedule, total_steps=STEPS)
    lrs = []
    for step in range(8):
        train(model, optimizer, step, 1)
        optimizer.observe(1.0)
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs[:2] == [1e-2, 1e-2]
    assert lrs[2] == pytest.approx(1e-3)
    resumed = SGD(model.groups(), lr=1e-2, schedule=schedule, total_steps=STEPS)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0]["lr"] == lrs[-1]


def test_automatic_mixed_precision_and_its_scaler() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = for_model(model, "soap", lr=1e-2)
    scaler = torch.amp.GradScaler("cpu")
    x = torch.randn(32, 4)
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (model(x) - x[:, :1]).square().mean()
        losses.append(loss.item())
        if step == 5:
            loss = loss * torch.inf
        weights = model.get_parameter("0.weight").detach().clone()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(model.get_parameter("0.weight"), weights) == (step == 5)
    assert losses[-1] < 0.75 * losses[0]


def test_a_model_of_several_dtypes() -> None:
    model = Leaves()
    for name, parameter in model.named_parameters():
        if name.startswith("hidden"):
            parameter.data = parameter.data.to(torch.bfloat16)
    optimizer = SOAP(model.groups(), lr=1e-2, clip_norm=1.0)
    train(model, optimizer)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes["hidden1"] is torch.bfloat16
    assert dtypes["embed"] is torch.float64
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_model_may_move_at_any_time() -> None:
    model, twin = Leaves(), Leaves()
    optimizer, other = AdamW(model.groups(), lr=1e-2), AdamW(twin.groups(), lr=1e-2)
    train(model, optimizer, 0, 5)
    train(twin, other, 0, 5)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # as Module.to does it
    model.load_state_dict(twin.state_dict())
    assert torch.equal(train(model, optimizer, 5, 5), train(twin, other, 5, 5))
    model.to(torch.float32)
    train(model, optimizer, 10, 5)
    assert torch.allclose(model.row().double(), train(twin, other, 10, 5), atol=1e-5)
    assert {t.dtype for s in optimizer.state.values() for t in s.values() if isinstance(t, Tensor)} == {torch.float32}


def test_a_compiled_step_is_the_plain_one() -> None:
    model, twin = Leaves(), Leaves()
    optimizer = AdamW(model.groups(), lr=1e-2)
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for number in range(3):
        model.backward(number)
        step()
    assert torch.equal(model.row(), train(twin, AdamW(twin.groups(), lr=1e-2), 0, 3))


def test_zero_elements_and_frozen_parameters_are_left_alone() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(0)), nn.Parameter(torch.ones(3))]
    parameters[2].requires_grad_(False)
    optimizer = SGD(parameters, lr=1.0)
    optimizer.step()
    for parameter in parameters[:2]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(parameters[0], torch.zeros(2, 2))
    assert torch.equal(parameters[2], torch.ones(3))


def test_the_docs_example_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["loss"].isfinite()


# -- names, routing, mistakes --------------------------------------------------------------------------------------


def test_the_family_is_the_configs_and_documents_itself() -> None:
    assert set(FAMILY) == {entry.name for entry in ENTRIES}
    for entry in ENTRIES:
        cls = getattr(optsweep.optim, entry.cls.__name__)
        assert cls is FAMILY[entry.name]
        text = pickle.loads(pickle.dumps(cls)).__doc__
        assert all(f"    {name}: " in text for name in (*entry.cls.floats, "lr", "averaging"))


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.first(self.embedding(x)).tanh()))
        return out


def test_for_model_routes_as_the_sweep_partitions() -> None:
    model = Language()
    optimizer = for_model(model, "muon", lr=1e-2, weight_decay=0.1)
    assert optimizer.notes == RULES["muon"]().notes(layout_of(model))
    assert optimizer.notes[0] == "muon, main: second.weight, first.weight"
    assert for_model(model, Muon, lr=1e-2, heads=["second"]).notes[0] == "muon, main: head.weight, first.weight"
    model(torch.arange(7)).sum().backward()
    optimizer.step()
    (row,) = optimizer._rows[0].rows
    assert row.layout == layout_of(model)
    assert parameter_roles(model).keys() == row.parameters.keys()


def test_a_rule_of_ones_own_is_an_optimizer_too() -> None:
    class Halved(sgd.SGD):
        """Half the gradient."""

        def rescale(self, direction: Tensor, params: Tensor, layout: Layout) -> Tensor:
            return 0.5 * direction

    parameter = nn.Parameter(torch.zeros(3))
    optimizer = optimizer_of(Halved)([parameter], lr=1.0)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(parameter, torch.full((3,), -0.5))


ONE = [nn.Parameter(torch.ones(2, 2))]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SOAP(ONE, lr=1e-3, beta_1=0.9), r"SOAP: there is no option beta_1 \(did you mean beta1\?\); known: "),
        (lambda: SOAP(ONE, lr=0.0), "SOAP: lr: 0.0 is not allowed; give a number > 0"),
        (lambda: SOAP(ONE, lr=1e-3, refresh=0), "SOAP: refresh must be 1 or more"),
        (lambda: SOAP(ONE, lr=1e-3, refresh=1.5), "SOAP: refresh: 1.5 is not allowed"),
        (lambda: Adam(ONE, lr=1e-3, beta2=1.0), "Adam: beta2=1.0 is not allowed; give 0 ≤ value < 1"),
        (lambda: Adam(ONE, lr=1e-3, weight_decay=-1), "Adam: weight_decay=-1 is not allowed"),
        (lambda: Adam([{"params": ONE, "beta_1": 0.5}], lr=1e-3), "did you mean 'beta1'"),
        (lambda: AdamW(ONE, lr=1e-3, weight_decay=0.1, decay_mode="l2"), "AdamW is Adam with decoupled decay"),
        (lambda: AdamW(ONE, lr=1e-3, decay_mode="L2"), "AdamW: decay_mode: 'L2' is not allowed; give one of none, l2"),
        (lambda: AdamW(ONE, lr=1e-3, averaging="swa"), "AdamW: averaging: 'swa' is not allowed; give one of none, sch"),
        (lambda: AdamW(ONE, lr=1e-3, window=3), "window is an option of averaging=lawa, and averaging is none"),
        (lambda: AdamW(ONE, lr=1e-3, averaging="schedule_free", beta1=0.8), "beta1 has no effect under schedule_free"),
        (lambda: AdamW(ONE, lr=1e-3, schedule="cosine"), "a schedule needs total_steps"),
        (lambda: AdamW(ONE, lr=1e-3, total_steps=3), "give schedule"),
        (lambda: AdamW(ONE, lr=1e-3, schedule="cosin", total_steps=3), "schedule=cosin doesn't exist"),
        (lambda: AdamW(ONE, lr=1e-3, schedule="schedule_free", total_steps=3), "give averaging=schedule_free"),
        (lambda: AdamW(ONE, lr=1e-3, warmup_steps=9, total_steps=3), "longer than the run of 3 steps"),
        (lambda: Muon(ONE, lr=1e-3), r"Muon treats embeddings and heads apart.*for_model\(model, 'muon'"),
        (lambda: Muon([{"params": ONE, "roles": "body"}], lr=1e-3), "roles: 'body' is none; there are hidden, conv"),
        (lambda: SGD([torch.ones(2, dtype=torch.complex64, requires_grad=True)], lr=1e-3), "only floating-point ones"),
        (
            lambda: SGD(ONE, lr=1e-3).step(lambda: 0.0),
            r"SGD\.step\(closure\): closures aren't supported; call backward",
        ),
        (lambda: for_model(nn.Linear(2, 2), "adamw_", lr=1e-3), "optimizer: 'adamw_' is not allowed"),
        (lambda: for_model(nn.Linear(2, 2), "muon", lr=1e-3), "no hidden matrices to orthogonalise"),
        (lambda: for_model(nn.Tanh(), "sgd", lr=1e-3), "Tanh has no trainable parameter"),
    ],
)
def test_a_mistake_is_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_a_sparse_gradient_is_refused() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = SGD(embedding.parameters(), lr=1e-3)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="sparse gradient"):
        optimizer.step()


def test_a_number_changed_on_the_way_is_checked() -> None:
    model = Leaves()
    optimizer = Adam(model.groups(), lr=1e-2)
    train(model, optimizer, 0, 2)
    optimizer.param_groups[0]["beta1"] = 1.5
    with pytest.raises(UserError, match=r"beta1=1\.5 is not allowed"):
        train(model, optimizer, 2, 1)


def test_composition_is_shared_by_all_groups() -> None:
    model = Leaves()
    composition = Composition(RULES["sgd"]())
    optimizer = RowOptimizer(model.groups(), composition, {"lr": 1.0})
    assert optimizer.composition is composition
