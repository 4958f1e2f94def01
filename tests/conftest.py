"""Settings for all tests."""

import os

import torch

torch.set_num_threads(1)  # tests may run side by side, and their models are too small for more

os.environ.pop("MLFLOW_TRACKING_URI", None)  # a test that wants a store elsewhere says so
