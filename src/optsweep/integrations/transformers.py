"""A trial in Hugging Face's Trainer: `optimizers=optimizers(trial, model), callbacks=[TrialTrainerCallback(trial)]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from optsweep.integrations.logged import Logged, missing
from optsweep.optim.batch_norm import Call, on_first
from optsweep.train.own.faults import LoopError
from optsweep.train.own.optimizer import TrialOptimizer
from optsweep.train.own.running import RunningTrial

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise missing("transformers and accelerate", error) from None


class OwnSchedule(LRScheduler):
    """Leaves learning rates to the schedule inside the optimizer; a Trainer that is given none makes one of its own."""

    def get_lr(self) -> list[Any]:
        """Those that are there."""
        return [group["lr"] for group in self.optimizer.param_groups]


def optimizers(trial: RunningTrial, model: nn.Module, **options: Any) -> tuple[TrialOptimizer, OwnSchedule]:
    """What a Trainer's `optimizers` is to be; `options` are those of `trial.optimizer`."""
    optimizer = trial.optimizer(model, **options)
    return optimizer, OwnSchedule(optimizer)


class TrialTrainerCallback(TrainerCallback):  # type: ignore[misc]  # of a framework that mypy skips
    """Has a Trainer evaluate at the rungs of a trial, on the weights to ship, report there, and stop with the budget.

    `loss` and `metrics` are names among the metrics of `Trainer.evaluate`, without their prefix:
    `TrialTrainerCallback(trial, "f1")` reads `eval_loss` and `eval_f1`. `batches` and `call` are those of
    `trial.evaluating`, for models with batch norm: by default the training loader's, which the model gets as keywords.
    """

    def __init__(
        self,
        trial: RunningTrial,
        *metrics: str,
        loss: str = "loss",
        batches: Iterable[Any] | None = None,
        call: Call = on_first,
    ) -> None:
        self._trial, self._logged = trial, Logged(loss, metrics)
        self._batches, self._call = batches, call
        self._due = False  # a report is due, and the trainer about to evaluate for it
        self._shipped = ExitStack()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Check that it is the trial's run. Raises LoopError."""
        trial = self._trial
        if isinstance(optimizer, AcceleratedOptimizer):
            optimizer = optimizer.optimizer
        if isinstance(lr_scheduler, AcceleratedScheduler):
            lr_scheduler = lr_scheduler.scheduler
        if optimizer not in trial.optimizers or not isinstance(lr_scheduler, OwnSchedule):
            raise LoopError(
                "Trainer: its optimizer and its schedule aren't the trial's; give optimizers=optimizers(trial, model)"
            )
        if state.max_steps != trial.steps:
            raise LoopError(
                f"TrainingArguments: they come to {state.max_steps} steps, and the budget is {trial.steps}; give "
                f"max_steps=trial.steps"
            )
        if args.seed != trial.seed:
            raise LoopError(f"TrainingArguments(seed={args.seed}): every trial would be the same; give seed=trial.seed")
        if isinstance(train_dataloader, DataLoader):
            trial.sees(train_dataloader)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Have the trainer log and evaluate if this step is a rung; the weights to ship go in."""
        self._due = self._trial.rung()
        if self._due:
            control.should_log = control.should_evaluate = True
            self._shipped.enter_context(self._trial.evaluating(model, self._batches, call=self._call))
        control.should_training_stop |= self._trial.over

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """And out again; report. Raises what `trial.report` does."""
        if self._due:
            self._due = False
            self._shipped.close()
            loss, others = self._logged.of(metrics or {}, "eval_", "Trainer.evaluate")
            self._trial.report(val_loss=loss, **others)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the training loss, which the trainer has averaged over `logging_steps`."""
        if logs and "loss" in logs:
            self._trial.log(train_loss=logs["loss"])
