"""Optimizers: every rule as a torch optimizer (docs/optimizers.md), and beneath, pure rules over rows of parameters.

optimizer = optsweep.optim.SOAP(model.parameters(), lr=3e-3, averaging="schedule_free")
optimizer = optsweep.optim.for_model(model, "muon", lr=3e-3)  # knows embeddings and heads
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optsweep.optim.family import (
        LAMB,
        SGD,
        SOAP,
        AdaDelta,
        AdaGrad,
        Adam,
        AdamW,
        Lion,
        Momentum,
        Muon,
        Nesterov,
        RMSprop,
        for_model,
        optimizer_of,
    )
    from optsweep.optim.schedules import Schedule

__all__ = [
    "LAMB",
    "SGD",
    "SOAP",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Lion",
    "Momentum",
    "Muon",
    "Nesterov",
    "RMSprop",
    "Schedule",
    "for_model",
    "optimizer_of",
]


def __getattr__(name: str) -> object:
    """The public names, imported when they are asked for: the rules' modules need torch only then."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{'schedules' if name == 'Schedule' else 'family'}")
    return vars(module)[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
