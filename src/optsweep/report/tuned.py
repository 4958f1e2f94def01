"""A shown difference decides nothing where the arm that ends higher was tuned less; and that one is not the lowest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optsweep.inference.comparison import Conclusion

if TYPE_CHECKING:
    from optsweep.report.arm_result import ArmResult
    from optsweep.report.comparison import Comparison


def as_tuned(candidate: ArmResult, baseline: ArmResult, shown: Conclusion) -> Conclusion:
    """Not decided where the arm that ends higher was tuned less: not bracketed, or with fewer search trials."""
    if not (shown.better or shown.worse):
        return shown
    behind, ahead = (baseline, candidate) if shown.better else (candidate, baseline)
    tuned_less = behind.unbracketed or behind.num_searched < ahead.num_searched
    return Conclusion.UNDECIDED if tuned_less else shown


def not_worse(
    lowest: tuple[ArmResult, ...], baseline: ArmResult, comparisons: Sequence[Comparison]
) -> tuple[ArmResult, ...]:
    """Without arms that the comparisons with the baseline, which are fewer than all pairs, show to end higher."""
    higher = [comparison.candidate for comparison in comparisons if comparison.outcome.worse]
    higher += [baseline] if any(comparison.outcome.better for comparison in comparisons) else []
    return tuple(arm for arm in lowest if all(arm is not other for other in higher))
