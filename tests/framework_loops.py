"""One model in the loops of three frameworks and in one by hand, all over the same batches in the same order.

Imported where it is used: Lightning and transformers take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
import torch.nn.functional as F
import transformers
from accelerate import Accelerator
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optsweep.integrations.lightning import TrialCallback
from optsweep.integrations.transformers import TrialTrainerCallback, optimizers
from optsweep.train.own.running import RunningTrial
from own_loops import CLASSES, INPUTS, TEST, TRAIN, VAL, score

BATCH = 15  # eight batches an epoch
SAMPLES = [{"inputs": row, "labels": label} for row, label in zip(INPUTS, CLASSES, strict=True)]


def batches(rows: slice, size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(INPUTS[rows], CLASSES[rows]), size)


VALIDATION = batches(VAL, 20)


class Normed(LightningModule):  # type: ignore[misc]
    """A network with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        width = INPUTS.shape[1]
        self.net = nn.Sequential(
            nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, int(CLASSES.max()) + 1)
        )

    def forward(self, inputs: Tensor) -> Any:
        return self.net(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._logged("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._logged("test", batch)

    def _logged(self, split: str, batch: Any) -> None:
        outputs = self(batch[0])
        self.log(f"{split}_loss", F.cross_entropy(outputs, batch[1]))
        self.log(f"{split}_accuracy", (outputs.argmax(-1) == batch[1]).float().mean())


class Keyworded(nn.Module):
    """The same, as a Trainer calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Normed().net

    def forward(self, inputs: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        outputs = self.net(inputs)
        return {"loss": F.cross_entropy(outputs, labels), "logits": outputs}


def by_hand(trial: RunningTrial, micro_batches: int = 1) -> None:
    model = Normed()
    optimizer = trial.optimizer(model)
    for number, (_, batch) in enumerate(trial.batches(batches(TRAIN, BATCH)), 1):
        loss = model.training_step(batch, 0)
        torch.autograd.backward(loss / micro_batches)
        if number % micro_batches == 0:
            optimizer.step()
            optimizer.zero_grad()
        trial.log(train_loss=loss)
        if trial.rung():
            with trial.evaluating(model):
                loss, accuracy = score(model, VAL)
            trial.report(val_loss=loss, accuracy=accuracy)
    with trial.evaluating(model):
        loss, accuracy = score(model, TEST)
    trial.finish(test_loss=loss, accuracy=accuracy)


def by_accelerate(trial: RunningTrial, micro_batches: int = 1) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=micro_batches)
    model = Normed()
    model, optimizer, loader = accelerator.prepare(model, trial.optimizer(model), batches(TRAIN, BATCH))
    for step, batch in trial.batches(loader):
        with accelerator.accumulate(model):
            loss = model.training_step(batch, 0)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        trial.log(train_loss=loss)
        if trial.rung(step):
            with trial.evaluating(model):
                loss, accuracy = score(model, VAL)
            trial.report(val_loss=loss, accuracy=accuracy)
    with trial.evaluating(model):
        loss, accuracy = score(model, TEST)
    trial.finish(test_loss=loss, accuracy=accuracy)


def by_lightning(
    trial: RunningTrial,
    micro_batches: int = 1,
    module: Normed | None = None,
    configured: Any = None,
    validation: Any = VALIDATION,
    metric: str = "accuracy",
    **settings: Any,
) -> None:
    """As the documentation has it; `configured` is what `configure_optimizers` returns instead of the trial's."""
    module = module or Normed()
    module.configure_optimizers = lambda: configured(trial, module) if configured else trial.optimizer(module)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        accumulate_grad_batches=micro_batches,
        callbacks=[TrialCallback(trial, metric)],
        **{"max_epochs": -1, **quiet, **settings},
    )
    trainer.fit(module, batches(TRAIN, BATCH), validation)
    trainer.test(module, batches(TEST, 40), verbose=False)


def by_trainer(trial: RunningTrial, micro_batches: int = 1, given: Any = optimizers, **settings: Any) -> None:
    """As the documentation has it; `given` are the optimizers instead of the trial's."""
    model = Keyworded()
    arguments = {
        "max_steps": trial.steps,
        "seed": trial.seed,
        "gradient_accumulation_steps": micro_batches,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 20,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": 0.0,
        "use_cpu": True,
        "output_dir": ".",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **settings,
    }
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(**arguments),
        train_dataset=SAMPLES[TRAIN],
        eval_dataset=SAMPLES[VAL],
        compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(-1) == found.label_ids).mean()},
        optimizers=given(trial, model),
        callbacks=[TrialTrainerCallback(trial, "accuracy")],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    with trial.evaluating(model):
        scores = trainer.evaluate(SAMPLES[TEST])
    trial.finish(test_loss=scores["eval_loss"], accuracy=scores["eval_accuracy"])
