"""A trial of several ranks: what one process trains at the same batch, and what of it is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kinds
from arms import arm_with
from keeping import CutError, Cutter
from optsweep.build.assemble import build_arm
from optsweep.config.arm import Arm
from optsweep.config.sections import TrainerConfig
from optsweep.errors import UserError
from optsweep.launch.prepare.devices import deal, firsts
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.inquiries import here
from optsweep.launch.worker.ranks.leader import Leader
from optsweep.train.checkpoint import NO_CHECKPOINTS, Checkpointer
from optsweep.train.ranks import part_of
from optsweep.train.run import Silent
from optsweep.train.trial import Outcome, Rung, Trial
from small_programs import built_by, program


@pytest.fixture(scope="module")
def leader() -> Iterator[Leader]:
    """Two ranks, this process and another one."""
    found = Leader(Builds("cpu"))
    yield found
    found.close()


@dataclass
class Heard(Silent):
    """What was told of a trial."""

    rungs: list[Rung] = field(default_factory=list)

    def on_rung(self, key: int, rung: Rung) -> None:
        self.rungs.append(rung)

    @property
    def curve(self) -> list[float]:
        points = [point for rung in self.rungs for point in rung.points]
        assert None not in [point.loss for point in points]
        return [n for p in points for n in (p.loss or 0.0, p.grad_norm or 0.0, p.update_ratio or 0.0, p.lr)]


def arm_of_two(choices: dict[str, str], **values: Any) -> Arm:
    usual = {"trainer__ranks": 2, "trainer__device": "cpu", "trainer__steps": 24, "trainer__rungs": 3}
    arm = arm_with(choices, **{**usual, "task__width": 16, **values})
    return replace(arm, axes={key: str(value) for key, value in values.items()})


def train(
    arm: Arm, leader: Leader | None, kept: Checkpointer = NO_CHECKPOINTS, lr: float = 0.01
) -> tuple[Outcome, Heard]:
    """A trial by both ranks, or the whole batch in this process."""
    built = (leader.builds if leader else Builds("cpu")).of(arm)
    params, heard = built.space.first, Heard()
    trial = Trial({**built.space.hyper(params), "lr": lr}, seed=3, test=True)
    with leader.leading(arm, 0, params) if leader else nullcontext():
        (outcome,) = built.workload_for(params).train([trial], heard, kept)
    return outcome, heard


ARMS: Sequence[tuple[dict[str, str], dict[str, Any], float]] = (
    ({"optimizer": "momentum"}, {}, 1e-5),
    ({"optimizer": "adamw", "averaging": "ema"}, {"trainer__clip_norm": 0.5, "trainer__accumulate": 2}, 1e-4),
    ({"optimizer": "soap"}, {}, 1e-3),
    ({"optimizer": "muon", "schedule": "plateau"}, {}, 1e-4),
    ({"optimizer": "adamw", "schedule": "schedule_free"}, {}, 1e-4),
)


@pytest.mark.parametrize(("choices", "values", "tolerance"), ARMS, ids=str)
def test_two_ranks_train_what_one_process_does_at_the_same_batch(
    choices: dict[str, str], values: dict[str, Any], tolerance: float, leader: Leader
) -> None:
    arm = arm_of_two(choices, **values)
    (alone, one), (outcome, two) = train(arm, None), train(arm, leader)
    assert leader.failure() is None
    assert (outcome.end, outcome.step) == (alone.end, alone.step)
    assert two.curve == pytest.approx(one.curve, rel=tolerance)
    assert len(one.curve) > 12 * 4 - 1
    found, expected = ([o.val_loss, o.test_loss, *o.test_blocks] for o in (outcome, alone))
    assert found == pytest.approx(expected, rel=tolerance)
    assert found != expected  # that would be one process
    assert two.rungs[0].val_loss == one.rungs[0].val_loss  # evaluated by both, of the same weights


def test_what_was_kept_of_two_ranks_goes_on_to_the_same_end(leader: Leader) -> None:
    arm = arm_of_two({"optimizer": "soap", "averaging": "ema"})
    whole, cutter = train(arm, leader)[0], Cutter(at=9)
    with pytest.raises(CutError):
        train(arm, leader, cutter)
    assert 0 < cutter.kept[0]["lane"]["step"] < 24
    again = train(arm, leader, Cutter(given=cutter.kept))[0]
    assert (again.val_loss, again.test_loss) == (whole.val_loss, whole.test_loss)


def test_an_error_of_a_trial_is_told_and_other_ranks_train_the_next(leader: Leader) -> None:
    arm = arm_of_two({"optimizer": "adamw"})

    class Broken(Cutter):
        def pause(self, states: Any) -> None:
            raise CutError

    before = train(arm, leader)[0]
    for _ in range(2):
        with pytest.raises(CutError):
            train(arm, leader, Broken())
    assert train(arm, leader)[0].val_loss == before.val_loss


def test_a_diverging_trial_ends_in_all_ranks(leader: Leader) -> None:
    arm = arm_of_two({"optimizer": "momentum"})
    alone, outcome = train(arm, None, lr=1e4)[0], train(arm, leader, lr=1e4)[0]
    assert (outcome.end, outcome.step, outcome.end.value) == (alone.end, alone.step, "diverged")
    assert math.isfinite(train(arm, leader)[0].val_loss)


# -- what can't be shared ------------------------------------------------------------------------------------------


def refused(change: Any) -> str:
    with pytest.raises(UserError) as caught:
        change()
    return str(caught.value)


class Ragged(kinds.Plain):
    """The mean over tokens, of which samples have some or none."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        counted = targets > 0
        return (outputs - targets).square()[counted].mean()


class Contrasted(kinds.Plain):
    """A loss that compares samples."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).var()


def test_a_model_whose_batches_cannot_be_shared_is_refused_in_a_line() -> None:
    for task in (Ragged(), Contrasted()):
        line = refused(lambda task=task: program(task, ranks=2).traits)
        assert "isn't the mean of the losses of its 2 shares" in line
    norm = built_by(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)))
    assert refused(lambda: program(norm, ranks=2).traits).startswith("trainer.ranks: layer 1 (BatchNorm1d)")
    assert program(kinds.Plain(), ranks=2).traits.dtype is torch.float32
    assert "batch of 5 samples is not divisible by 2" in refused(lambda: part_of(torch.zeros(5, 2), 0, 2))
    assert "rows aren't samples" in refused(lambda: part_of((torch.zeros(4, 2), torch.zeros(3)), 0, 2))
    assert part_of({"x": torch.arange(4), "names": "abc"}, 1, 2)["x"].tolist() == [2, 3]


def test_keys_that_have_no_meaning_together_are_refused() -> None:
    assert TrainerConfig(steps=2, ranks=2).given_lanes == 1
    assert "trainer.lanes=1" in refused(lambda: TrainerConfig(steps=2, ranks=2, lanes=4))
    assert "trainer.ranks: task.batch_size=32 is not divisible by 3" in refused(
        lambda: arm_of_two({}, trainer__ranks=3, task__batch_size=32)
    )
    assert "of 1079 samples is not divisible by 2" in refused(
        lambda: build_arm(arm_of_two({}, task__batch_size="full"))
    )
    arm = arm_of_two({"optimizer": "adamw"})
    assert "hydra.launcher.workers" in refused(lambda: deal(here(), arm, 0))
    assert firsts([f"cuda:{n}" for n in (0, 1, 2, 3, 4)], 2, None) == ["cuda:0", "cuda:2"]
    assert firsts([f"cuda:{n}" for n in (0, 2, 3)], 2, None) == ["cuda:2"]
    assert "trainer.device has cuda:1" in refused(lambda: firsts(["cuda:1"], 2, None))
    assert "trainer.ranks" in build_arm(arm).content
    assert "trainer.ranks" not in build_arm(arm_of_two({"optimizer": "adamw"}, trainer__ranks=1)).content


def test_torchrun_s_processes_are_the_ranks_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "a", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    arm = arm_of_two({"optimizer": "adamw"})
    assert "takes 2, and torchrun has started 4 processes" in refused(lambda: deal(here(), arm, None))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert deal(here(), arm, None) == (1, ["cpu"])
    assert "one worker, not 3" in refused(lambda: deal(here(), arm, 3))
    monkeypatch.setenv("RANK", "1")
    assert "not a script" in refused(lambda: deal(here(), arm, None))
