"""What a workload knows of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

import kinds
from optsweep.train.probe import probe
from optsweep.train.trial import Outcome, Rung, Trial
from optsweep.train.workload import TaskWorkload, run
from small_programs import HYPER, built_by, loss, program


def test_a_workload_knows_itself_and_runs_a_trial() -> None:
    p = program(kinds.Plain())
    workload, rungs = TaskWorkload(p), list[Rung]()
    assert (workload.facts.num_parameters, workload.facts.num_steps) == (4 * 16 + 16 + 16 + 1, 12)
    outcome: Outcome = run(workload, Trial(HYPER, seed=3), rungs.append)
    assert outcome.val_loss == loss(p, 3) == rungs[-1].val_loss
    assert workload.digest() == probe(p)


def variants() -> Iterator[Callable[[], nn.Module]]:
    """The plain model, changed in what a fingerprint has to see."""
    yield lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    yield lambda: nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 1))
    yield lambda: nn.Sequential(nn.Linear(4, 16).requires_grad_(False), nn.Tanh(), nn.Linear(16, 1))


def test_a_probe_is_the_same_twice_and_sees_structure_function_and_freezing() -> None:
    base = probe(program(kinds.Plain()))
    assert probe(program(kinds.Plain())) == base == probe(program(kinds.Plain(), vmapped=True))
    shape, function, freezing = (probe(program(built_by(build))) for build in variants())
    assert shape.tensors != base.tensors
    assert (function.tensors, function.norms) == (base.tensors, base.norms)
    assert abs(function.loss - base.loss) > 1e-3
    assert freezing.grad_norm < base.grad_norm - 1e-3
    assert freezing.tensors != base.tensors
    assert len({probe(program(kind())).first_batch for kind in (kinds.Plain, kinds.Buffer)}) == 2
