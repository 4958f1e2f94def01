"""How the results of a sweep answer the gallery's question: pure functions of a results.json.

An entry of gallery.yaml lists readings: {kind: NAME, …options}. The kind is a function of this package; each returns
answers: one sentence with its interval, and whether what was expected held. "Held" needs an interval, or seeds that
diverged, that says so; where the opposite is shown, it did not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gallery_readings.across import flips, on_frontier, over_tasks, ranked
from gallery_readings.answers import Answer, Held, overall
from gallery_readings.arms import NotFound, Results
from gallery_readings.costs import fewer_steps, less_time, more_with, quicker_step, smaller_state
from gallery_readings.losses import lower, ordered, same
from gallery_readings.rates import wider_basin
from gallery_readings.trends import adds_up, chosen_slope, lead_shrinks
from gallery_readings.trials import stable_by

__all__ = ["READINGS", "Answer", "Held", "NotFound", "Results", "answers", "overall"]

Reading = Callable[..., list[Answer]]
READINGS: Mapping[str, Reading] = {
    reading.__name__: reading
    for reading in (
        lower,
        ordered,
        same,
        fewer_steps,
        less_time,
        more_with,
        quicker_step,
        smaller_state,
        wider_basin,
        flips,
        on_frontier,
        over_tasks,
        ranked,
        lead_shrinks,
        chosen_slope,
        adds_up,
        stable_by,
    )
}
"""Readings by the name that gallery.yaml gives them."""


def answers(results: Results, readings: Iterable[Mapping[str, Any]]) -> list[Answer]:
    """The answers of all readings, in order. Raises NotFound (a ValueError) where the results lack an arm."""
    found: list[Answer] = []
    for reading in readings:
        options = dict(reading)
        kind = options.pop("kind")
        if kind not in READINGS:
            raise NotFound(f"there is no reading '{kind}'; there are {', '.join(READINGS)}")
        found += READINGS[kind](results, **options)
    return found
