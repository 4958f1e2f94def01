"""A trial in Lightning: `configure_optimizers` returns `trial.optimizer(self)`, a Trainer gets a TrialCallback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch.utils.data import DataLoader

from optsweep.integrations.logged import Logged, missing
from optsweep.optim.batch_norm import Call, on_first
from optsweep.train.own.faults import LoopError
from optsweep.train.own.running import RunningTrial

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise missing("lightning", error) from None

NEVER = sys.maxsize
"""Batches between validations, where there are to be none."""


class TrialCallback(Callback):  # type: ignore[misc]  # of a framework that mypy skips
    """Has a Trainer validate at a trial's rungs, report there, stop with the budget, and finish the trial by its test.

    What is evaluated are the weights to ship. The module logs `val_loss` and `test_loss`, and so each of `metrics`:
    `TrialCallback(trial, "accuracy")` reads `val_accuracy` and `test_accuracy`; `loss`, `val`, `test` are other names.
    `batches` and `call` are those of `trial.evaluating`, for models with batch norm: by default the training loader's,
    with whose first item the module is called.
    """

    def __init__(
        self,
        trial: RunningTrial,
        *metrics: str,
        loss: str = "loss",
        val: str = "val_",
        test: str = "test_",
        batches: Iterable[Any] | None = None,
        call: Call = on_first,
    ) -> None:
        self._trial, self._logged, self._val, self._test = trial, Logged(loss, metrics), val, test
        self._batches, self._call = batches, call
        self._due = False  # a report is due, and the trainer about to validate for it
        self._shipped = ExitStack()
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # or every trial names the hardware

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that it is the trial's run, and leave out all validations but the trial's. Raises LoopError."""
        module, steps = type(pl_module).__name__, self._trial.steps
        if not any(optimizer in self._trial.optimizers for optimizer in trainer.optimizers):
            raise LoopError(
                f"{module}.configure_optimizers: it returns none of the trial's; return trial.optimizer(self)"
            )
        if trainer.lr_scheduler_configs:
            raise LoopError(
                f"{module}.configure_optimizers: the schedule is inside trial.optimizer(self); return that alone"
            )
        if trainer.max_steps not in (-1, steps):
            raise LoopError(
                f"Trainer(max_steps={trainer.max_steps}): the budget is {steps}; leave max_steps to the trial"
            )
        if not trainer.enable_validation:
            raise LoopError(
                f"trainer.fit: it has no validation, by which trials are compared; give it val_dataloaders, and "
                f"{module} a validation_step that logs {self._val + self._logged.loss!r}"
            )
        if isinstance(loader := trainer.train_dataloader, DataLoader):
            self._trial.sees(loader)
        trainer.check_val_every_n_epoch = None  # batches count over epochs
        trainer.val_check_batch = NEVER

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss, and have the trainer validate if this step is a rung."""
        if isinstance(outputs, Mapping) and outputs.get("loss") is not None:
            self._trial.log(train_loss=outputs["loss"] * trainer.accumulate_grad_batches)
        self._due = self._trial.rung()
        trainer.val_check_batch = 1 if self._due else NEVER

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The weights to ship go in."""
        if self._due:
            self._ship(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """And out again; report. Raises what `trial.report` does."""
        if self._due:
            self._due = False
            self._shipped.close()
            who = f"{type(pl_module).__name__}.validation_step"
            loss, metrics = self._logged.of(trainer.callback_metrics, self._val, who)
            self._trial.report(val_loss=loss, **metrics)
            trainer.should_stop = self._trial.over

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The weights to ship go in."""
        self._ship(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """And out again; the trial is finished."""
        self._shipped.close()
        who = f"{type(pl_module).__name__}.test_step"
        loss, metrics = self._logged.of(trainer.callback_metrics, self._test, who)
        self._trial.finish(test_loss=loss, **metrics)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The weights to ship go out, whatever happened."""
        self._shipped.close()

    def _ship(self, module: LightningModule) -> None:
        with torch.inference_mode(False):  # a trainer tests in it
            self._shipped.enter_context(self._trial.evaluating(module, self._batches, call=self._call))
