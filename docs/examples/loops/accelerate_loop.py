"""A loop of Hugging Face's Accelerate, which places and clips.

optsweep -m task=own task._target_=accelerate_loop.train task.steps=200 optimizer=adamw,muon sweep.name=accelerate
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

x, y = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
training, validation, test = random_split(digits, [1000, 400, 397], torch.Generator().manual_seed(0))


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def train(trial):
    accelerator = Accelerator(cpu=trial.device.type == "cpu")
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    val_loader, test_loader = accelerator.prepare(DataLoader(validation, 400), DataLoader(test, 397))
    loader = accelerator.prepare(DataLoader(training, 64, shuffle=True, drop_last=True))
    model, optimizer = accelerator.prepare(model, trial.optimizer(model))
    for step, batch in trial.batches(loader):
        accelerator.backward(loss_of(model, batch))
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if trial.rung(step):
            with trial.evaluating(model):
                trial.report(val_loss=loss_of(model, next(iter(val_loader))))
    with trial.evaluating(model):
        trial.finish(test_loss=loss_of(model, next(iter(test_loader))))
