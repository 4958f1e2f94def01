"""A training loop: put your model, data and loss in their places, one by one; `optsweep check task=mine` after each.

What comes from `trial` stays: the optimizer, the batches, when to evaluate, and to whom the losses are told.
"""

import optsweep
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

x, y = load_digits(return_X_y=True)
DIGITS = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
TRAIN, VALIDATION, TEST = random_split(DIGITS, [1000, 400, 397], torch.Generator().manual_seed(0))


def train(trial: optsweep.RunningTrial, width: int = 64) -> None:
    """Train one trial to its end. What follows `trial` are keys of the command line: task.width=32,64."""
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))  # its weights are the trial seed's
    optimizer = trial.optimizer(model)  # with the arm's learning rate, schedule, weight decay and averaging inside
    loader = DataLoader(TRAIN, trial.batch_size, shuffle=True, drop_last=True)
    for step, (images, classes) in trial.batches(loader):  # on trial.device, until the budget is used up
        loss = nn.functional.cross_entropy(model(images), classes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trial.log(train_loss=loss)  # for the curves; the device isn't waited for
        if trial.rung(step):
            with trial.evaluating(model):  # the weights that one would ship, in eval mode, without gradients
                loss, accuracy = scores(model, VALIDATION[:], trial.device)
            trial.report(val_loss=loss, accuracy=accuracy)  # settings are chosen by val_loss
    with trial.evaluating(model):
        loss, accuracy = scores(model, TEST[:], trial.device)
    trial.finish(test_loss=loss, accuracy=accuracy)  # on which the verdict rests


def scores(model: nn.Module, batch: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean loss, and share of right answers."""
    images, classes = (tensor.to(device) for tensor in batch)
    outputs = model(images)
    return nn.functional.cross_entropy(outputs, classes), (outputs.argmax(-1) == classes).float().mean()
