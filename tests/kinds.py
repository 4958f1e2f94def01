"""Small models of every kind that a loop can get wrong, each as a task with 4 features and 240 samples."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.tasks.base import Facts, Split, Task, digest_of

Array = NDArray[Any]


class Plain(Task):
    """Regression of y from 4 features, 240 samples, split 60/20/20."""

    facts = Facts(architecture="mlp", data_type="complex", reference_batch_size=32)
    metric, higher_is_better, loss_unit = "error", False, "squared"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(240, 4)).astype(np.float32)
        y = (np.sin(x[:, :1]) + 0.3 * x[:, 1:2] * x[:, 2:3]).astype(np.float32)
        x, y = self.change(x, y)
        self._digest = digest_of(x, y)
        parts = np.split(np.arange(240), [144, 192])
        self._data = {s: (torch.from_numpy(x[i]), torch.from_numpy(y[i])) for s, i in zip(Split, parts, strict=True)}

    def change(self, x: Array, y: Array) -> tuple[Array, Array]:
        return x, y

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def size(self, split: Split) -> int:
        return len(self._data[split][0])

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self._data[split]
        return x[indices], y[indices]

    def to(self, device: torch.device) -> None:
        self._data = {s: (x.to(device), y.to(device)) for s, (x, y) in self._data.items()}

    def digest(self) -> str:
        return self._digest

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean()


class Frozen(Plain):
    """Random features: the first layer is drawn and frozen."""

    def model(self) -> nn.Module:
        first = nn.Linear(4, 16).requires_grad_(False)
        return nn.Sequential(first, nn.Tanh(), nn.Linear(16, 1))


class ExpertsNet(nn.Module):
    """Two experts, hard routing by feature 3; the loop skips an expert without samples, as MoE code does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(*x.shape[:-1], 1)
        use_b = x[..., 3] > 1.6
        if (~use_b).any():
            out = out + self.a(x) * (~use_b).unsqueeze(-1)
        if use_b.any():
            out = out + self.b(x) * use_b.unsqueeze(-1)
        return out


class Experts(Plain):
    def change(self, x: Array, y: Array) -> tuple[Array, Array]:
        y[x[:, 3] > 1.6] = 5.0
        return x, y

    def model(self) -> nn.Module:
        return ExpertsNet()


class RunningMean(nn.Module):
    """A normaliser that assigns its buffer anew, as much user code does."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.lin = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.update(x.detach().mean(0))
        out: Tensor = self.lin(x - self.mean)
        return out

    def update(self, mean: Tensor) -> None:
        self.mean = 0.5 * self.mean + 0.5 * mean


class RunningMeanInPlace(RunningMean):
    def update(self, mean: Tensor) -> None:
        self.mean.mul_(0.5).add_(0.5 * mean)


class RunningMeanAttribute(RunningMean):
    """The mean is a plain attribute, not a buffer."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.mean = torch.zeros(4)
        self.lin = nn.Linear(4, 1)


class Buffer(Plain):
    net: type[nn.Module] = RunningMean

    def change(self, x: Array, y: Array) -> tuple[Array, Array]:
        return x + np.float32(10.0), y

    def model(self) -> nn.Module:
        return self.net()


class BufferInPlace(Buffer):
    net = RunningMeanInPlace


class Attribute(Buffer):
    net = RunningMeanAttribute


class Aux(nn.Module):
    """Batch norm and an auxiliary head: a tuple in training, a tensor in evaluation, as Inception and GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.aux, self.head = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = self.body(x)
        return (self.head(h), self.aux(h)) if self.training else self.head(h)


class AuxHead(Plain):
    def model(self) -> nn.Module:
        return Aux()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if isinstance(outputs, tuple):
            return self.loss(outputs[0], targets) + 0.3 * self.loss(outputs[1], targets)
        return super().loss(outputs, targets)


class BatchNorm(Plain):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


class LSTMNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 8, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.rnn(x.unsqueeze(-1))[0][..., -1, :])
        return out


class LSTM(Plain):
    def model(self) -> nn.Module:
        return LSTMNet()


class Dropout(Plain):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))


class LayerDropNet(nn.Module):
    """A residual layer that Python's generator drops half of the time, and noise from numpy's."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.mid, self.out = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inp(x))
        if not self.training or random.random() < 0.5:
            h = h + torch.tanh(self.mid(h))
        if self.training:
            h = h + 0.1 * torch.from_numpy(np.random.normal(size=16).astype(np.float32))  # noqa: NPY002
        out: Tensor = self.out(h)
        return out


class LayerDrop(Plain):
    def model(self) -> nn.Module:
        return LayerDropNet()


class SparseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(20, 4, sparse=True)
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.emb(x))
        return out


class Sparse(Plain):
    def change(self, x: Array, y: Array) -> tuple[Array, Array]:
        return (np.abs(x[:, 0]) * 6).astype(np.int64).clip(0, 19), y

    def model(self) -> nn.Module:
        return SparseNet()


class BagNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 8, mode="mean")
        self.mid = nn.Linear(8, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.mid(self.bag(x))))
        return out


class Bag(Plain):
    def change(self, x: Array, y: Array) -> tuple[Array, Array]:
        return (np.abs(x) * 6).astype(np.int64).clip(0, 19), y

    def model(self) -> nn.Module:
        return BagNet()


class ScalarNet(nn.Module):
    """A 0-dimensional gate, a vector, a matrix, a parameter of more than two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 16)
        self.mid = nn.Linear(16, 16)
        self.gate = nn.Parameter(torch.tensor(1.0))
        self.one = nn.Parameter(torch.ones(1))
        self.pos = nn.Parameter(torch.zeros(1, 1, 16))
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.lin(x)) * self.gate + self.pos.reshape(16)
        out: Tensor = self.out(torch.tanh(self.mid(h))) * self.one
        return out


class Scalar(Plain):
    def model(self) -> nn.Module:
        return ScalarNet()


class EmptyNet(nn.Module):
    """A parameter without elements beside others: a bank of extra features that is switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 1)
        self.extra = nn.Parameter(torch.empty(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin(x) + (x[..., :0] @ self.extra)
        return out


class Empty(Plain):
    def model(self) -> nn.Module:
        return EmptyNet()


class Double(Plain):
    """Double precision all through, as physics-informed models want it."""

    def change(self, x: Array, y: Array) -> tuple[Array, Array]:
        return x.astype(np.float64), y.astype(np.float64)

    def model(self) -> nn.Module:
        return super().model().double()


class SharedNet(nn.Module):
    """One module under several names."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 16)
        block = nn.Linear(16, 16)
        self.blocks = nn.ModuleList([block, block, block])
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inp(x))
        for b in self.blocks:
            h = torch.tanh(b(h))
        out: Tensor = self.out(h)
        return out


class Shared(Plain):
    def model(self) -> nn.Module:
        return SharedNet()


class SiameseNet(nn.Module):
    """One tower, under two names, for two halves of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.BatchNorm1d(8))
        self.right = self.left
        self.out = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.left(x[..., :2]) - self.right(x[..., 2:]))
        return out


class Siamese(Plain):
    def model(self) -> nn.Module:
        return SiameseNet()


class TiedNet(nn.Module):
    """One parameter in two modules: the usual tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))
        return out


class Tied(Plain):
    def model(self) -> nn.Module:
        return TiedNet()


class NormNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 16))
        self.b = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))
        return out


class Norms(Plain):
    def model(self) -> nn.Module:
        return NormNet()


class UnusedNet(nn.Module):
    """A branch that no batch ever uses."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.never = nn.Linear(4, 1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin(x)
        return out


class Unused(Plain):
    def model(self) -> nn.Module:
        return UnusedNet()
