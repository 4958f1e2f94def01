"""A training loop of one's own, which mixes up every batch with itself.

optsweep -m task=own task._target_=own_loop.train task.steps=200 optimizer=adamw,soap sweep.name=loop
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

x, y = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
training, validation, test = random_split(digits, [1000, 400, 397], torch.Generator().manual_seed(0))


def loss_of(model, images, classes):
    return nn.functional.cross_entropy(model(images), classes)


def train(trial):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = trial.optimizer(model)
    for step, (images, classes) in trial.batches(DataLoader(training, 64, shuffle=True, drop_last=True)):
        share = torch.distributions.Beta(0.2, 0.2).sample()
        mixed = share * images + (1 - share) * images.flip(0)
        loss = share * loss_of(model, mixed, classes) + (1 - share) * loss_of(model, mixed, classes.flip(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if trial.rung(step):
            with trial.evaluating(model):
                trial.report(val_loss=loss_of(model, *validation[:]))
    with trial.evaluating(model):
        trial.finish(test_loss=loss_of(model, *test[:]))
