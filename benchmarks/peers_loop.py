"""The loop that a careful practitioner writes around a model: what plain Optuna and Ray Tune train here.

torch's fused AdamW, warm-up and cosine, samples drawn beforehand, losses kept on the device until the end, and the
curves of a trial sent to MLflow in one call. Data, model, number of steps and of evaluations are those of optsweep's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from optsweep.tasks.base import Split, Task
from optsweep.tasks.tabular import Table
from optsweep.tasks.text import CharLM

EXPERIMENT = "peers"
POINTS, RUNGS = 50, 12
"""Points of training loss and LR, and of validation loss, in a trial's curves."""

LR = 1e-4, 1e-1
WARMUP, WEIGHT_DECAY = 0.05, 0.01

TASKS: dict[str, tuple[Callable[[], Task], int, int]] = {
    "digits_mlp": (lambda: Table(dataset="digits", width=64), 600, 64),
    "iris_mlp": (lambda: Table(dataset="iris", width=32, reference_batch_size=16), 300, 16),
    "charlm_tiny": (
        lambda: CharLM(width=32, layers=1, heads=2, context=32, val_windows=256, test_windows=2048),
        300,
        16,
    ),
}
"""Task, steps of a trial, size of a batch: as in conf/task."""


def train(name: str, task: Task, lr: float, seed: int, client: MlflowClient, experiment: str) -> float:
    """Train a trial and write its curves; its validation loss at the last step."""
    _, steps, batch_size = TASKS[name]
    torch.manual_seed(seed)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
    warmup = max(1, round(WARMUP * steps))
    rungs = {round(steps * (rung + 1) / RUNGS) for rung in range(RUNGS)}
    shown = {round(steps * (point + 1) / POINTS) for point in range(POINTS)}
    losses: list[torch.Tensor] = []
    curves: list[tuple[str, int, float]] = []
    for step, batch in enumerate(torch.from_numpy(task.train_indices(seed, 0, steps, batch_size)), 1):
        now = lr * min(step / warmup, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warmup) / (steps - warmup)))
        for group in optimizer.param_groups:
            group["lr"] = now
        inputs, targets = task.batch(Split.TRAIN, batch)
        loss = task.loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in shown:
            losses.append(loss.detach())
            curves.append(("lr", step, now))
        if step in rungs:
            value = validation(task, model)
            curves.append(("val_loss", step, value))
    curves += [("train_loss", step, loss.item()) for step, loss in zip(sorted(shown), losses, strict=True)]
    run, now_ms = client.create_run(experiment).info.run_id, int(1000 * time.time())
    metrics = [Metric(key, value, now_ms, step) for key, step, value in curves]
    client.log_batch(run, metrics, [Param("lr", str(lr)), Param("seed", str(seed))])
    client.set_terminated(run)
    return value


@torch.no_grad()
def validation(task: Task, model: torch.nn.Module) -> float:
    """Mean loss over the validation split."""
    chunks = task.eval_indices(Split.VAL, task.size(Split.VAL))
    means = [
        task.loss(model(inputs), targets)
        for inputs, targets in (task.batch(Split.VAL, torch.from_numpy(c)) for c in chunks)
    ]
    return torch.stack(means).mean().item()
