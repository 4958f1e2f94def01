"""What a framework has logged, as what a trial reports; and a framework that isn't there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optsweep.train.own.faults import LoopError


@dataclass(frozen=True)
class Logged:
    """The names by which a framework logs the loss and the metrics of a split, each with the split's prefix."""

    loss: str
    metrics: Sequence[str]

    def of(self, logged: Mapping[str, Any], prefix: str, who: str) -> tuple[Any, dict[str, Any]]:
        """The loss, and the metrics by name. Raises LoopError, headed by `who`, for one that isn't there."""
        for name in (self.loss, *self.metrics):
            if prefix + name not in logged:
                there = f"there are {', '.join(logged)}" if logged else "nothing is"
                raise LoopError(
                    f"{who}: nothing is logged as {prefix + name!r} ({there}); see the names that the callback takes"
                )
        return logged[prefix + self.loss], {name: logged[prefix + name] for name in self.metrics}


def missing(package: str, error: ImportError) -> ImportError:
    """The error for a framework that can't be imported."""
    return ImportError(f"optsweep.integrations needs {package} ({error}): pip install 'optsweep[frameworks]'")
