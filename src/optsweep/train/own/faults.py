"""How a loop of the user's is left before its end, and what it can do wrong."""

from __future__ import annotations

from optsweep.errors import UserError


class TrialOver(BaseException):
    """The trial is over. No `Exception`, so that a user's `except Exception` doesn't keep it."""


class Pruned(TrialOver):
    """It was pruned, or has diverged."""


class Stop(TrialOver):
    """Nobody wants to know more of it: the sweep was stopped, or a rehearsal has seen enough."""


class LoopError(UserError):
    """A mistake in a loop of the user's."""
