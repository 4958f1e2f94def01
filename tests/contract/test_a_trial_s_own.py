"""A trial's numbers are its own: not its neighbours', not the process's, not those of a dtype or a device."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import kinds
from optsweep.errors import UserError
from optsweep.tasks.base import Split, Task
from optsweep.train.flags import changed, flags
from optsweep.train.loop import train, train_all
from optsweep.train.process import isolated
from optsweep.train.randomness import step_seeds
from optsweep.train.run import Silent
from optsweep.train.source import Listed
from optsweep.train.trial import Rung, Trial
from small_programs import HYPER, built_by, loss, program


class Rungs(Silent):
    """Keeps the rungs it is told."""

    def __init__(self) -> None:
        self.rungs: list[tuple[int, Rung]] = []

    def on_rung(self, key: int, rung: Rung) -> None:
        self.rungs.append((key, rung))


# -- randomness ----------------------------------------------------------------------------------------------------


def test_seeds_of_steps_are_pure_and_differ_in_their_lower_half() -> None:
    whole = step_seeds(3, 0, 1000)
    assert step_seeds(3, 700, 702) == whole[700:702]
    assert len({number % 2**32 for number in whole + step_seeds(4, 0, 1000)}) == 2000
    assert max(whole) < 2**63


@pytest.mark.parametrize("kind", [kinds.Dropout, kinds.LayerDrop])
def test_a_model_that_draws_is_the_same_twice_and_leaves_the_generators_alone(kind: type[Task]) -> None:
    p = program(kind())
    first = loss(p)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    assert loss(p) == first
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert (random.getstate(), repr(np.random.get_state())) == expected[1:]  # noqa: NPY002
    assert loss(replace(p, num_rungs=12)) == first  # how often one evaluates
    assert loss(p, 1) != first


def test_a_task_that_augments_its_batches_at_random_is_the_same_twice_and_has_no_lanes() -> None:
    class Noisy(kinds.Plain):
        def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
            x, y = super().batch(split, indices)
            return (x + 0.1 * torch.randn_like(x) if split is Split.TRAIN else x), y

    p = program(Noisy(), vmapped=True)
    assert not p.stacked
    assert loss(p) == loss(p)


def test_a_task_with_a_generator_of_its_own_is_refused() -> None:
    class OwnGenerator(kinds.Plain):
        rng = np.random.default_rng(0)

        def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
            x, y = super().batch(split, indices)
            return x + float(self.rng.normal()), y

    with pytest.raises(UserError, match=r"^task\.batch: the same samples come out differently each time"):
        loss(program(OwnGenerator()))


# -- what is global in the process ---------------------------------------------------------------------------------


def unruly() -> nn.Module:
    """A model that sets whatever it can: default dtype, threads, seed."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


def test_a_model_that_sets_the_default_dtype_leaves_its_neighbours_alone() -> None:
    neighbour = program(kinds.Plain())
    expected, threads = loss(neighbour), torch.get_num_threads()
    p = program(built_by(unruly))
    assert p.dtype is torch.float64
    first = loss(p)
    assert torch.get_default_dtype() is torch.float32
    assert torch.get_num_threads() == threads
    assert loss(program(kinds.Plain())) == expected
    assert loss(p) == first


class Exact(nn.Module):
    """A model whose forward pass needs the switches that its constructor set."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_float32_matmul_precision("medium")
        torch.autograd.set_detect_anomaly(True)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        self.body = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.is_anomaly_enabled()
        assert torch.backends.cudnn.benchmark
        torch.backends.cuda.enable_math_sdp(False)
        outputs: Tensor = self.body(x)
        return outputs


def test_switches_that_a_model_sets_hold_for_its_trials_alone() -> None:
    neighbour, before = program(kinds.Plain()), flags()
    expected = loss(neighbour)
    assert loss(program(built_by(Exact))) > 0
    assert flags() == before
    assert loss(program(kinds.Plain())) == expected


def test_switches_are_put_back_however_they_were_set() -> None:
    before = flags()
    with isolated():
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_default_device("meta")
        own = changed(before)
    assert flags() == before
    with isolated(own=own):
        assert changed(before) == own
    assert flags() == before


def test_a_model_that_sets_the_seed_is_told_of() -> None:
    assert any("sets torch's seed itself" in note for note in program(built_by(unruly)).notes)
    assert program(kinds.Plain()).notes == ()


def seeded_by_itself() -> nn.Module:
    """A model whose weights come from numpy, always the same."""
    np.random.seed(0)  # noqa: NPY002
    first = nn.Linear(4, 16)
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(np.random.normal(size=(16, 4))))  # noqa: NPY002
    return nn.Sequential(first, nn.Tanh(), nn.Linear(16, 1))


def test_a_model_that_sets_another_generator_s_seed_is_told_of() -> None:
    (note,) = program(built_by(seeded_by_itself)).notes
    assert note == "task.model: it sets the seed of numpy.random itself, so it draws the same there for all seeds"
    state = repr(np.random.get_state())  # noqa: NPY002
    loss(program(built_by(seeded_by_itself)))
    assert repr(np.random.get_state()) == state  # noqa: NPY002


class UnrulyForward(nn.Module):
    """A model that sets the default dtype and the threads at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        outputs: Tensor = self.body(x)
        return outputs


def test_what_a_forward_pass_sets_ends_with_the_training() -> None:
    expected, threads = loss(program(kinds.Plain())), torch.get_num_threads()
    loss(program(built_by(UnrulyForward)))
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (torch.float32, threads)
    assert loss(program(kinds.Plain())) == expected


def test_determinism_holds_while_a_program_trains_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen: set[tuple[bool, bool, str]] = set()

    class WatchingFlags(kinds.Plain):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            config = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
            seen.add((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32, config))
            return super().loss(outputs, targets)

    tf32 = torch.backends.cudnn.allow_tf32
    loss(program(WatchingFlags()))
    assert seen == {(False, tf32, "")}
    seen.clear()
    loss(program(WatchingFlags(), deterministic=True))
    assert seen == {(True, False, ":4096:8")}
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.allow_tf32 is tf32


# -- dtypes --------------------------------------------------------------------------------------------------------


class Spectral(nn.Module):
    """A complex weight, as neural operators have it."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 1, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.cfloat) @ self.w).abs()


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1).double())


def half() -> nn.Module:
    return nn.Linear(4, 1).half()


@pytest.mark.parametrize(
    ("build", "said"),
    [(Spectral, "w is complex64"), (mixed, "0.weight is float32 and 2.weight is float64"), (half, "float16")],
)
def test_a_dtype_that_cannot_be_trained_is_refused_in_a_line(build: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(UserError, match=f"^task.model: .*{said}") as error:
        loss(program(built_by(build)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_float64_model_is_trained_in_float64(vmapped: bool) -> None:
    seen: set[torch.dtype] = set()

    class WatchingDtypes(kinds.Double):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            seen.add(outputs.dtype)
            return super().loss(outputs, targets)

    p = program(WatchingDtypes(), vmapped=vmapped)
    loss(p)
    assert seen == {torch.float64}
    with pytest.raises(UserError, match=r"^trainer.precision: bf16"):
        loss(replace(p, precision="bf16"))


class Float32Device(TorchFunctionMode):
    """Plays a device without float64 on the CPU: only what `Tensor.cpu` returned may be of that dtype."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "cpu":
            fetched = func(*args, **kwargs).clone()
            fetched.fetched = True
            return fetched
        device = [a for a in (*args[1:], *kwargs.values()) if isinstance(a, torch.device)]
        if name == "double":
            assert getattr(args[0], "fetched", False), "float64 on a device that lacks it"
        elif name != "to" and device:
            assert kwargs.get("dtype") is not torch.float64, "float64 created on a device that lacks it"
        elif name == "to" and device:
            assert args[0].dtype is not torch.float64, "float64 uploaded to a device that lacks it"
        return func(*args, **kwargs)


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_device_without_float64_never_sees_it(vmapped: bool) -> None:
    p = program(kinds.BatchNorm(), vmapped=vmapped)
    with Float32Device():
        train_all(p, [Trial(HYPER, seed=seed, test=True) for seed in (0, 1)])


# -- what is shared, rare or odd -----------------------------------------------------------------------------------


def test_two_models_that_share_a_tensor_are_refused() -> None:
    backbone = nn.Linear(4, 16)
    with pytest.raises(UserError, match=r"same tensor 0\.weight"):
        loss(program(built_by(lambda: nn.Sequential(backbone, nn.Linear(16, 1)))))


def test_a_first_batch_that_fails_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^task.model: its first batch fails: RuntimeError: mat1 and mat2"):
        loss(program(built_by(lambda: nn.Linear(5, 1))))


def test_a_rung_is_told_once_though_a_rare_parameter_makes_the_trial_begin_again() -> None:
    listener = Rungs()
    p = replace(program(kinds.Experts()), num_steps=60, batch_size=48, num_rungs=30)
    assert p.traits.missing == ()
    (outcome,) = train_all(p, [Trial(HYPER, seed=0)], listener)
    assert [rung.step for _, rung in listener.rungs] == [0, *range(2, 61, 2)]
    assert outcome.step == 60


def test_what_no_batch_uses_is_named() -> None:
    (note,) = program(kinds.Unused()).notes
    assert "never.weight, never.bias" in note
    (note,) = program(kinds.Unused(), vmapped=True).notes
    assert "left out" in note


@pytest.mark.parametrize("eval_batch_size", [1, 64])
@pytest.mark.parametrize("vmapped", [False, True])
def test_batch_norm_is_scored_alike_whatever_the_batch_of_an_evaluation(eval_batch_size: int, vmapped: bool) -> None:
    p = program(kinds.AuxHead(), vmapped=vmapped)
    assert loss(replace(p, eval_batch_size=eval_batch_size)) == pytest.approx(loss(p), rel=1e-6)


def test_a_lane_that_pads_takes_no_share_of_the_time() -> None:
    listener = Rungs()
    (outcome,) = train_all(program(kinds.Plain(), vmapped=True), [Trial(HYPER, seed=0)], listener)
    rungs = [rung for _, rung in listener.rungs]
    spent = [(b.step - a.step) * (b.ms_per_step or 0.0) / 1000 for a, b in pairwise(rungs)]
    assert outcome.train_seconds == pytest.approx(sum(spent))


# -- sources, workloads, probes ------------------------------------------------------------------------------------


class Counted(Listed):
    """A source that notes what it is asked."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        super().__init__(trials)
        self.asked: list[int] = []

    def take(self, free_lanes: int) -> Sequence[Trial]:
        self.asked.append(free_lanes)
        return super().take(free_lanes)


@pytest.mark.parametrize(("kind", "asked"), [(kinds.Plain, [2, 2, 1]), (kinds.Dropout, [1, 1, 1, 1])])
def test_a_source_is_asked_for_as_many_trials_as_lanes_are_free(kind: type[Task], asked: list[int]) -> None:
    source = Counted([Trial(HYPER, seed=seed, key=10 + seed) for seed in range(3)])
    listener = Rungs()
    train(program(kind(), vmapped=True), source, listener, lanes=2)
    assert source.asked[: len(asked)] == asked
    assert sorted({key for key, _ in listener.rungs}) == [10, 11, 12]
