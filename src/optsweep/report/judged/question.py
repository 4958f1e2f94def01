"""What is asked of runs: which columns say what, who is held against whom, by which test."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from optsweep.errors import UserError

LAST: Final = "last"
"""Each run's own last step."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Raises UserError, naming the option of the command line, for what has no meaning."""

    arm: str  # column of who is compared
    metric: str  # column that is compared
    seed: str | None = None  # column that numbers the runs of an arm; None: every row is a run
    step: str | None = None  # column of steps: rows are points of curves
    at: float | Literal["last"] | None = None  # the step that counts; None: the last one that all arms have
    baseline: str | None = None  # an arm; None: the first
    against_previous: bool = False  # each arm against the one before
    arms: tuple[str, ...] = ()  # which, and their order; none given: all, as they appear
    sigma: float | None = None  # SD of a run, taken as known
    mean_of: str | None = None  # column of how many runs a row is the mean of
    per_step: float = 0.0  # what a step more lowers the loss by, to compare arms that end at different steps
    one_sided: bool = False  # tests whether the candidate is better, never whether it is worse
    restarts: bool = False  # where the steps of a run begin again, another run of its name begins
    unpaired: bool = False  # equal seeds are not the same seed
    higher_is_better: bool = False
    delta: float | None = None  # a difference too small to matter
    names: str | None = None  # pattern of the runs' names, whose named groups are columns
    where: tuple[tuple[str, str], ...] = ()  # (column, value) of the rows that count

    def __post_init__(self) -> None:
        for option, value in (("--sigma", self.sigma), ("--delta", self.delta)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"{option}: {value} is not allowed; give a number > 0")
        if not (math.isfinite(self.per_step) and self.per_step >= 0):
            raise UserError(f"--per-step: {self.per_step} is not allowed; give how much a step lowers the loss, ≥ 0")
        if self.at is not None and self.step is None:
            raise UserError("--at: it picks a step of curves; name their column of steps with --step too")
        if self.at not in (None, LAST) and not math.isfinite(float(self.at or 0)):
            raise UserError(f"--at: {self.at} is not allowed; give a step, or last")
        if self.restarts and self.step is None:
            raise UserError("--restarts: it is about steps that begin again; name their column with --step too")
        if self.per_step and self.step is None:
            raise UserError("--per-step: it needs the steps that runs ended at; name their column with --step too")
        if self.step is not None and self.seed is None and self.mean_of is None:
            raise UserError("--step: rows are points of curves; name the column that tells runs apart with --seed")
        if self.mean_of is not None and self.sigma is None:
            raise UserError("--mean-of: means of several runs have no spread to test against; give --sigma too")
        if self.baseline is not None and self.against_previous:
            raise UserError("--baseline: with --against previous each arm has its own; give one of the two")
        if self.names is not None:
            try:
                groups = re.compile(self.names).groupindex
            except re.error as error:
                raise UserError(f"--names: {self.names} is no regular expression ({error})") from None
            if not groups:
                raise UserError("--names: it has no named group, such as (?P<optimizer>.+)-(?P<seed>[0-9]+)")

    @property
    def sign(self) -> float:
        """What makes the metric a loss."""
        return -1.0 if self.higher_is_better else 1.0
