"""A LightningModule: its trainer, data loaders and logged metrics stay as they are."""

import lightning
import optsweep
import torch
from optsweep.integrations.lightning import TrialCallback
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
training, validation, test = torch.utils.data.random_split(data, [1000, 400, 397], torch.Generator().manual_seed(0))


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def evaluated(self, batch, split):
        outputs = self(batch[0])
        self.log(f"{split}_loss", nn.functional.cross_entropy(outputs, batch[1]))
        self.log(f"{split}_accuracy", (outputs.argmax(-1) == batch[1]).float().mean())

    def validation_step(self, batch, _):
        self.evaluated(batch, "val")

    def test_step(self, batch, _):
        self.evaluated(batch, "test")


def train(trial):
    module = Digits()
    module.configure_optimizers = lambda: trial.optimizer(module)
    trainer = lightning.Trainer(
        max_steps=trial.steps,
        callbacks=[TrialCallback(trial, accuracy="val_accuracy")],
        accelerator=trial.device.type,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(training, trial.batch_size, shuffle=True), DataLoader(validation, 400))
    with trial.evaluating(module):
        (scores,) = trainer.test(module, DataLoader(test, 400), verbose=False)
    trial.finish(test_loss=scores["test_loss"], accuracy=scores["test_accuracy"])


loop = optsweep.Loop(train, steps=200, batch_size=32)
print(optsweep.compare(loop, ["adamw + cosine", "muon + schedule_free"], name="lightning"))
