"""A convolutional network with dropout and batch norm: what is averaged gets statistics of its own."""

from sklearn.datasets import load_digits
from torch import nn

import optsweep

x, y = load_digits(return_X_y=True)
x = x.reshape(-1, 1, 8, 8) / 16


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(256, 10),
    )


print(optsweep.compare(optsweep.Task(cnn, (x, y), steps=200), ["adamw + cosine", "adamw + schedule_free"], name="CNN"))
