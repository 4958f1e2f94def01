"""A variational autoencoder: its loss sees everything that the model returns, and the batch."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import optsweep


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decode = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x):
        mean, log_var = self.encode(x).chunk(2, -1)
        return self.decode(mean + torch.randn_like(mean) * (log_var / 2).exp()), mean, log_var


def negative_elbo(outputs, batch):
    decoded, mean, log_var = outputs
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)
    return ((decoded - batch).square().sum(-1) + kl).mean()


task = optsweep.Task(VAE, load_digits().data / 16, loss=negative_elbo, loss_unit="negative ELBO")
print(optsweep.compare(task, ["adamw + cosine", "adamw + schedule_free"], name="digits by a VAE"))
