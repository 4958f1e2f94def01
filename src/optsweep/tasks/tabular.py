"""Small tables that scikit-learn ships, with logistic regression or a multilayer perceptron."""

from __future__ import annotations

from torch import nn

from optsweep.checks import choice, number, optional, whole
from optsweep.tasks.base import Facts
from optsweep.tasks.classification import Classification, stratified
from optsweep.tasks.networks import MLP
from optsweep.tasks.shipped import TABLES, table


class Table(Classification):
    """Rows of a table with `layers` hidden layers of `width`; 0 layers is logistic regression.

    Split 60/20/20, every class alike; features are standardised by the training rows (digits: all pixels together).
    """

    head_modules = ("head",)
    reads = ()

    def __init__(
        self,
        *,
        dataset: str = "digits",
        layers: int = 2,
        width: int = 64,
        reference_batch_size: int = 64,
        target_loss: float | None = None,
    ) -> None:
        self.dataset = choice("task.dataset", dataset, tuple(TABLES))
        self.layers, self.width = whole("task.layers", layers, low=0), whole("task.width", width)
        self.target_loss = optional(number)("task.target_loss", target_loss)
        features, targets = table(dataset)
        rows = stratified(targets)
        super().__init__(features, targets, rows, None if dataset == "digits" else (0,))
        self.num_features = features.shape[1]
        self.facts = Facts(
            "mlp" if layers else "linear",
            "complex" if layers else "simple",
            whole("task.reference_batch_size", reference_batch_size),
            fan_in=width if layers else self.num_features,
        )

    def model(self) -> nn.Module:
        """The perceptron."""
        return MLP(self.num_features, self.width, self.layers, self.num_classes)
