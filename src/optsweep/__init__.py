"""optsweep: which optimizer and learning-rate schedule should you use for your model?"""

from importlib import import_module

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`optsweep.optim` after `import optsweep`, imported when it is asked for."""
    if name == "optim":
        return import_module("optsweep.optim")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
