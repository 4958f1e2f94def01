"""What a call of a sweep came to: plain data, which is there without what trains."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Basis:
    """What the next call of a finished sweep would find again, if nothing changed."""

    notes: tuple[str, ...]  # that it would say
    reads: tuple[str, ...]  # files that its numbers depend on, beside those of installed packages
    trials: str  # digest of what both stores have of its trials, taken while no other process might plan them


@dataclass(frozen=True)
class SweepResult:
    """What a call of `run_sweep` came to."""

    sweep: str
    tracking_uri: str = field(repr=False)
    arms: tuple[str, ...]  # names
    trials: int  # that ended in this call
    done: int  # trials that the sweep has
    seconds: float
    run: str  # of the sweep, in the tracking store
    results: str  # identifies what a report of the sweep states now
    reported: bool  # whether the last report states just that
    failure: str | None = None  # the first error, where every trial of the sweep crashed
    basis: Basis | None = None  # None: the next call has something to do, or to look at that isn't known from here
