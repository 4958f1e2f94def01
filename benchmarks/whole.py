"""Whole trials of a worker, everything around them included, against whole trials by hand; CPU seconds on a CPU.

By hand: torch's fused AdamW, samples drawn beforehand, the validation split evaluated at the same steps in batches of
the same size. Twice: with nothing written, and with the same curves (training loss as means, LR, gradient norm, update
ratio, validation loss and accuracy at the same steps) sent to MLflow in one call, in a study of Optuna that is asked
and told. All stores are SQLite on this disk. A worker's trial is popped, trained, evaluated, written to the spool and
told; what its planner's process does, to bring it from the spool to MLflow, is added where that is said.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
import torch
from benchmarks.side_by_side import Figure, Round, compare, timed
from benchmarks.trials import arm, built, optimizer_by_hand, program_of, step_by_hand, trial
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from torch import Tensor, nn

from optsweep.build.assemble import Built
from optsweep.config.arm import Arm
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.worker import Worker
from optsweep.search.slots import Slot
from optsweep.tasks.base import Split
from optsweep.tracking import store
from optsweep.tracking.courier import Courier
from optsweep.tracking.spool import Spool
from optsweep.tracking.writer import Tracker
from optsweep.train.program import Program
from optsweep.train.trial import Phase

BARE = "by hand, evaluated, nothing written"
TRACKED = "by hand, evaluated, the same curves to MLflow, a study of Optuna"


def whole(task: str, rounds: int, device: torch.device) -> Iterator[Figure]:
    """A worker's part and all of it, against whole trials by hand."""
    a = arm(task, "trainer.steps=null")
    b = built(a, device)
    program = program_of(b)
    with tempfile.TemporaryDirectory() as folder, _sweep(a, b, device) as sweep:
        by_hand = ByHand(program, b, Path(folder))
        theirs: dict[str, Round] = {
            BARE: lambda: timed(by_hand.train, device),
            TRACKED: lambda: timed(by_hand.tracked, device),
        }

        def work() -> float:
            sweep.enqueue()
            seconds = timed(sweep.work, device)
            sweep.deliver()
            return seconds

        def all_of_it() -> float:
            sweep.enqueue()
            return timed(sweep.work, device) + timed(sweep.deliver, device)

        part = compare(work, {BARE: theirs[BARE]}, rounds=rounds, warmup=1)[BARE]
        whole = compare(all_of_it, theirs, rounds=rounds, warmup=1)
    steps = program.num_steps
    yield part.figure(f"{task}, whole trial, its worker's part", BARE, steps=steps, expected="1.00", target=1.05)
    for against, expected in ((BARE, "1.10: MLflow's calls are 15 ms, however few"), (TRACKED, "1.00")):
        what = f"{task}, whole trial with tracking, its delivery by the planner included"
        yield whole[against].figure(what, against, steps=steps, expected=expected, target=1.05)


# -- ours --------------------------------------------------------------------------------------------------------------


@dataclass
class Sweep:
    """A sweep of one arm, whose planner makes one trial at a time."""

    worker: Worker
    courier: Courier  # the planner's
    made: int = 0

    def __post_init__(self) -> None:
        self.arm = self.worker.jobs[0].arm.name
        self.seat = self.worker.studies.take_seat([self.arm], whole=True)

    def enqueue(self) -> None:
        """Make a trial."""
        self.worker.studies.enqueue(self.seat, self.arm, Phase.SEARCH, Slot(self.made, {}, 0, "fixed"))
        self.made += 1

    def work(self) -> None:
        """The worker's part."""
        assert self.worker.work_once()

    def deliver(self) -> None:
        """The planner's."""
        self.courier._looked = float("-inf")
        assert self.courier.once()
        assert not self.courier._spool.trials()


@contextmanager
def _sweep(a: Arm, b: Built, device: torch.device) -> Iterator[Sweep]:
    """A sweep over stores in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        uri, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
        a = replace(a, tracking_uri=uri, storage=storage)
        store.check(uri)
        tracker = Tracker(uri, a.sweep)
        job = Job(a, "adamw + cosine", b.fingerprint, tracker.arm_run(a.name, "adamw + cosine"))
        courier = Courier(Spool.of(uri, storage, a.sweep), start=False)
        worker = Worker([job], builds=Builds(str(device)), delivers=False)
        try:
            yield Sweep(worker, courier)
        finally:
            worker.close()


# -- by hand -----------------------------------------------------------------------------------------------------------


@dataclass
class Curves:
    """Points of a trial's curves: key, step, value. Numbers of steps stay on the device until the end."""

    points: list[tuple[str, int, Tensor | float]] = field(default_factory=list)

    def add(self, step: int, **values: Tensor | float) -> None:
        """Keep points."""
        self.points += [(key, step, value) for key, value in values.items()]


class ByHand:
    """Trials of a program as one writes them by hand; what they write is in a folder."""

    def __init__(self, program: Program, b: Built, folder: Path) -> None:
        self.program, self.trial = program, trial(b)
        every, steps = program.log_every, program.num_steps
        self.rungs = set(program.rung_steps())
        self.shown = {step for step in range(1, steps + 1) if step % every == 0 or step in self.rungs}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(storage=f"sqlite:///{folder}/by_hand.db")
        uri = f"sqlite:///{folder}/mlflow.db"
        store.check(uri)
        self.client = MlflowClient(uri)
        self.experiment = self.client.create_experiment("by hand")

    def train(self, curves: Curves | None = None) -> float:
        """A trial; its last validation loss."""
        program, hyper, task = self.program, self.trial, self.program.task
        steps, seed = program.num_steps, self.trial.seed
        module = program.model(seed).to(program.device)
        optimizer = optimizer_by_hand(program, hyper, module)
        multipliers = program.schedule.start(steps)
        multipliers.extend(steps)
        lrs = (hyper.hyper["lr"] * multipliers.values[:steps]).tolist()
        indices = torch.from_numpy(task.train_indices(seed, 0, steps, program.batch_size)).to(program.device)
        losses: list[Tensor] = []
        value, _ = self.evaluate(module, 0, curves)
        for step, (batch, lr) in enumerate(zip(indices, lrs, strict=True), 1):
            for group in optimizer.param_groups:
                group["lr"] = lr
            shown = curves is not None and step in self.shown
            before = [parameter.detach().clone() for parameter in module.parameters()] if shown else []
            losses.append(step_by_hand(module, optimizer, *task.batch(Split.TRAIN, batch), task.loss))
            if shown and curves is not None:
                curves.add(step, train_loss=torch.stack(losses).mean(), lr=lr, **_norms(module, before))
                losses = []
            if step in self.rungs:
                value, _ = self.evaluate(module, step, curves)
        return value

    @torch.no_grad()
    def evaluate(self, module: nn.Module, step: int, curves: Curves | None) -> tuple[float, float]:
        """Mean loss and accuracy on the validation split."""
        task, device = self.program.task, self.program.device
        losses, hits, counts = [], [], []
        module.eval()
        for chunk in task.eval_indices(Split.VAL, self.program.eval_batch_size):
            inputs, targets = task.batch(Split.VAL, torch.from_numpy(chunk).to(device))
            outputs = module(inputs)
            losses.append(task.loss(outputs, targets) * len(chunk))
            hits.append((outputs.argmax(-1) == targets).double().mean() * len(chunk))
            counts.append(len(chunk))
        module.train()
        loss, accuracy = (torch.stack([torch.stack(losses), torch.stack(hits)]).sum(1) / sum(counts)).tolist()
        if curves is not None:
            curves.add(step, val_loss=loss, val_accuracy=accuracy)
        return loss, accuracy

    def tracked(self) -> None:
        """A trial that Optuna is asked for and told, with its curves in MLflow."""
        asked, curves = self.study.ask(), Curves()
        asked.suggest_float("lr", 1e-4, 1e-1, log=True)
        value = self.train(curves)
        client, now = self.client, int(1000 * time.time())
        run = client.create_run(self.experiment, tags={"trial": str(asked.number)}).info.run_id
        metrics = [Metric(key, float(number), now, step) for key, step, number in curves.points]
        params = [Param(key, str(number)) for key, number in self.trial.hyper.items()]
        client.log_batch(run, metrics, params)
        client.set_terminated(run)
        self.study.tell(asked, value)


def _norms(module: nn.Module, before: Sequence[Tensor]) -> dict[str, Tensor]:
    """Of the gradient, and of the update over that of the weights."""
    after = [parameter.detach() for parameter in module.parameters()]
    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm
    changes = norm([new - old for new, old in zip(after, before, strict=True)])
    return {"grad_norm": norm(grads), "update_ratio": changes / norm(before)}
