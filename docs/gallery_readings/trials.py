"""The reading of search trials: how many of them the order of arms takes."""

from __future__ import annotations

from gallery_readings.answers import Answer, Held
from gallery_readings.arms import Choices, Results, groups_at, interval_of, where


def stable_by(results: Results, trials: int, at: Choices | None = None) -> list[Answer]:
    """The order of the arms that are told apart is stable before `trials` search trials. One answer per group."""
    found = []
    for group in groups_at(results, at):
        place, over = where(group, results), group.get("ranking_over_trials")
        if over is None:
            text = "no arms are told apart by three searches or more of eight trials or more"
            found.append(Answer(f"{place}How many trials the order takes can't be said: {text}.", Held.OPEN))
            continue
        after = interval_of(over["stable_after"])
        assert after is not None
        held = Held.OPEN
        if after.low is None or after.high is None:  # the same number in every search, or one of too few never is
            each = [float(first) for first in over["stable_from"]]
            held = Held.HELD if max(each) <= trials else Held.FAILED if min(each) > trials else Held.OPEN
        elif after.high < trials:
            held = Held.HELD
        elif after.low > trials:
            held = Held.FAILED
        found.append(Answer(f"{place}{over['sentence']}", held))
    return found
