"""A Dataset that shifts and blurs digits at random while training, but not while evaluating."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

import optsweep

images, classes = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)


class Digits(Dataset):
    def __init__(self, rows, augment=False):
        self.images, self.classes, self.augment = images[rows], classes[rows], augment

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        if self.augment:
            image = image.roll(int(torch.randint(-1, 2, ())), -1) + 0.05 * torch.randn_like(image)
        return image, int(self.classes[index])


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


train, val, test = Digits(slice(0, 1000), augment=True), Digits(slice(1000, 1400)), Digits(slice(1400, None))

task = optsweep.Task(model, train, val, test, steps=200)
print(optsweep.compare(task, ["momentum + cosine", "adamw + cosine"], name="augmented digits"))
