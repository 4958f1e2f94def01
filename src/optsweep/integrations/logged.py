"""What a framework has logged, as what a trial reports; and a framework that isn't there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optsweep.train.own.faults import LoopError


def reported(logged: Mapping[str, Any], names: Mapping[str, str], who: str) -> dict[str, Any]:
    """The values to report, by the names in the report; `names` says what each is logged as.

    Raises LoopError, headed by `who`, for one that isn't logged.
    """
    for name, key in names.items():
        if key not in logged:
            there = f"there are {', '.join(logged)}" if logged else "nothing is"
            raise LoopError(f"{who}: {key!r} isn't logged in the evaluation ({there}); give TrialCallback(trial, {name}=…)")
    return {name: logged[key] for name, key in names.items()}


def missing(package: str, error: ImportError) -> ImportError:
    """The error for a framework that can't be imported."""
    return ImportError(f"optsweep.integrations needs {package} ({error}): pip install 'optsweep[frameworks]'")
