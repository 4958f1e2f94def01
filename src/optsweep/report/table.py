"""The arms as a table of plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from optsweep.report import chosen
from optsweep.report.arm_result import LOSS, ArmResult
from optsweep.report.comparison import Group
from optsweep.report.samples import are_unequal, cell
from optsweep.report.wording import number, p_value, plus_minus, plus_minus_difference, size, spread
from optsweep.tracking.names import Status
from optsweep.tracking.reader import LEARNING_RATE, WEIGHT_DECAY
from optsweep.train.trial import Phase

_SAMPLES = "samples seen"
_ALSO = "also chosen"
_DECIDES, _ASIDE = "test", "test loss"
_COLUMNS = (
    *("task", "arm", "lr", "λ", _ALSO, _DECIDES, _ASIDE, "difference", "p", "ms/step", "state"),
    *(_SAMPLES, "trials"),
)


def table(groups: Sequence[Group]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Names of the columns, and a row per arm; what is said only where there is such has a column only then."""
    rows = [_row(group, arm) for group in groups for arm in group.by_result]
    measures = {arm.measure: None for group in groups for arm in group.arms}
    needed = {
        _SAMPLES: any(map(are_unequal, groups)),
        _ALSO: any(map(chosen.any_chosen, groups)),
        _ASIDE: any(measure != LOSS for measure in measures),
    }
    shown = [column for column in _COLUMNS if needed.get(column, True)]
    titles = {_DECIDES: f"test {' or '.join(measures)}"}
    return tuple(titles.get(column, column) for column in shown), tuple(
        tuple(row[column] for column in shown) for row in rows
    )


def _row(group: Group, arm: ArmResult) -> dict[str, str]:
    comparison = next((c for c in group.comparisons if c.candidate is arm), None)
    ended = [f"{sum(arm.count(phase, status) for phase in Phase)} {status}" for status in Status]
    texts = (
        group.title,
        arm.label + (" (baseline)" if arm is group.baseline and group.comparisons else ""),
        spread(arm.settings(LEARNING_RATE)) + ("!" if arm.unbracketed else ""),
        spread(arm.settings(WEIGHT_DECAY)),
        chosen.in_words(arm),
        plus_minus(arm.test),
        plus_minus(arm.aside),
        plus_minus_difference(comparison.test) if comparison else "",
        p_value(comparison.p_holm).removeprefix("p ").removeprefix("= ") if comparison else "",
        number(arm.ms_per_step, 3),
        size(arm.state_bytes),
        cell(arm),
        ", ".join(text for text in ended if not text.startswith("0 ")),
    )
    return dict(zip(_COLUMNS, texts, strict=True))
