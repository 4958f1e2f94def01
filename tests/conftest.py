"""Settings for all tests."""

import torch

torch.set_num_threads(1)  # tests may run side by side, and their models are too small for more
