"""A LightningModule, its data loaders and its Trainer, as they are anyway."""

import torch
from lightning import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import optsweep
from optsweep.integrations.lightning import TrialCallback

x, y = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
training, validation, test = random_split(digits, [1000, 400, 397], torch.Generator().manual_seed(0))
settings = {"max_epochs": -1, "devices": 1, "logger": False, "enable_checkpointing": False}
settings |= {"enable_progress_bar": False, "enable_model_summary": False}


class Digits(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def evaluated(self, batch, split):
        outputs = self(batch[0])
        self.log(f"{split}_loss", nn.functional.cross_entropy(outputs, batch[1]))
        self.log(f"{split}_accuracy", (outputs.argmax(-1) == batch[1]).float().mean())

    def validation_step(self, batch, batch_idx):
        self.evaluated(batch, "val")

    def test_step(self, batch, batch_idx):
        self.evaluated(batch, "test")


def train(trial):
    module = Digits()
    module.configure_optimizers = lambda: trial.optimizer(module)
    trainer = Trainer(accelerator=trial.device.type, callbacks=[TrialCallback(trial, "accuracy")], **settings)
    trainer.fit(module, DataLoader(training, 64, shuffle=True), DataLoader(validation, 400))
    trainer.test(module, DataLoader(test, 400), verbose=False)


print(optsweep.compare(train, ["adamw + cosine", "muon + schedule_free"], name="lightning", trainer={"steps": 200}))
