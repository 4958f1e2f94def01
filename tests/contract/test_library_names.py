"""The rules as torch optimizers: their names, who gets which parameter, and mistakes."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import optsweep
from drive import registry
from leaves import Leaves, train
from optsweep.errors import UserError
from optsweep.optim import SGD, SOAP, Adam, AdamW, Muon, for_model, optimizer_of, sgd
from optsweep.optim.composition import Composition
from optsweep.optim.family import FAMILY, RULES
from optsweep.optim.layout import Layout, layout_of, parameter_roles
from optsweep.optim.torch_optimizer import RowOptimizer

ENTRIES = registry()


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
