"""Networks for classification: perceptron, convolutional network, residual networks with batch norm.

A convolution before batch norm has no bias: its gradient would be rounding noise alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

HEAD_STD = 0.01
"""Standard deviation of the output layer: small, so that the loss starts at chance."""


class MLP(nn.Module):
    """Inputs `[B, num_inputs]` → logits `[B, num_outputs]` through `layers` hidden layers with ReLU; 0 is linear."""

    def __init__(self, num_inputs: int, width: int, layers: int, num_outputs: int) -> None:
        super().__init__()
        widths = [num_inputs, *[width] * layers]
        self.hidden = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        self.head = nn.Linear(widths[-1], num_outputs)
        initialize(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        hidden = inputs
        for linear in self.hidden:
            hidden = linear(hidden).relu()
        logits: Tensor = self.head(hidden)
        return logits


class ConvNet(nn.Module):
    """Images `[B, C, H, W]` → logits; 3 × 3 convolutions, ReLU and 2 × 2 pooling, one round per entry of `widths`."""

    def __init__(self, channels: int, size: int, widths: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(n, m, 3, padding=1) for n, m in pairwise([channels, *widths]))
        side = size // 2 ** len(widths)
        self.head = nn.Linear(widths[-1] * side * side, num_outputs)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        hidden = images
        for convolution in self.convolutions:
            hidden = F.max_pool2d(convolution(hidden).relu(), 2)
        logits: Tensor = self.head(hidden.flatten(-3))
        return logits


class ResNet(nn.Module):
    """Residual network for small images (He 2016, section 4.2): a stem, stages of basic blocks, mean pooling.

    `widths` has one entry per stage, each stage but the first halves the image. `preactivation` is the form of Wide
    ResNet (Zagoruyko 2016): norm and ReLU before each convolution and once at the end.
    """

    def __init__(
        self,
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        num_outputs: int,
        *,
        preactivation: bool = False,
    ) -> None:
        super().__init__()
        self.preactivation = preactivation
        self.stem = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        block = PreactivationBlock if preactivation else BasicBlock
        inputs = [stem, *(width for width in widths for _ in range(blocks))]
        strides = [2 if stage and not place else 1 for stage in range(len(widths)) for place in range(blocks)]
        self.blocks = nn.ModuleList(
            block(n, m, stride) for (n, m), stride in zip(pairwise(inputs), strides, strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[-1] if preactivation else stem)
        self.head = nn.Linear(widths[-1], num_outputs)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        hidden = self.stem(images)
        if not self.preactivation:
            hidden = self.norm(hidden).relu()
        for block in self.blocks:
            hidden = block(hidden)
        if self.preactivation:
            hidden = self.norm(hidden).relu()
        logits: Tensor = self.head(hidden.mean((-2, -1)))
        return logits


class BasicBlock(nn.Module):
    """Two convolutions with batch norm, ReLU after the sum."""

    def __init__(self, num_inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(num_inputs, width, stride), nn.BatchNorm2d(width)
        self.second, self.second_norm = _convolution(width, width, 1), nn.BatchNorm2d(width)
        self.shortcut = _shortcut(num_inputs, width, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, width, H / stride, W / stride]`."""
        hidden = self.first_norm(self.first(inputs)).relu()
        hidden = self.second_norm(self.second(hidden))
        kept = inputs if self.shortcut is None else self.shortcut(inputs)
        out: Tensor = (hidden + kept).relu()
        return out


class PreactivationBlock(nn.Module):
    """Batch norm and ReLU before each of two convolutions; the sum is left as it is."""

    def __init__(self, num_inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first_norm, self.first = nn.BatchNorm2d(num_inputs), _convolution(num_inputs, width, stride)
        self.second_norm, self.second = nn.BatchNorm2d(width), _convolution(width, width, 1)
        self.shortcut = _shortcut(num_inputs, width, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, width, H / stride, W / stride]`."""
        normed = self.first_norm(inputs).relu()
        hidden = self.second(self.second_norm(self.first(normed)).relu())
        out: Tensor = hidden + (inputs if self.shortcut is None else self.shortcut(normed))
        return out


def _convolution(num_inputs: int, width: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(num_inputs, width, 3, stride=stride, padding=1, bias=False)


def _shortcut(num_inputs: int, width: int, stride: int) -> nn.Conv2d | None:
    return nn.Conv2d(num_inputs, width, 1, stride=stride, bias=False) if stride > 1 or num_inputs != width else None


def initialize(network: nn.Module) -> None:
    """He's initialisation (2015) for what ReLU follows; biases start at zero."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and name == "head":
            nn.init.normal_(module.weight, std=HEAD_STD)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.zeros_(module.bias)
