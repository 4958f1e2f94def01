"""A loop of Hugging Face's Accelerate, with two micro-batches a step and its clipping.

optsweep -m task=own task._target_=accelerate_loop.train task.steps=200 task.batch_size=32 optimizer=adamw,muon sweep.name=loop
"""

from accelerate import Accelerator
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

x, y = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))
training, validation, test = random_split(digits, [1000, 400, 397], torch.Generator().manual_seed(0))


def train(trial):
    accelerator = Accelerator(gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
