"""The rules as torch optimizers: what torch.optim promises."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drive import LAYOUT, ROLES, SHAPES, RuleEntry, noisy, registry
from leaves import SCHEDULE, STEPS, Leaves, shipped, train
from optsweep.errors import UserError
from optsweep.optim import LAMB, SGD, SOAP, Adam, AdamW, Momentum, for_model
from optsweep.optim.family import AVERAGINGS, FAMILY
from optsweep.optim.schedules import Schedule
from optsweep.optim.torch_optimizer import RowOptimizer

ENTRIES = registry()

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=str)
every_averaging = pytest.mark.parametrize("averaging", AVERAGINGS)


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


@pytest.mark.parametrize("averaging", ["none", "schedule_free"])
def test_a_closure_is_the_steps_before_it(averaging: str) -> None:
    model, twin = Leaves(), Leaves()
    optimizer = AdamW(model.groups(), lr=1e-2, averaging=averaging)
    calls: list[bool] = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        model.backward(len(calls) - 1)
        return torch.tensor(float(len(calls)))

    losses = [optimizer.step(closure).item() for _ in range(4)]
    assert calls == [True] * 4  # once a step, with gradients
    assert losses == [1.0, 2.0, 3.0, 4.0]
    assert torch.equal(model.row(), train(twin, AdamW(twin.groups(), lr=1e-2, averaging=averaging), 0, 4))
    with optimizer.averaged(model), pytest.raises(UserError, match=r"inside averaged\(\)"):
        optimizer.step(closure)
    assert len(calls) == 4
    model.zero_grad()
    assert SGD(model.groups(), lr=1e-2).step(lambda: None) is None  # a step without a gradient is none


def test_training_goes_on_after_a_look_in_inference_mode() -> None:
    model, twin = Leaves(dtype=torch.float32), Leaves(dtype=torch.float32)
    optimizer = AdamW(model.groups(), lr=1e-2, averaging="ema")
    train(model, optimizer, 0, 3)
    model.double()
    with torch.inference_mode():
        shipped(model, optimizer)  # the model was moved, so rows are made anew here
    other = AdamW(twin.groups(), lr=1e-2, averaging="ema")
    train(twin, other, 0, 3)
    twin.double()
    assert torch.equal(train(model, optimizer, 3, 3), train(twin, other, 3, 3))


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
