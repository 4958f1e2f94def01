"""optsweep: which optimizer and learning-rate schedule should you use for your model?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optsweep.api import check, compare, load
    from optsweep.result.result import Result
    from optsweep.tasks.criteria import per_batch
    from optsweep.tasks.pieces import Pieces as Task
    from optsweep.train.own.loop import Loop
    from optsweep.train.own.running import RunningTrial

__version__ = "0.1.0"
__all__ = ["Loop", "Result", "RunningTrial", "Task", "check", "compare", "load", "per_batch"]

_PLACES = {
    "optim": ("optsweep.optim", ""),
    "Loop": ("optsweep.train.own.loop", "Loop"),
    "Result": ("optsweep.result.result", "Result"),
    "RunningTrial": ("optsweep.train.own.running", "RunningTrial"),
    "Task": ("optsweep.tasks.pieces", "Pieces"),
    "check": ("optsweep.api", "check"),
    "compare": ("optsweep.api", "compare"),
    "load": ("optsweep.api", "load"),
    "per_batch": ("optsweep.tasks.criteria", "per_batch"),
}


def __getattr__(name: str) -> Any:
    """What is imported when it is first asked for: the command line answers without torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'optsweep' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = import_module(module)
    return vars(found)[attribute] if attribute else found
