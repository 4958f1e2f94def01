"""A trial in Lightning: `configure_optimizers` returns `trial.optimizer(self)`, and the Trainer gets a TrialCallback."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch.utils.data import DataLoader

from optsweep.integrations.logged import missing, reported
from optsweep.optim.batch_norm import Call, on_first
from optsweep.train.own.faults import LoopError
from optsweep.train.own.running import RunningTrial

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise missing("lightning", error) from None

NEVER = sys.maxsize
"""Batches between validations, where there are to be none."""


class TrialCallback(Callback):
    """Has a Trainer validate at the rungs of a trial, on the weights to ship, report there, and end with the budget.

    `val_loss` is the name that the module logs it by in `validation_step`; so are `metrics`, by their names in the
    report: `TrialCallback(trial, accuracy="val_acc")`. `batches` and `call` are those of `trial.evaluating`, for models
    with batch norm; by default the training loader's, of which the model is called with the first item.
    """

    def __init__(
        self,
        trial: RunningTrial,
        val_loss: str = "val_loss",
        *,
        batches: Iterable[Any] | None = None,
        call: Call = on_first,
        **metrics: str,
    ) -> None:
        self._trial, self._names = trial, {"val_loss": val_loss, **metrics}
        self._batches, self._call = batches, call
        self._due = False  # a report is due, and the trainer about to validate for it
        self._shipped = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that it is the trial's run, and leave out all validations but the trial's. Raises LoopError."""
        module, steps = type(pl_module).__name__, self._trial.steps
        if not any(optimizer in self._trial.optimizers for optimizer in trainer.optimizers):
            raise LoopError(f"{module}.configure_optimizers: it returns none of the trial's; return trial.optimizer(self)")
        if trainer.max_steps not in (-1, steps):
            raise LoopError(f"Trainer(max_steps={trainer.max_steps}): the budget is {steps}; give max_steps=trial.steps")
        if not trainer.enable_validation:
            raise LoopError(
                f"trainer.fit: no validation, by which trials are compared; give {module} a validation_step that logs "
                f"{self._names['val_loss']!r}, and fit its data"
            )
        if isinstance(loader := trainer.train_dataloader, DataLoader):
            self._trial.sees(loader)
        trainer.check_val_every_n_epoch = None  # count batches over epochs
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
            self._shipped.enter_context(self._trial.evaluating(pl_module, self._batches, call=self._call))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """And out again; report. Raises what `trial.report` does."""
        if self._due:
            self._due = False
            self._shipped.close()
            who = f"{type(pl_module).__name__}.validation_step"
            self._trial.report(**reported(trainer.callback_metrics, self._names, who))
            trainer.should_stop = self._trial.over

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The weights to ship go out, whatever happened."""
        self._shipped.close()
