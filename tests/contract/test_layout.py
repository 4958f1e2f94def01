"""Where parameters lie and what they are taken for: roles, tied and parametrised ones, those without elements."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from drive import LAYOUT, ROLES, SHAPES, RuleEntry, defaults, registry, run, start
from optsweep.optim.external import ExternalUpdate
from optsweep.optim.layout import Layout, Role, layout_of, parameter_roles
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import Schedule
from optsweep.optim.update import Decay, Update
from optsweep.tasks.base import Facts, Split, Task
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.trial import End, Trial

EMPTY = {"no_rows": (0, 4), "no_columns": (4, 0), "no_kernel": (4, 0, 2, 2), "nothing": (0,)}
EMPTY_ROLES = {"no_rows": Role.HIDDEN, "no_columns": Role.EMBEDDING, "no_kernel": Role.CONV, "nothing": Role.VECTOR}
WITH_EMPTY = Layout.build({**EMPTY, **SHAPES}, {**EMPTY_ROLES, **ROLES})

every_entry = pytest.mark.parametrize("entry", registry(), ids=str)


def gradient(layout: Layout) -> Any:
    """A gradient of each parameter by its name, so that it doesn't depend on the layout."""

    def of(step: int, params: Tensor) -> Tensor:
        grads = torch.zeros_like(params)
        for name, view in layout.views(grads):
            generator = torch.Generator().manual_seed(1000 * step + sum(name.encode()))
            view.copy_(torch.randn(view.shape[1:], generator=generator, dtype=params.dtype))
        return grads

    return of


@every_entry
def test_parameters_without_elements_change_nothing(entry: RuleEntry) -> None:
    ends = []
    for layout in (LAYOUT, WITH_EMPTY):
        update = Update(entry.rule(), layout, decay=Decay.DECOUPLED, clip_norm=1.0, iterate=ScheduleFree())
        hypers = [defaults(update.floats, weight_decay=0.1, lr=1e-2 * (k + 1)) for k in range(2)]
        params, _, _ = run(
            update, hypers, num_steps=12, params=torch.ones_like(start(layout, 2)), gradient=gradient(layout)
        )
        ends.append(dict(layout.views(params)))
    assert ends[0].keys() == ends[1].keys()
    for name, end in ends[0].items():
        assert torch.equal(end, ends[1][name]), name


@every_entry
def test_scalars_train_under_every_rule(entry: RuleEntry) -> None:
    shapes: dict[str, tuple[int, ...]] = {"scale": (), "temperature": (), "hidden": (4, 4)}
    layout = Layout.build(shapes, {"scale": Role.VECTOR, "temperature": Role.VECTOR, "hidden": Role.HIDDEN})
    update = Update(entry.rule(), layout)
    before = torch.ones(2, layout.size, dtype=torch.float64)
    after, _, _ = run(update, [defaults(update.floats)] * 2, num_steps=11, params=before, gradient=gradient(layout))
    for name, view in layout.views(after):
        assert torch.isfinite(view).all(), name
        assert (view != 1).all(), name


class Scaled(nn.Module):
    """A linear map with a scalar, and a table that nothing is in."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(0, 3))
        self.linear = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.scale * self.linear(torch.cat([inputs, self.extra]))
        return outputs


class Lines(Task):
    """Twice the input."""

    facts = Facts("linear", "simple", 8)
    metric, higher_is_better, head_modules = "error", False, ("none",)
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 3))).float()

    def model(self) -> nn.Module:
        return Scaled()

    def size(self, split: Split) -> int:
        return 8

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs[indices], 2 * self.inputs[indices]

    def to(self, device: torch.device) -> None:
        pass

    def digest(self) -> str:
        return "lines"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("name", ["soap", "muon", "lamb", "external"])
def test_a_model_with_a_parameter_without_elements_is_not_accused_of_leaving_the_arena(name: str, lanes: int) -> None:
    rules = {entry.name: entry.rule() for entry in registry()}

    def build(layout: Layout) -> Update | ExternalUpdate:
        if name == "external":
            return ExternalUpdate(torch.optim.Adam, {}, layout)
        return Update(rules[name], layout)

    program = Program(Lines(), build, Schedule(), num_steps=20, batch_size=8, num_rungs=2, vmapped=lanes > 1)
    hyper = defaults(build(program.layout).floats, lr=0.03)
    outcomes = train_all(program, [Trial(hyper, seed=seed) for seed in range(lanes)])
    untrained = train_all(program, [Trial({**hyper, "lr": 1e-12}, seed=seed) for seed in range(lanes)])
    for end, begin in zip(outcomes, untrained, strict=True):
        assert end.end is End.FINISHED
        assert end.val_loss < 0.95 * begin.val_loss


# -- roles -------------------------------------------------------------------------------------------------------------


class BagNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(10, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.words.weight


def test_an_embedding_bag_is_an_embedding_and_so_is_what_is_tied_to_it() -> None:
    roles = parameter_roles(BagNetwork())
    assert roles == {"words.weight": Role.EMBEDDING, "hidden.weight": Role.HIDDEN, "hidden.bias": Role.VECTOR}
    layout = layout_of(BagNetwork())
    assert next(slot for slot in layout.slots if slot.name == "words.weight").offset >= layout.decayed


def test_a_head_is_known_by_each_of_its_names() -> None:
    class TwoNames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 3)])
            self.output = self.layers[1]

    assert parameter_roles(TwoNames(), ["output"])["layers.1.weight"] is Role.HEAD
    assert parameter_roles(TwoNames(), ["output"])["layers.2.weight"] is Role.HIDDEN


def test_a_parametrised_weight_is_what_it_would_be_without() -> None:
    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Embedding(7, 4), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1), nn.Linear(4, 4), nn.Linear(4, 3)
        )

    plain = parameter_roles(network())
    module = network()
    for i in range(5):
        parametrizations.spectral_norm(module[i])
    assert {
        n.replace("parametrizations.weight.original", "weight"): r for n, r in parameter_roles(module).items()
    } == plain
    module = network()
    for i in range(5):
        parametrizations.weight_norm(module[i])
    roles = parameter_roles(module)
    for i in range(5):
        assert roles[f"{i}.parametrizations.weight.original1"] is plain[f"{i}.weight"]
    assert roles["1.parametrizations.weight.original0"] is roles["4.parametrizations.weight.original0"] is Role.VECTOR
    layout = layout_of(module)
    magnitude = next(slot for slot in layout.slots if slot.name == "3.parametrizations.weight.original0")
    assert magnitude.offset >= layout.decayed


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)), [Role.HEAD, Role.CONV, Role.HEAD]),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)),
            [Role.HEAD, Role.HEAD, Role.CONV, Role.HEAD],
        ),
        (
            nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 3, groups=4), nn.Linear(4, 2)),
            [Role.HEAD, Role.HEAD, Role.HEAD],
        ),
        (nn.LSTM(3, 4), [Role.HIDDEN, Role.HIDDEN]),
        (nn.Sequential(nn.Linear(4, 4), nn.AdaptiveLogSoftmaxWithLoss(4, 9, [3])), [Role.HIDDEN, *[Role.HEAD] * 3]),
        (
            nn.ParameterList([torch.zeros(1, 5, 4), torch.zeros(3, 4, 4), torch.zeros(4, 4)]),
            [Role.HEAD, Role.HEAD, Role.HIDDEN],
        ),
    ],
    ids=["convolutional head", "depthwise", "transposed", "recurrent", "adaptive softmax", "bare tensors"],
)
def test_roles(module: nn.Module, expected: list[Role]) -> None:
    assert [role for role in parameter_roles(module).values() if role is not Role.VECTOR] == expected


def test_equal_layouts_are_one_key_and_survive_a_copy() -> None:
    same, other = Layout.build(SHAPES, ROLES), Layout.build(SHAPES, ROLES, decay_all=True)
    assert hash(copy.deepcopy(same)) == hash(LAYOUT)
    assert same == LAYOUT
    assert {same, LAYOUT, other} == {LAYOUT, other}


def test_an_embedding_of_positions_is_a_matrix_of_its_own_two_sides() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 2), nn.Linear(5, 2))
    network.register_parameter("positions", nn.Parameter(torch.zeros(1, 6, 8)))
    network.register_parameter("token", nn.Parameter(torch.zeros(1, 1, 8)))
    network.register_parameter("row", nn.Parameter(torch.zeros(1, 8)))
    found = {group.names[0]: group.matrix_shape for group in layout_of(network).groups}
    assert (found["positions"], found["token"], found["row"]) == ((6, 8), (1, 8), (1, 8))
    assert (found["0.weight"], found["1.weight"], found["2.bias"]) == ((4, 27), (1, 16), None)
