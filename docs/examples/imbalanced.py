"""Imbalanced classes: trained by a loss, judged by the area under the ROC curve of the whole split."""

from sklearn.datasets import make_classification
from sklearn.metrics import roc_auc_score
from torch import nn

import optsweep

x, y = make_classification(2000, 20, weights=[0.95], random_state=0)


def model():
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))


def loss(outputs, targets):
    return nn.functional.binary_cross_entropy_with_logits(outputs, targets.float())


def auc(outputs, targets):
    return roc_auc_score(targets, outputs)


task = optsweep.Task(model, (x, y), loss=loss, metric=auc, objective="metric")
print(optsweep.compare(task, ["adamw + cosine", "lion + cosine"], name="rare class"))
