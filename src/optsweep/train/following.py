"""A rank that follows: it does what rank 0 says, trial after trial of a program."""

from __future__ import annotations

from optsweep.train.checkpoint import unpacked
from optsweep.train.loop import surroundings
from optsweep.train.program import Program
from optsweep.train.ranks import Ranks, joined
from optsweep.train.run import Run, Silent
from optsweep.train.trial import Trial


class Follower:
    """What it holds between two orders: the run of the present trial."""

    run: Run

    def __init__(self, program: Program) -> None:
        self.program = program

    def begin(self, trial: Trial, content: bytes | None) -> None:
        """Another trial; what it goes on from is placed as that of rank 0 was."""
        saved = None if content is None else unpacked(content, self.program.device)
        rare = saved["rare"] if saved else self.program.traits.missing
        self.run = Run(self.program, [trial], Silent(), rare=rare)
        if saved:
            self.run.restore(saved)


def follow(program: Program, group: Ranks) -> None:
    """Do what rank 0 says of this program, until it says that there is no more. Raises whatever the model raises."""
    with joined(group), surroundings(program):
        follower = Follower(program)
        while (order := group.hear()) is not None:
            order.obey(follower)
