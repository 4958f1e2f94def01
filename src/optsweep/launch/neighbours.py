"""Whether other programs kept this machine busy while something was timed."""

from __future__ import annotations

import time

FULL = 0.9
"""Share of all cores from which on programs wait for each other."""

DISTURBING = 0.15
"""Share of all cores that others may take without being worth a word."""


class Neighbours:
    """What other programs take of this machine's cores from now on."""

    def __init__(self) -> None:
        import psutil

        psutil.cpu_percent()  # tells the share since it was last asked
        self._wall, self._own = time.perf_counter(), _own_seconds()

    def said(self) -> str:
        """A line if they have made times longer; else nothing. To be asked once."""
        import psutil

        cores = psutil.cpu_count() or 1
        own = (_own_seconds() - self._own) / (time.perf_counter() - self._wall)
        return said_of(psutil.cpu_percent() / 100, own, cores)


def said_of(busy: float, own: float, cores: int) -> str:
    """`busy`: share of all cores at work; `own`: cores that this program had."""
    others = busy * cores - own
    if busy < FULL or others < DISTURBING * cores:
        return ""
    return (
        f"other programs took {others:.1f} of this machine's {cores} cores meanwhile, so the times above are too long, "
        f"by factors it may be"
    )


def _own_seconds() -> float:
    """Of processor time, of this process and of its children that have ended."""
    import psutil

    spent = psutil.Process().cpu_times()
    return float(spent.user + spent.system + spent.children_user + spent.children_system)
