"""What a sweep's studies are called: `SWEEP | ARM | PHASE`, and ` | REPEAT` behind it for an arm's further searches.

A sweep's name has no bar in it; an arm's may, since it holds values of keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from optsweep.train.trial import Phase

_NAME = re.compile(rf"(?P<sweep>[^|]*) \| (?P<arm>.*) \| (?P<phase>{'|'.join(Phase)})( \| (?P<repeat>\d+))?", re.DOTALL)


@dataclass(frozen=True)
class StudyName:
    """A study, by what it is of."""

    sweep: str
    arm: str
    phase: Phase
    repeat: int = 0

    def __str__(self) -> str:
        return f"{self.sweep} | {self.arm} | {self.phase}" + (f" | {self.repeat}" if self.repeat else "")

    @property
    def key(self) -> tuple[str, Phase, int]:
        """Unique in the sweep."""
        return self.arm, self.phase, self.repeat

    @classmethod
    def read(cls, name: str) -> StudyName | None:
        """None for a study that somebody else has named."""
        found = _NAME.fullmatch(name)
        return found and cls(found["sweep"], found["arm"], Phase(found["phase"]), int(found["repeat"] or 0))
