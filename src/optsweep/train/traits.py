"""What kind of model a task has, found by trying it before any training: its dtype, its randomness, its lanes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor, nn

from optsweep.errors import UserError, located
from optsweep.tasks.base import Split, Task
from optsweep.tasks.data import Stretch
from optsweep.tasks.meters import Means
from optsweep.tasks.nest import Nest, tensors_of
from optsweep.train.flags import Flags, changed, flags
from optsweep.train.forward import Forward, Precision, Tensors
from optsweep.train.process import isolated
from optsweep.train.randomness import Generators, seed_construction, step_seeds

TRIED = 2
"""Samples of the validation and the test split that a model is tried on."""

PYTHON, NUMPY = "Python's random", "numpy.random"

EVALUATED = 64
"""Samples of a batch where a metric needs the whole validation split."""

Numbers = bool | int | float | str | Tensor | None


@dataclass(frozen=True)
class ModelTraits:
    """What the loop has to know of a model.

    `missing` are the trainable parameters that the first batch gives no gradient. `alone` says why its trials can't
    train in lanes; it is empty if they can, or if nobody asked. `unlike` says why its steps aren't all the same calls,
    and is empty if they are.
    """

    dtype: torch.dtype
    default_dtype: torch.dtype  # torch's default that the model set for itself
    flags: Flags  # switches of torch that it set for itself
    generators: Generators
    missing: tuple[str, ...]
    alone: str
    notes: tuple[str, ...]
    unlike: str = ""


@dataclass(frozen=True)
class Construction:
    """A model as its task built it, and what it left behind."""

    module: nn.Module
    default_dtype: torch.dtype
    flags: Flags  # that it changed
    reseeded: bool  # whether it set the seed of torch's generator
    generators: Mapping[str, object]  # their states

    @property
    def dtype(self) -> torch.dtype:
        """The one floating-point dtype of its parameters. Raises UserError if they can't be trained."""
        found: dict[torch.dtype, str] = {}
        for name, parameter in self.module.named_parameters():
            if parameter.dtype.is_floating_point or parameter.requires_grad:
                found.setdefault(parameter.dtype, name)
        for dtype, name in found.items():
            if dtype not in (torch.float32, torch.float64):
                raise UserError(
                    f"task.model: parameter {name} is {_of(dtype)}; parameters are trained in float32 or float64"
                    + (" (a pair of real parameters makes a complex one)" if dtype.is_complex else "")
                )
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise UserError(
                f"task.model: parameter {first} is {_of(one)} and {second} is {_of(other)}; give all one dtype"
            )
        if not found:
            raise UserError("task.model: the model has no parameter")
        return next(iter(found))


def construct(task: Task, seed: int, device: torch.device) -> Construction:
    """The task's model, drawn from `seed`, on the CPU or where the task puts it; the process is left as it was."""
    with isolated(device):
        before = flags()
        seed_construction(seed, device)
        module = task.model()
        reseeded = torch.initial_seed() != seed % 2**64
        return Construction(module, torch.get_default_dtype(), changed(before), reseeded, _states(device))


def traits_of(task: Task, device: torch.device, *, precision: Precision, batch_size: int, lanes: bool) -> ModelTraits:
    """Try the task's model on its first batch of `batch_size` samples, and in two lanes if `lanes` are wanted.

    Raises UserError, in one line, for a model that can't be trained.
    """
    first, second = construct(task, 0, device), construct(task, 1, device)
    dtype = first.dtype
    if dtype is torch.float64 and device.type == "mps":
        raise UserError(
            "task.model: its parameters are float64, which device mps doesn't have; choose trainer.device=cpu"
        )
    if dtype is torch.float64 and precision == "bf16":
        raise UserError("trainer.precision: bf16 is for float32 models, and this one is float64; choose fp32")
    _own(first.module, second.module)
    own = _differing(first.module, second.module)
    forward = Forward(task, device, dtype, precision, stacked=False)
    with isolated(device, first.default_dtype, first.flags):
        with _one_line("first batch"):
            trial = _try(forward, first.module.to(device), batch_size)
        for split in (Split.VAL, Split.TEST):
            with _one_line(f"first batch of the {split} split"):
                _score(forward, first.module, split)
    alone = ""
    if lanes:
        alone = trial.unlike or (f"attribute {own} differs from seed to seed and is no buffer" if own else "")
        with isolated(device, first.default_dtype, first.flags):
            alone = alone or _lanes(replace(forward, stacked=True), second.module.to(device), batch_size, trial.missing)
    notes = _seeds_of_its_own(first, second)
    if alone:
        notes.append(f"trainer.lanes: this model's trials train one after the other, because {alone}")
    if trial.missing:
        when = "it is left out" if lanes and not alone else "each is trained in the steps that give it one"
        notes.append(f"task.model: the first batch gives {_listed(trial.missing)} no gradient; {when}")
    return ModelTraits(
        dtype, first.default_dtype, first.flags, trial.generators, trial.missing, alone, tuple(notes), trial.unlike
    )


def _seeds_of_its_own(first: Construction, second: Construction) -> list[str]:
    """A line for each generator that the model seeds itself: after two seeds of ours it is in one state."""
    notes = []
    if first.reseeded or second.reseeded:
        notes.append("task.model: it sets torch's seed itself, so trials of all seeds start from the same weights")
    for name in (PYTHON, NUMPY):
        if _same(first.generators[name], second.generators[name]):
            notes.append(f"task.model: it sets the seed of {name} itself, so it draws the same there for all seeds")
    return notes


@dataclass(frozen=True)
class _Trial:
    """What one step on the plain path showed."""

    missing: tuple[str, ...]
    generators: Generators
    unlike: str


def _try(forward: Forward, module: nn.Module, batch_size: int) -> _Trial:
    """One forward and backward pass in training mode."""
    task, device = forward.task, forward.device
    _repeated(forward, batch_size)
    generators = Generators(device)
    generators.everything().seeder()(step_seeds(0, 0, 1)[0])
    before = _states(device)
    module.train()
    buffers, numbers = dict(module.named_buffers()), _numbers(module)
    batch = forward.cast(first_batch(task, batch_size, device))
    with forward.autocast():
        loss = _scalar("loss", forward.loss(module, batch))
    if not bool(torch.isfinite(loss.detach())):
        raise UserError(
            f"task.loss: it is {float(loss.detach()):g} for the first batch, before any training; look for NaN in the "
            f"data, for logarithms of zero, for divisions by zero"
        )
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    drawn = [name for name, state in _states(device).items() if not _same(state, before[name])]
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    missing = tuple(name for name, p in named.items() if p.grad is None and p.numel())
    if len(missing) == sum(p.numel() > 0 for p in named.values()):
        raise UserError("task.model: its loss depends on no trainable parameter")
    now = dict(module.named_buffers())
    reassigned = [name for name in now if now[name] is not buffers.get(name)]
    kept = [key for key, value in _numbers(module).items() if not _equal(value, numbers.get(key))]
    unlike = ""
    if drawn:
        unlike = f"it draws random numbers ({', '.join(drawn)})"
    elif reassigned:
        unlike = f"its forward pass assigns buffer {reassigned[0]} anew"
    elif kept:
        unlike = f"its forward pass keeps something in attribute {kept[0]}"
    found = Generators(device, python=PYTHON in drawn, numpy=NUMPY in drawn)
    return _Trial(missing, found, unlike)


@torch.no_grad()
def _score(forward: Forward, module: nn.Module, split: Split) -> None:
    """Loss and metric of the first samples of a split in evaluation mode."""
    module.eval()
    meter = forward.task.meter(1, stacked=False)
    batches = forward.task.data(split).whole(TRIED if isinstance(meter, Means) else EVALUATED, forward.device)
    if isinstance(meter, Means) or split is not Split.VAL:
        batches = islice(batches, 1)  # a metric of a whole split may be none of a few samples
    for given, count in batches:
        batch = forward.cast(given)
        with forward.autocast():
            loss, kept = forward.scores(module, batch)
        _scalar("loss", loss)
        if isinstance(meter, Means):
            _scalar("score", kept)
        meter.add(kept, batch, count)
    if split is Split.VAL:
        meter.values()


def _repeated(forward: Forward, batch_size: int) -> None:
    """Raise UserError if the first batch is another each time: its task draws from a generator of its own."""
    task, device = forward.task, forward.device
    seed, number = Generators(device).everything().seeder(), step_seeds(0, 0, 1)[0]
    found: list[list[Tensor]] = []
    for _ in range(2):
        seed(number)
        found.append(tensors_of(first_batch(task, batch_size, device)))
    first, second = found
    if len(first) != len(second) or not all(
        _same(one.nan_to_num(), other.nan_to_num()) for one, other in zip(first, second, strict=True)
    ):
        raise UserError(
            "task.batch: the same samples come out differently each time; draw from torch's, Python's or numpy's "
            "global generator, which are seeded before every step"
        )


def _scalar(name: str, value: Tensor) -> Tensor:
    """What a task's `loss` or `score` returned. Raises UserError if it isn't one number."""
    if not isinstance(value, Tensor) or value.ndim:
        found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"task.{name}: it returns {found} for a batch; give the mean of its samples, a scalar tensor")
    return value


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever a task or its model raises inside, as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task.model: its {what} fails: {located(error)}") from error


def _lanes(forward: Forward, module: nn.Module, batch_size: int, missing: tuple[str, ...]) -> str:
    """Why a step and an evaluation of two lanes fail; empty if they don't."""
    data = forward.task.data(Split.TRAIN)
    if data.alone:
        return data.alone
    spans = [Stretch(0, 0, 1)]

    def first_of(spans: list[Stretch]) -> Nest:
        return forward.cast(next(data.training(spans, batch_size, 1, forward.device)))

    def stacked(tensors: Iterator[tuple[str, Tensor]]) -> Tensors:
        low = forward.low or forward.dtype
        return {n: torch.stack([t.detach()] * 2).to(low if t.is_floating_point() else t.dtype) for n, t in tensors}

    params = stacked((n, p) for n, p in module.named_parameters() if p.requires_grad and n not in missing)
    frozen = stacked((n, p) for n, p in module.named_parameters() if n not in params)
    buffers = stacked(module.named_buffers())
    for value in params.values():
        value.requires_grad_()
    try:
        module.train()
        loss = forward.lanes_loss(module)(params, frozen, buffers, first_of(spans * 2))
        loss.sum().backward()  # type: ignore[no-untyped-call]
        module.eval()
        with torch.no_grad():
            forward.lanes_scores(module)(params, frozen, buffers, first_of(spans))
    except Exception as error:
        return f"torch.func.vmap can't run it: {_line(error)}"
    unused = [name for name, value in params.items() if value.grad is None]
    return f"parameter {unused[0]} has no gradient in lanes" if unused else ""


def first_batch(task: Task, batch_size: int, device: torch.device) -> Nest:
    """The first batch of seed 0."""
    return next(task.data(Split.TRAIN).training([Stretch(0, 0, 1)], batch_size, 1, device))


def numbers_of(module: nn.Module) -> Iterator[tuple[str, Numbers]]:
    """What a module itself holds in plain attributes, neither parameters nor buffers."""
    for name, value in list(vars(module).items()):
        if name != "training" and (value is None or isinstance(value, bool | int | float | str | Tensor)):
            yield name, value


def _own(first: nn.Module, second: nn.Module) -> None:
    """Raise UserError if two models of a task share a tensor: training one would change the other."""
    mine = {id(tensor) for tensor in chain(first.parameters(), first.buffers())}
    for name, tensor in chain(second.named_parameters(), second.named_buffers()):
        if id(tensor) in mine:
            raise UserError(
                f"task.model: two calls return the same tensor {name}; build, or copy, a model in each call"
            )


def _numbers(module: nn.Module) -> dict[str, Numbers]:
    """The plain attributes of a module and of those in it, tensors copied."""
    return {
        f"{path}.{name}".lstrip("."): value.detach().clone() if isinstance(value, Tensor) else value
        for path, child in module.named_modules()
        for name, value in numbers_of(child)
    }


def _differing(first: nn.Module, second: nn.Module) -> str:
    """A plain attribute that holds other numbers in a model of another seed."""
    others = _numbers(second)
    return next((key for key, value in _numbers(first).items() if not _equal(value, others.get(key))), "")


def _equal(one: Numbers, other: Numbers) -> bool:
    """Whether two plain attributes are equal; a NaN equals a NaN."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and _same(one, other)
    return repr(one) == repr(other)


def _states(device: torch.device) -> dict[str, object]:
    """States of the generators that a model may draw from."""
    states: dict[str, object] = {
        "torch's generator": torch.get_rng_state(),
        PYTHON: random.getstate(),
        NUMPY: pickle.dumps(np.random.get_state(legacy=False)),  # noqa: NPY002 - what users' models draw from
    }
    on_device: dict[str, Callable[[], Tensor]] = {
        "cuda": lambda: torch.cuda.get_rng_state(device),
        "mps": torch.mps.get_rng_state,
    }
    if device.type in on_device:
        states["the device's generator"] = on_device[device.type]()
    return states


def _same(one: object, other: object) -> bool:
    """Whether two states of a generator are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one == other


def _of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(names: tuple[str, ...], most: int = 6) -> str:
    """Names, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
