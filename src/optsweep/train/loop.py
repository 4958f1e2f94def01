"""The only training loop: trains the trials of one arm, one alone or several in lanes, from rung to rung.

Between two rungs nothing comes back from the device and nothing is written: the numbers of all steps are uploaded
before, losses and norms stay on the device, and come over once per rung.
"""

from __future__ import annotations

import math
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap

from optsweep.optim.rule import Coefficients, Floats
from optsweep.optim.schedules import Multipliers
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Split
from optsweep.train.arena import Arena
from optsweep.train.evaluate import autocast, evaluate, forward_dtype
from optsweep.train.program import Program, cast_inputs
from optsweep.train.trial import End, Outcome, Point, Rung, Trial

# Gradients of lanes come back contiguous, the row's views are strided: accumulating in place is what is wanted here.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


class Observer(Protocol):
    """Who is told what happens; trials are named by their place in the list given to `train`."""

    def on_rung(self, place: int, rung: Rung) -> None:
        """A trial was evaluated."""

    def on_end(self, place: int, outcome: Outcome) -> None:
        """A trial ended; its last rung was told before."""


class Silent:
    """An observer that listens to nothing."""

    def on_rung(self, place: int, rung: Rung) -> None:
        """Nothing."""

    def on_end(self, place: int, outcome: Outcome) -> None:
        """Nothing."""


@dataclass
class Lane:
    """A trial in training. `place` is −1 in a lane that only pads the vmapped path to two."""

    place: int
    trial: Trial
    multipliers: Multipliers
    initial_loss: float = math.nan
    step: int = 0
    train_seconds: float = 0.0
    last: Coefficients = field(default_factory=dict)


def train(program: Program, trials: Sequence[Trial], observer: Observer | None = None) -> list[Outcome]:
    """Train trials of one arm together and return how each ended, in their order.

    With `program.vmapped` they are lanes of one computation (a single trial is padded to two lanes, so that its
    numbers don't depend on company); without, they run one after the other. Raises whatever the model raises.
    """
    observer = observer or Silent()
    outcomes: dict[int, Outcome] = {}
    groups = [list(enumerate(trials))] if program.vmapped else [[pair] for pair in enumerate(trials)]
    for group in groups:
        outcomes.update(_Run(program, program.build_update(program.layout), group, observer).run())
    return [outcomes[place] for place in range(len(trials))]


class _Run:
    """One arena from its first step to its last."""

    def __init__(
        self, program: Program, update: Updater, trials: Sequence[tuple[int, Trial]], observer: Observer
    ) -> None:
        self.program, self.update, self.observer = program, update, observer
        self.lanes = [Lane(place, trial, program.schedule.start(program.num_steps)) for place, trial in trials]
        if program.vmapped and len(self.lanes) == 1:
            self.lanes.append(Lane(-1, self.lanes[0].trial, program.schedule.start(program.num_steps)))
        low = torch.bfloat16 if program.precision == "bf16" else None
        self.arena = Arena(program.model(0), program.layout, vmapped=program.vmapped, device=program.device, low=low)
        self.arena.fill([program.model(lane.trial.seed) for lane in self.lanes])
        self.arena.state = update.init(self.arena.params)
        self.arena.module.train()
        self.outcomes: dict[int, Outcome] = {}
        self.tick = 0

    def run(self) -> dict[int, Outcome]:
        """Train to the end; returns outcomes by place."""
        if self.program.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.program.device)
        self._evaluate([[] for _ in self.lanes], None, 0.0)
        for end in self.program.rung_steps(self.update.period):
            first = self.tick
            points, seconds = self.advance(end)
            self._evaluate(points, 1000 * seconds / (end - first), seconds)
            if not self.lanes:
                break
        return self.outcomes

    # -- training ------------------------------------------------------------------------------------------------

    def advance(self, end: int) -> tuple[list[list[Point]], float]:
        """Train all lanes up to step `end`; returns each lane's points, and seconds."""
        program, arena, first = self.program, self.arena, self.tick
        coefficients = self._coefficients(first, end)
        indices = self._indices(first, end)
        log_steps = [s for s in range(first, end) if (s + 1) % program.log_every == 0 or s + 1 == end]
        record = _Record(first, log_steps, arena)
        _synchronize(program.device)
        begin = time.perf_counter()
        backward = self._backward()
        for offset, c in enumerate(coefficients):
            record.loss(backward(indices[offset]))
            step = first + offset
            if step in record.places:
                before = arena.params.clone()
                record.grad_norm(step)
                self.update.step(arena.params, arena.grads, arena.state, c, step)
                record.update_ratio(step, before)
            else:
                self.update.step(arena.params, arena.grads, arena.state, c, step)
        _synchronize(program.device)
        seconds = time.perf_counter() - begin
        arena.check()
        self.tick = end
        lrs = [lane.trial.hyper["lr"] * lane.multipliers.values for lane in self.lanes]
        return record.points(lrs), seconds

    def _coefficients(self, first: int, end: int) -> Sequence[Coefficients]:
        """The numbers of every step, per step: floats for the plain path, `[K, 1]` tensors for lanes."""
        tables: list[dict[str, Floats]] = []
        for lane in self.lanes:
            lane.multipliers.extend(end)
            table = self.update.coefficients(lane.trial.hyper, lane.multipliers.values[:end], first)
            lane.last = {name: float(values[-1]) for name, values in table.items()}
            tables.append(table)
        names = list(tables[0])
        if not self.program.vmapped:
            columns = [tables[0][name].tolist() for name in names]
            return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        if self.update.host_coefficients:
            stacked = {name: np.stack([table[name] for table in tables], 1).tolist() for name in names}
            return [{name: stacked[name][i] for name in names} for i in range(end - first)]
        array = np.stack([np.stack([table[name] for table in tables], 1) for name in names], 1)  # [n, names, K]
        uploaded = torch.from_numpy(array).to(self.arena.device, self.arena.dtype).unsqueeze(-1)
        return [dict(zip(names, step.unbind(0), strict=True)) for step in uploaded]

    def _indices(self, first: int, end: int) -> Tensor:
        """Samples of every step, `[steps, B]`, or `[steps, K, B]` for lanes; uploaded once per rung."""
        task, batch_size = self.program.task, self.program.batch_size
        arrays = [task.train_indices(lane.trial.seed, first, end - first, batch_size) for lane in self.lanes]
        array: NDArray[np.int64] = np.stack(arrays, 1) if self.program.vmapped else arrays[0]
        return torch.from_numpy(array).to(self.arena.device)

    def _backward(self) -> Callable[[Tensor], Tensor]:
        """A function of the step's samples that accumulates gradients and returns the mean loss, `[K]`."""
        program, arena, task = self.program, self.arena, self.program.task
        module, dtype, parts = arena.module, forward_dtype(program), program.accumulate
        bf16 = program.precision == "bf16"

        def loss_of_lane(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            outputs = functional_call(module, (params, buffers), (x,))
            return task.loss(outputs.float() if bf16 else outputs, y)

        lanes_loss = vmap(loss_of_lane, randomness="error")

        def plain_loss(x: Tensor, y: Tensor) -> Tensor:
            with autocast(program):
                outputs = module(x)
                return task.loss(outputs.float() if bf16 else outputs, y)

        def backward(indices: Tensor) -> Tensor:
            arena.zero_grads()
            arena.lower()
            total: Tensor | None = None
            for part in indices.chunk(parts, dim=-1) if parts > 1 else (indices,):
                x, y = task.batch(Split.TRAIN, part)
                x = cast_inputs(x, dtype)
                loss = lanes_loss(arena.leaves, arena.buffers, x, y) if program.vmapped else plain_loss(x, y)
                if parts > 1:
                    loss = loss / parts
                (loss.sum() if program.vmapped else loss).backward()  # type: ignore[no-untyped-call]
                total = loss.detach() if total is None else total + loss.detach()
            arena.collect()
            assert total is not None
            return total

        return backward

    # -- rungs ---------------------------------------------------------------------------------------------------

    def _evaluate(self, points: list[list[Point]], ms_per_step: float | None, seconds: float) -> None:
        """Evaluate all lanes, tell the observer, and drop those that ended."""
        weights = self._weights()
        val = evaluate(self.program, self.arena, weights, Split.VAL).tolist()
        ended: dict[int, tuple[End, str]] = {}
        for k, lane in enumerate(self.lanes):
            lane.step = self.tick
            lane.train_seconds += seconds / len(self.lanes)
            if ms_per_step is None:
                lane.initial_loss = val[0][k]
            lane.multipliers.observe(val[0][k])
            if lane.place >= 0:
                self.observer.on_rung(
                    lane.place,
                    Rung(
                        self.tick,
                        val[0][k],
                        val[1][k],
                        tuple(points[k]),
                        ms_per_step,
                        _peak_bytes(self.program.device),
                        lane.train_seconds,
                    ),
                )
            if (end := self._verdict(lane, val[0][k], points[k])) is not None:
                ended[k] = end
        if ended:
            self._finish(ended, val, weights)

    def _verdict(self, lane: Lane, val_loss: float, points: Sequence[Point]) -> tuple[End, str] | None:
        """Whether, how and why a lane ends at this rung."""
        limit = lane.initial_loss + (self.program.divergence_factor - 1) * abs(lane.initial_loss)
        if not math.isfinite(val_loss) or any(not math.isfinite(point.loss) for point in points):
            return End.DIVERGED, f"non-finite loss by step {lane.step}"
        if val_loss > limit:
            return End.DIVERGED, f"validation loss {val_loss:.3g} at step {lane.step}, {lane.initial_loss:.3g} at start"
        if lane.step >= self.program.num_steps:
            return End.FINISHED, ""
        threshold = lane.trial.prune_above.get(lane.step)
        if threshold is not None and val_loss > threshold:
            return End.PRUNED, f"validation loss {val_loss:.4g} above {threshold:.4g} at step {lane.step}"
        return None

    def _finish(self, ended: dict[int, tuple[End, str]], val: list[list[float]], weights: Tensor) -> None:
        """Tell the outcomes of ended lanes and compact the arena to the others."""
        test = None
        if any(self.lanes[k].trial.test and end is End.FINISHED for k, (end, _) in ended.items()):
            test = evaluate(self.program, self.arena, weights, Split.TEST).tolist()
        state_bytes = self._state_bytes()
        for k, (end, reason) in ended.items():
            lane = self.lanes[k]
            tested = test is not None and lane.trial.test and end is End.FINISHED
            outcome = Outcome(
                end=end,
                step=lane.step,
                val_loss=val[0][k],
                val_score=val[1][k],
                test_loss=test[0][k] if test is not None and tested else None,
                test_score=test[1][k] if test is not None and tested else None,
                train_seconds=lane.train_seconds,
                state_bytes=state_bytes,
                reason=reason,
                artifacts=self.program.task.artifacts(
                    {name: buffer[k].detach().cpu() for name, buffer in self.arena.buffers.items()}
                ),
            )
            if lane.place >= 0:
                self.outcomes[lane.place] = outcome
                self.observer.on_end(lane.place, outcome)
        self._compact([k for k in range(len(self.lanes)) if k not in ended])

    def _compact(self, kept: list[int]) -> None:
        """Drop lanes; the vmapped path keeps two, because one alone would be other arithmetic."""
        if all(self.lanes[k].place < 0 for k in kept):
            self.lanes = []
            return
        if self.program.vmapped and len(kept) == 1:
            kept = [kept[0], kept[0]]
        padded: list[Lane] = []
        for place, k in enumerate(kept):
            lane = self.lanes[k]
            double = place > 0 and kept[place - 1] == k
            padded.append(Lane(-1, lane.trial, self.program.schedule.start(0), lane.initial_loss) if double else lane)
            if double:
                padded[-1].multipliers = lane.multipliers.copy()
        self.lanes = padded
        self.arena.keep(kept)
        self.update.keep(kept)

    def _weights(self) -> Tensor:
        """The weights one would ship, of all lanes."""
        if not self.lanes[0].last:
            return self.arena.params
        names = list(self.lanes[0].last)
        c: dict[str, float | Tensor] = dict(self.lanes[0].last)
        if self.program.vmapped:
            values = torch.tensor([[lane.last[name] for lane in self.lanes] for name in names], dtype=torch.float64)
            c = dict(zip(names, values.to(self.arena.device, self.arena.dtype).unsqueeze(-1).unbind(0), strict=True))
        return self.update.weights(self.arena.params, self.arena.state, c)

    def _state_bytes(self) -> int:
        """Bytes of optimizer state of one lane."""
        return self.update.state_bytes(self.arena.state)


class _Record:
    """Losses and norms of a rung, kept on the device until it ends."""

    def __init__(self, first: int, log_steps: Sequence[int], arena: Arena) -> None:
        self.first, self.places = first, dict.fromkeys(log_steps)
        self.arena, self.lanes = arena, arena.lanes
        self.losses: list[Tensor] = []
        self.norms: dict[int, Tensor] = {}
        self.ratios: dict[int, Tensor] = {}

    def loss(self, loss: Tensor) -> None:
        """Keep the loss of a step."""
        self.losses.append(loss)

    def grad_norm(self, step: int) -> None:
        """Keep ‖g‖ of every lane, before clipping."""
        self.norms[step] = torch.linalg.vector_norm(self.arena.grads, dim=1)

    def update_ratio(self, step: int, before: Tensor) -> None:
        """Keep ‖Δθ‖/‖θ‖ of every lane."""
        norm = torch.linalg.vector_norm
        self.ratios[step] = norm(self.arena.params - before, dim=1) / norm(before, dim=1)

    def points(self, lrs: Sequence[Floats]) -> list[list[Point]]:
        """Fetch everything at once, as points of every lane; `lrs` are each lane's learning rates from step 0 on."""
        steps = list(self.places)
        losses = torch.stack(self.losses).reshape(len(self.losses), self.lanes).double().cpu().numpy()
        norms = torch.stack(list(self.norms.values())).double().cpu().numpy()
        ratios = torch.stack(list(self.ratios.values())).double().cpu().numpy()
        windows = zip([self.first, *(s + 1 for s in steps)], [s + 1 for s in steps], strict=False)
        means = [losses[a - self.first : b - self.first].mean(0) for a, b in windows]
        return [
            [
                Point(s + 1, float(means[i][k]), float(lrs[k][s]), float(norms[i][k]), float(ratios[i][k]))
                for i, s in enumerate(steps)
            ]
            for k in range(self.lanes)
        ]


def _synchronize(device: torch.device) -> None:
    """Wait for the device, so that the clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak_bytes(device: torch.device) -> int:
    """Peak memory: of the device's allocator where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def time_steps(program: Program, trial: Trial, num_steps: int) -> float:
    """Milliseconds per optimizer step of one trial alone, evaluation excluded, after as many steps of warming up."""
    run = _Run(program, program.build_update(program.layout), [(0, trial)], Silent())
    num_steps = -(-num_steps // run.update.period) * run.update.period
    run.advance(num_steps)
    _, seconds = run.advance(2 * num_steps)
    return 1000 * seconds / num_steps
