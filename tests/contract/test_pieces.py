"""Tasks of a user's own pieces: data, batches, losses and metrics of every kind, and mistakes in a line."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import TensorDataset

import optsweep
from optsweep.build.targets import pickled, unpickled
from optsweep.errors import UserError
from optsweep.optim.adam import AdamW
from optsweep.optim.update import Decay, Update
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.tasks.loading import Loader, Request
from optsweep.tasks.nest import cast, count_of, joined, mapped, tensors_of
from optsweep.tasks.random import seeded
from optsweep.train.loop import train_all
from optsweep.train.trial import Outcome, Rung, Trial
from own_pieces import CPU, HYPER, Noisy, X, Y, net, numbers, outcomes, program, stream

# -- data --------------------------------------------------------------------------------------------------------------


def test_arrays_are_parted_in_three_and_every_class_alike() -> None:
    task = optsweep.Task(net, (X, Y))
    assert [task.size(split) for split in Split] == [120, 40, 40]
    assert [note.split(":")[0] for note in task.notes] == ["task.val", "task.test"]
    shares = [float(task.batch(split, torch.arange(task.size(split)))[1].float().mean()) for split in Split]
    assert max(shares) - min(shares) < 0.03
    rows = [task.batch(split, torch.arange(task.size(split)))[0][:, 0].tolist() for split in Split]
    assert len({value for part in rows for value in part}) == 200  # none twice
    other = optsweep.Task(net, (X, Y), split_seed=1)
    assert task.digest() != other.digest()


def test_lists_of_numbers_are_arrays_and_targets_may_be_a_column() -> None:
    expected = numbers(optsweep.Task(net, (X, Y)))
    assert numbers(optsweep.Task(net, (X.tolist(), Y.tolist()))) == expected
    column = optsweep.Task(net, (X, Y[:, None]), (X, Y[:, None]), (X, Y[:, None]))
    assert numbers(column) == numbers(optsweep.Task(net, (X, Y), (X, Y), (X, Y)))


def test_a_test_split_is_taken_from_the_validation_data() -> None:
    task = optsweep.Task(net, (X[:100], Y[:100]), (X[100:], Y[100:]))
    assert [task.size(split) for split in Split] == [100, 50, 50]
    assert task.notes == ("task.test: not given; 50 samples of the validation data were set aside for it",)
    assert optsweep.Task(net, (X, Y), (X, Y), (X, Y)).notes == ()


def test_missing_numbers_in_arrays_are_said_with_their_first_row() -> None:
    holed = X.copy()
    holed[[7, 31], 2] = np.nan
    (note,) = optsweep.Task(net, (holed, Y), (X, Y), (X, Y)).notes
    assert note.startswith("task.train: NaN in 2 of 200 samples, the first in row 7; ")
    endless = np.where(np.arange(200)[:, None] % 2, np.inf, -np.inf)  # a mask may well be infinite
    assert optsweep.Task(net, ({"x": X, "mask": endless}, Y), (X, Y), (X, Y)).notes == ()


def test_a_verdict_on_validation_data_says_so() -> None:
    task = optsweep.Task(net, (X, Y), lambda: [(torch.ones(3, 4), torch.ones(3).long())])
    assert task.size(Split.TEST) == task.size(Split.VAL) == 3
    assert "the verdict rests on the validation data" in task.notes[0]


def test_a_dataset_gives_what_its_arrays_give() -> None:
    """Order, losses and splits are the same; only who gathers differs."""
    x, y = torch.tensor(X, dtype=torch.float32), torch.tensor(Y)
    pairs = [(TensorDataset(x[a:b], y[a:b]), (x[a:b], y[a:b])) for a, b in ((0, 120), (120, 160), (160, 200))]
    datasets, arrays = zip(*pairs, strict=True)
    assert numbers(optsweep.Task(net, *datasets)) == numbers(optsweep.Task(net, *arrays))
    assert numbers(optsweep.Task(net, *datasets), accumulate=2) == pytest.approx(
        numbers(optsweep.Task(net, *arrays), accumulate=2), abs=0
    )


def test_augmentation_does_not_depend_on_loader_workers_nor_on_evaluations() -> None:
    alone = numbers(optsweep.Task(net, Noisy(), metric=None, loss=F.cross_entropy))
    assert numbers(optsweep.Task(net, Noisy(), loss=F.cross_entropy, workers=2)) == alone
    data = optsweep.Task(net, Noisy()).data(Split.TRAIN)
    steps = list(data.training([Stretch(3, 0, 9)], 16, 1, CPU))
    later = list(data.training([Stretch(3, 5, 6)], 16, 1, CPU))
    assert torch.equal(steps[5][0], later[0][0])
    assert not torch.equal(steps[5][0], next(data.training([Stretch(4, 5, 6)], 16, 1, CPU))[0])


def test_samples_of_an_evaluation_do_not_depend_on_its_batches() -> None:
    data = optsweep.Task(net, Noisy()).data(Split.VAL)
    one = torch.cat([batch[0] for batch, _ in data.whole(7, CPU)])
    other = torch.cat([batch[0] for batch, _ in data.whole(1000, CPU)])
    assert torch.equal(one, other)


def test_fetching_leaves_the_generators_alone() -> None:
    data = optsweep.Task(net, Noisy()).data(Split.TRAIN)

    def drawn() -> tuple[float, ...]:
        return float(torch.rand(())), random.random(), float(np.random.random())  # noqa: NPY002

    seeded(0)
    expected = drawn(), drawn()
    seeded(0)
    batches = data.training([Stretch(0, 0, 9)], 4, 1, CPU)
    next(batches)
    first = drawn()
    for _ in range(6):
        next(batches)
    assert (first, drawn()) == expected


class Torn(Noisy):
    """One sample can't be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 9:
            raise OSError("torn")
        return super().__getitem__(index)


def test_batches_before_one_that_fails_are_given() -> None:
    loader = Loader([Torn()])
    batches = loader.batches((Request(0, [i, i + 1], (1,)) for i in range(0, 20, 2)), CPU)
    for _ in range(4):
        next(batches)
    with pytest.raises(UserError, match="sample 9 can't be read"):
        next(batches)


def test_a_stream_is_a_function_of_seed_and_step() -> None:
    task = optsweep.Task(net, stream, (X, Y), samples=200)
    assert numbers(task) == numbers(task)
    data = task.data(Split.TRAIN)
    steps = [batch[1] for batch in data.training([Stretch(3, 0, 30)], 16, 1, CPU)]  # 12 an epoch
    again = [next(data.training([Stretch(3, step, step + 1)], 16, 1, CPU))[1] for step in (14, 15, 2)]
    assert all(torch.equal(one, steps[step]) for one, step in zip(again, (14, 15, 2), strict=True))
    assert not torch.equal(steps[0], steps[12])
    (out,) = outcomes(task, vmapped=True)
    assert out.val_loss > 0
    assert "a stream" in program(task, vmapped=True).notes[0]


# -- batches -----------------------------------------------------------------------------------------------------------


@dataclass
class Held:
    x: Tensor
    name: str


def test_a_nest_is_mapped_whole() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    nest = {"a": (torch.ones(2), [torch.ones(2), "text", None]), "b": packed, "c": Held(torch.ones(2), "n")}
    doubled = mapped(lambda tensor: tensor * 2, nest)
    assert doubled["a"][1][1:] == ["text", None]
    assert isinstance(doubled["b"], PackedSequence)
    assert doubled["b"].data.unique().tolist() == [2.0]
    assert doubled["b"].batch_sizes.tolist() == packed.batch_sizes.tolist()
    assert (doubled["c"].x.tolist(), doubled["c"].name) == ([2.0, 2.0], "n")
    assert len(tensors_of(nest)) == 4
    assert cast(nest, torch.float64)["b"].data.dtype is torch.float64
    assert [count_of(batch) for batch in (packed, {"x": torch.ones(5, 2)}, ([torch.ones(3)], 1))] == [2, 5, 3]
    whole = joined([{"x": torch.ones(2, 3)}, {"x": torch.zeros(1, 3)}])
    assert whole["x"].shape == (3, 3)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8), nn.Linear(8, 2)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        out: Tensor = self.head(self.lstm(batch["words"])[1][0][-1])
        return out


def sentences() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.randn(2 + i % 5, 3, generator=generator), "y": i % 2} for i in range(100)]


def pack(samples: list[dict[str, Any]]) -> dict[str, Any]:
    words = pack_sequence([sample["x"] for sample in samples], enforce_sorted=False)
    return {"words": words, "labels": torch.tensor([s["y"] for s in samples]), "text": ["…" for _ in samples]}


def test_dicts_with_packed_sequences_train() -> None:
    task = optsweep.Task(Reader, sentences(), collate=pack)
    assert numbers(task, eval_batch_size=4)[:2] == pytest.approx(numbers(task)[:2], rel=1e-6)


def test_a_tuple_but_its_last_are_the_model_s_arguments() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            out: Tensor = self.head(x * scale)
            return out

    task = optsweep.Task(Sum, (X, np.ones((200, 1)), Y))
    (plain,), (lanes,) = outcomes(task), outcomes(task, vmapped=True)
    assert plain.val_loss == pytest.approx(lanes.val_loss, rel=1e-6)


# -- losses ------------------------------------------------------------------------------------------------------------


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 4), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encode(x).chunk(2, -1)
        return self.decode(mean + torch.randn_like(mean) * (log_var / 2).exp()), mean, log_var


def elbo(outputs: tuple[Tensor, Tensor, Tensor], batch: Tensor) -> Tensor:
    decoded, mean, log_var = outputs
    return (decoded - batch).square().sum(-1).mean() - 0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(
        -1
    ).mean()


def test_a_vae_needs_its_loss_only() -> None:
    task = optsweep.Task(Coder, X, loss=elbo)
    (before,), (after,) = outcomes(task, num_steps=2), outcomes(task, num_steps=60)
    assert after.val_loss < before.val_loss
    assert (after.val_score, task.metric, task.higher_is_better) == (after.val_loss, "mean loss", False)


def contrastive(model: Coder, batch: Tensor) -> Tensor:
    """Two passes, and a method of the model's."""
    one, other = model.encode(batch), model.encode(batch + 0.1)
    return F.cross_entropy(one @ other.T, torch.arange(len(batch)))


def test_a_loss_that_sees_the_model_trains_alone_and_in_lanes() -> None:
    task = optsweep.Task(Coder, X, loss=contrastive)
    assert program(task, vmapped=True).stacked
    (plain,), (lanes,) = outcomes(task), outcomes(task, vmapped=True)
    assert plain.val_loss == pytest.approx(lanes.val_loss, rel=1e-5)


# -- metrics -----------------------------------------------------------------------------------------------------------


def f1(outputs: Tensor, targets: Tensor) -> float:
    return float(f1_score(targets, outputs.argmax(-1), zero_division=0.0))


@pytest.mark.parametrize("vmapped", [False, True])
def test_f1_is_that_of_the_whole_split_whatever_the_batches(vmapped: bool) -> None:
    task = optsweep.Task(net, (X, Y), metric=f1)
    scores = [numbers(task, eval_batch_size=size, vmapped=vmapped)[1] for size in (16, 64, 1000)]
    assert scores[0] == scores[1] == scores[2]
    by_batch = optsweep.Task(net, (X, Y), metric=optsweep.per_batch(f1))
    few = numbers(by_batch, eval_batch_size=1)[1]
    assert few != scores[0]  # a mean of F1 over batches is another number


class Counting:
    """As torchmetrics has them."""

    def reset(self) -> None:
        self.right = self.seen = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.right += int((outputs.argmax(-1) == targets).sum())
        self.seen += len(targets)

    def compute(self) -> float:
        return self.right / self.seen


def test_a_metric_object_is_asked_once_for_a_split() -> None:
    expected = numbers(optsweep.Task(net, (X, Y)))
    assert numbers(optsweep.Task(net, (X, Y), metric=Counting()))[1] == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.parametrize("vmapped", [False, True])
def test_torchmetrics_are_of_the_whole_split_at_any_batch_size(vmapped: bool) -> None:
    metrics = pytest.importorskip("torchmetrics.classification")

    def f1(outputs: Tensor, targets: Tensor) -> float:
        return float(f1_score(targets, outputs.argmax(-1), average="macro"))

    expected = numbers(optsweep.Task(net, (X, Y), metric=f1), vmapped=vmapped)
    for size in (7, 64):
        task = optsweep.Task(net, (X, Y), metric=metrics.MulticlassF1Score(num_classes=2))
        found = numbers(unpickled(pickled(task, "task")), eval_batch_size=size, vmapped=vmapped)
        assert found[1::2] == pytest.approx(expected[1::2], rel=1e-6)
    assert task.metric == "MulticlassF1Score"


def test_the_objective_may_be_the_metric() -> None:
    def auc(outputs: Tensor, targets: Tensor) -> float:
        return float(roc_auc_score(targets, outputs[:, 1] - outputs[:, 0]))

    task = optsweep.Task(net, (X, Y), metric=auc, objective="metric")
    (out,) = outcomes(task)
    assert (out.val_loss, out.test_loss) == (1 - out.val_score, 1 - (out.test_score or 0))
    assert task.decides == "1 − auc"
    assert "settings are chosen by 1 − auc" in task.notes[-1]


def test_where_a_metric_decides_the_loss_is_told_beside_it() -> None:
    def right(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.argmax(-1) == targets).float().mean())

    told = Told()
    decided, plain = optsweep.Task(net, (X, Y), metric=right, objective="metric"), optsweep.Task(net, (X, Y))
    (out,) = train_all(program(decided), [Trial(HYPER, seed=1, test=True)], told)
    (other,) = outcomes(plain)
    assert out.test_aside == other.test_loss
    assert told.rungs[-1].val_aside == other.val_loss
    assert out.test_blocks == ()  # a metric of the whole is no mean of its parts'
    assert other.test_aside is None
    assert len(other.test_blocks) > 1


class Told:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.rungs: list[Rung] = []

    def on_rung(self, key: int, rung: Rung) -> None:
        self.rungs.append(rung)

    def on_end(self, key: int, outcome: Outcome) -> None:
        pass


# -- initial weights ---------------------------------------------------------------------------------------------------


def test_fine_tuning_starts_alike_for_every_seed() -> None:
    state = net().state_dict()
    task = optsweep.Task(net, (X, Y), weights=state)
    starts = [program(task).model(seed).state_dict() for seed in (0, 1)]
    assert all(torch.equal(start[name], state[name]) for start in starts for name in state)
    backbone = {name: value for name, value in state.items() if name.startswith("0.")}
    heads = [program(optsweep.Task(net, (X, Y), weights=backbone)).model(seed) for seed in (0, 1)]
    assert torch.equal(heads[0].state_dict()["0.weight"], heads[1].state_dict()["0.weight"])
    assert not torch.equal(heads[0].state_dict()["2.weight"], heads[1].state_dict()["2.weight"])


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vmapped", [False, True])
def test_groups_are_those_of_torch_s_adamw(vmapped: bool) -> None:
    """Five steps of AdamW: a tenth of the rate, decay included, for the first layer; no decay for one matrix."""
    task = optsweep.Task(net, (X, Y), groups={"0.*": {"lr_factor": 0.1}, "2.weight": {"weight_decay": 0}})
    p = program(task, num_steps=5, num_rungs=1, vmapped=vmapped)
    p = replace(p, build_update=lambda layout: Update(AdamW(), layout, decay=Decay.DECOUPLED), decay_all=True)
    (out,) = train_all(p, [Trial({**HYPER, "weight_decay": 0.3}, seed=3)])
    module = p.model(3)
    named = dict(module.named_parameters())
    first, bias, head = [named["0.weight"], named["0.bias"]], [named["2.bias"]], [named["2.weight"]]
    groups: list[dict[str, Any]] = [
        {"params": first, "lr": 1e-3},
        {"params": bias},
        {"params": head, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.3)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step, (x, y) in enumerate(task.data(Split.TRAIN).training([Stretch(3, 0, 5)], 16, 1, CPU)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * p.schedule.multipliers(5, 5)[step]
        optimizer.zero_grad()
        F.cross_entropy(module(x.float()), y).backward()
        optimizer.step()
    x, y = task.batch(Split.VAL, torch.arange(task.size(Split.VAL)))
    assert out.val_loss == pytest.approx(float(F.cross_entropy(module(x.float()), y)), rel=1e-6)
    plain = outcomes(optsweep.Task(net, (X, Y)), num_steps=5, num_rungs=1)
    assert out.val_loss != pytest.approx(plain[0].val_loss, rel=1e-4)


def test_frozen_layers_stay_as_they_are() -> None:
    def frozen() -> nn.Module:
        module = net()
        next(iter(module.children())).requires_grad_(False)
        return module

    p = program(optsweep.Task(frozen, (X, Y), weights=net().state_dict()))
    assert [slot.name for slot in p.layout.slots] == ["2.weight", "2.bias"]
