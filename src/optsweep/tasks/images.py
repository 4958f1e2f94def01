"""MNIST in small: 5,000 real images that a Python package ships, with a convolutional or a residual network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from optsweep.checks import number, optional, whole, wholes
from optsweep.tasks.base import Facts
from optsweep.tasks.classification import Classification, stratified
from optsweep.tasks.networks import ConvNet, ResNet
from optsweep.tasks.shipped import mnist_5k

SIDE = 28  # pixels


class MNIST5k(Classification):
    """The images `[N, 1, 28, 28]`, standardised, split 60/20/20."""

    head_modules = ("head",)
    reads = ()

    def __init__(self, *, target_loss: float | None) -> None:
        images, targets = mnist_5k()
        super().__init__(images[:, None], targets, stratified(targets))
        self.target_loss = optional(number)("task.target_loss", target_loss)


class MNIST5kCNN(MNIST5k):
    """A convolutional network without batch norm."""

    def __init__(
        self,
        *,
        widths: Sequence[int] = (8, 16),
        reference_batch_size: int = 64,
        target_loss: float | None = None,
    ) -> None:
        self.widths = wholes("task.widths", widths)
        super().__init__(target_loss=target_loss)
        reference = whole("task.reference_batch_size", reference_batch_size)
        self.facts = Facts("cnn", "complex", reference, fan_in=9 * self.widths[0])

    def model(self) -> nn.Module:
        """The network."""
        return ConvNet(1, SIDE, self.widths, self.num_classes)


class MNIST5kResNet(MNIST5k):
    """A residual network with batch norm."""

    def __init__(
        self,
        *,
        widths: Sequence[int] = (8, 16, 32),
        blocks: int = 1,
        reference_batch_size: int = 64,
        target_loss: float | None = None,
    ) -> None:
        self.widths, self.blocks = wholes("task.widths", widths), whole("task.blocks", blocks)
        super().__init__(target_loss=target_loss)
        reference = whole("task.reference_batch_size", reference_batch_size)
        self.facts = Facts("resnet", "complex", reference, fan_in=9 * self.widths[-1])

    def model(self) -> nn.Module:
        """The network."""
        return ResNet(1, self.widths[0], self.widths, self.blocks, self.num_classes)
