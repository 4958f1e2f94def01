"""How many confirm runs a figure is of, in words: a caption's n, where an arm may have been searched several times."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from optsweep.inference.repeats import repeat_of, repeats_of
from optsweep.report.wording import plural


def several(arms: Iterable[Collection[int]]) -> bool:
    """Whether an arm's runs, given as indices of their seeds, are of several searches."""
    return any(len({repeat_of(seed) for seed in seeds}) > 1 for seeds in arms)


def runs(arms: Collection[Collection[int]]) -> str:
    """ "3 seeds", "2 to 3 seeds", "4 searches × 3 seeds": of each arm, by the indices of its seeds."""
    if not several(arms):
        return how_many([len(seeds) for seeds in arms], "seed")
    found = [repeats_of(dict.fromkeys(seeds, 0.0)) for seeds in arms if seeds]
    searches = how_many([len(held) for held in found], "search")
    return f"{searches} × {how_many([len(seeds) for held in found for seeds in held.values()], 'seed')}"


def independent(counts: Iterable[int], searches: bool) -> str:
    """ "3 searches", "3 seeds": what a test takes as independent."""
    return how_many(counts, "search" if searches else "seed")


def how_many(counts: Iterable[int], noun: str) -> str:
    """ "3 seeds", "2 to 3 seeds"."""
    held = sorted(set(counts)) or [0]
    words = plural(held[-1], noun) if noun != "search" else f"{held[-1]:,} search{'' if held[-1] == 1 else 'es'}"
    return words if len(held) == 1 else f"{held[0]:,} to {words}"
