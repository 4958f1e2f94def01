"""Arrays of numpy: a perceptron on handwritten digits. Is SOAP with schedule-free better than AdamW with cosine?"""

from sklearn.datasets import load_digits
from torch import nn

import optsweep

x, y = load_digits(return_X_y=True)


def model():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


print(optsweep.compare(optsweep.Task(model, (x / 16, y)), ["adamw + cosine", "soap + schedule_free"], name="digits"))
