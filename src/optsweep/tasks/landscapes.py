"""Two-dimensional surfaces: what an optimizer's path looks like where everything can be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.checks import choice, number, optional, whole
from optsweep.errors import UserError
from optsweep.tasks.base import Facts, Split, Task, digest_of
from optsweep.tasks.random import draws


@dataclass(frozen=True)
class Surface:
    """A function of the plane: `value(x, y)`, one of its minima, a start, and bounds to draw it in.

    Values are divided by the largest curvature at the minimum (`curvature`), so that learning rates mean the same on
    every surface: gradient descent is stable there below 2.
    """

    formula: Callable[[Tensor, Tensor], Tensor]
    curvature: float
    minimum: tuple[float, float]
    start: tuple[float, float]
    bounds: tuple[float, float, float, float]  # x from, to, y from, to

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """Height at (x, y), of their shape; 0 at the minimum."""
        return self.formula(x, y) / self.curvature


def _valley(x: Tensor, y: Tensor) -> Tensor:
    """½(x²/100 + y²): a condition number of 100."""
    return 0.5 * (x.square() / 100 + y.square())


def _rosenbrock(x: Tensor, y: Tensor) -> Tensor:
    """(1 − x)² + 100(y − x²)² (Rosenbrock 1960)."""
    return (1 - x).square() + 100 * (y - x.square()).square()


def _beale(x: Tensor, y: Tensor) -> Tensor:
    """(1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)² (Beale 1958)."""
    return (1.5 - x + x * y).square() + (2.25 - x + x * y.square()).square() + (2.625 - x + x * y.square() * y).square()


def _rastrigin(x: Tensor, y: Tensor) -> Tensor:
    """20 + x² − 10 cos 2πx + y² − 10 cos 2πy (Rastrigin 1974)."""
    turn = 2 * math.pi
    return 20 + x.square() - 10 * torch.cos(turn * x) + y.square() - 10 * torch.cos(turn * y)


SURFACES: Mapping[str, Surface] = {
    "valley": Surface(_valley, 1.0, (0.0, 0.0), (-9.0, 1.5), (-10.0, 10.0, -3.0, 3.0)),
    "rosenbrock": Surface(_rosenbrock, 1001.6, (1.0, 1.0), (-1.2, 1.0), (-2.0, 2.0, -1.0, 3.0)),
    "beale": Surface(_beale, 48.98, (3.0, 0.5), (1.0, 1.5), (-1.0, 4.5, -2.0, 2.0)),
    "rastrigin": Surface(_rastrigin, 2 + 40 * math.pi**2, (0.0, 0.0), (2.2, -1.7), (-4.0, 4.0, -4.0, 4.0)),
}

NUM_NOISES = 4096
"""Noise vectors that samples are drawn from."""


class Landscape(Task):
    """The descent of one point on a surface.

    A sample is a noise vector: training on a batch sees the gradient plus `noise` times the batch's mean vector, a pure
    function of (seed, step). Validation and test are the height without noise. A seed also moves the start, by a
    normal deviation of `spread`. With `record` > 0 the model keeps its first points (see `Position`).
    """

    facts = Facts("surface", "", reference_batch_size=1)
    metric = "distance"
    higher_is_better = False
    loss_unit = "height"
    loss_floor = 0.0
    reads = ()

    def __init__(
        self,
        *,
        surface: str = "valley",
        noise: float = 0.0,
        spread: float = 0.05,
        start: Sequence[float] | None = None,
        record: int = 0,
        target_loss: float | None = None,
    ) -> None:
        self.surface = SURFACES[choice("task.surface", surface, tuple(SURFACES))]
        self.noise, self.spread = number("task.noise", noise, least=0.0), number("task.spread", spread, least=0.0)
        if start is not None and (not isinstance(start, Sequence) or isinstance(start, str) or len(start) != 2):
            raise UserError(f"task.start: {start!r} is not allowed; give two numbers, such as [-1,2], or null")
        self.start = (
            self.surface.start if start is None else (number("task.start", start[0]), number("task.start", start[1]))
        )
        self.record = whole("task.record", record, low=0)
        self.target_loss = optional(number)("task.target_loss", target_loss)
        noises = np.random.default_rng(0).standard_normal((NUM_NOISES, 2))
        noises -= noises.mean(0)  # so that a full batch has no noise
        self._digest = digest_of(noises, repr((surface, self.start, noise, spread)).encode())
        self._noises = torch.from_numpy(noises.astype(np.float32))

    def model(self) -> nn.Module:
        """A point near the start."""
        return Position(self.surface, torch.tensor(self.start) + self.spread * torch.randn(2), self.record)

    def size(self, split: Split) -> int:
        """Noise vectors for training; elsewhere there is one sample, without noise."""
        return NUM_NOISES if split is Split.TRAIN else 1

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(noise `[..., 2]`, unused zeros `[...]`)."""
        scale = self.noise if split is Split.TRAIN else 0.0
        return scale * self._noises[indices], torch.zeros_like(indices)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean height of a batch."""
        return outputs[..., 0].mean()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Distance to the minimum."""
        return outputs[..., 1].mean()

    def artifacts(self, buffers: Mapping[str, Tensor]) -> Mapping[str, str]:
        """The recorded path: the point before each of the first steps."""
        if not self.record:
            return {}
        rows = enumerate(buffers["path"][: int(buffers["visits"].item())].tolist())
        return {"path.csv": "step,x,y\n" + "".join(f"{step},{x:.9g},{y:.9g}\n" for step, (x, y) in rows)}

    def train_indices(self, seed: int, first: int, num_steps: int, batch_size: int) -> NDArray[np.int64]:
        """Noise vectors drawn with replacement; all of them for a full batch."""
        if batch_size == NUM_NOISES:
            return np.tile(np.arange(NUM_NOISES), (num_steps, 1))
        return draws(seed, first * batch_size, num_steps * batch_size, NUM_NOISES).reshape(num_steps, batch_size)

    def to(self, device: torch.device) -> None:
        """Move the noise."""
        self._noises = self._noises.to(device)

    def digest(self) -> str:
        """Hash of surface, start and noise."""
        return self._digest


class Position(nn.Module):
    """Noise `[B, 2]` → (height, distance to the minimum) `[B, 2]`, at the point `point [2]` that is the parameter.

    In training mode, the buffer `path [record, 2]` keeps the points of the first calls, `visits` counts the calls;
    both are buffers so that they work in lanes and end up in checkpoints.
    """

    path: Tensor
    visits: Tensor

    def __init__(self, surface: Surface, start: Tensor, record: int = 0) -> None:
        super().__init__()
        self.surface = surface
        self.point = nn.Parameter(start.clone())
        if record:
            self.register_buffer("path", torch.full((record, 2), math.nan))
            self.register_buffer("visits", torch.zeros(1, dtype=torch.int64))
        self.record = record

    def forward(self, noise: Tensor) -> Tensor:
        """Height and distance; the noise tilts the surface by `noise` · point, without changing its height here."""
        if self.record and self.training:
            row = torch.arange(self.record, device=self.path.device) == self.visits
            self.path.copy_(torch.where(row.unsqueeze(-1), self.point.detach().to(self.path.dtype), self.path))
            self.visits.add_(1)
        x, y = self.point.unbind(-1)
        tilt = noise @ (self.point - self.point.detach())
        height = self.surface.value(x, y) + tilt
        away = (self.point - self.point.new_tensor(self.surface.minimum)).detach()  # √ has no gradient at 0
        distance = away.square().sum().sqrt().expand_as(tilt)
        return torch.stack([height, distance], -1)
