"""A task whose code ends its process, or hangs in it, where it is told to."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from typing import Any

import torch
from torch import Tensor, nn

from optsweep.tasks.pieces import Pieces
from own_pieces import X, Y


def task(at: str = "", how: str = "exit") -> Pieces:
    if at == "construction":
        ending(how)

    def model() -> nn.Module:
        if at == "model":
            ending(how)
        return nn.Linear(4, 2)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        callers = {frame.name for frame in traceback.extract_stack()}
        if (at == "timing" and "time_steps" in callers) or (at == "trial" and "_train_held" in callers):
            ending(how)
        return nn.functional.cross_entropy(outputs, targets)

    data = (torch.tensor(X, dtype=torch.float32), torch.tensor(Y))
    return Pieces(model, data, loss=loss)


def ending(how: str) -> None:
    endings: dict[str, Any] = {
        "exit": lambda: os._exit(0),
        "sys.exit": lambda: sys.exit(3),
        "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "hang": lambda: threading.Event().wait(),
    }
    endings[how]()
