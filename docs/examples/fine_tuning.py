"""Fine-tuning: a network that knows the digits below five learns the others; stem frozen, backbone at a tenth."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import optsweep

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).requires_grad_(False)
        self.backbone = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.backbone(self.stem(x)))


torch.manual_seed(0)
pretrained = Net().requires_grad_(True)
optimizer = torch.optim.Adam(pretrained.parameters(), lr=1e-2)
for _ in range(50):
    optimizer.zero_grad()
    nn.functional.cross_entropy(pretrained(x[y < 5]), y[y < 5]).backward()
    optimizer.step()
weights = {name: value for name, value in pretrained.state_dict().items() if not name.startswith("head.")}

groups = {"backbone.*": {"lr_factor": 0.1}, "*.bias": {"weight_decay": 0}}
task = optsweep.Task(Net, (x[y >= 5], y[y >= 5] - 5), weights=weights, groups=groups, steps=200)
arms = ["adamw + cosine + decoupled decay", "soap + cosine + decoupled decay"]
print(optsweep.compare(task, arms, name="the other digits"))
