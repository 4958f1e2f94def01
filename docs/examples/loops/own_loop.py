"""A training loop of one's own: mixing up two batches, and stepping as it likes.

optsweep -m task=own task._target_=own_loop.train task.steps=200 task.batch_size=32 optimizer=adamw,soap sweep.name=loop
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

x, y = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
training, validation, test = random_split(digits, [1000, 400, 397], torch.Generator().manual_seed(0))


def loss_of(model, split):
    images, classes = split.dataset[split.indices]
    return nn.functional.cross_entropy(model(images), classes)


def train(trial):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = trial.optimizer(model)
    for step, (images, classes) in trial.batches(DataLoader(training, 32, shuffle=True, drop_last=True)):
        share = torch.distributions.Beta(0.2, 0.2).sample()
        outputs = model(share * images + (1 - share) * images.flip(0))
        loss = nn.functional.cross_entropy(outputs, classes).lerp(
            nn.functional.cross_entropy(outputs, classes.flip(0)), 1 - share
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trial.log(train_loss=loss)
        if trial.rung(step):
            with trial.evaluating(model):
                trial.report(val_loss=loss_of(model, validation))
    with trial.evaluating(model):
        trial.finish(test_loss=loss_of(model, test))
