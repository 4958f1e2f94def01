"""On which machines trials were trained, where sweep.allow has let them differ: what that does to a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from optsweep.inference.comparison import in_common
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Comparison, Group
from optsweep.report.wording import listed, plural
from optsweep.tracking.reader import SweepRecord, TrialRecord

_NAMED = 4
"""Arms of which each is named in the verdict; of more the caveats have the list."""


@dataclass(frozen=True)
class _Part:
    """What of a machine is asked for, in words."""

    one: str
    several: str
    on: str
    of: Callable[[TrialRecord], str]


_PARTS = (
    _Part("the device does", "devices", "on", lambda trial: trial.device),
    _Part("the versions do", "versions", "with", lambda trial: trial.versions),
)


def machines(group: Group) -> Iterator[str]:
    """Sentences for the verdict, with numbers; none where all trials are of one machine.

    First the comparisons whose arms share none: there the machine may be what makes the difference.
    """
    for part in _PARTS:
        if len(_counts((trial for arm in group.arms for trial in arm.with_result), part)) > 1:
            yield from _apart(group, part)
            yield from _mixed(group, part)


def where_trained(group: Group) -> Iterator[str]:
    """How many trials of each arm ran where, as far as the verdict doesn't say so."""
    for part in _PARTS:
        counts = _by_arm(group.arms, part)
        total = Counter(name for count in counts.values() for name in count)
        if len(total) > 1 and (not group.comparisons or len(counts) > _NAMED):
            each = "; ".join(f"of {label} {_spread(count, part)}" for label, count in counts.items())
            yield f"Trials ran {part.on} different {part.several}: {each}."


def devices(sweep: SweepRecord) -> list[str]:
    """ "NVIDIA A100 (40 trials)", … where a sweep's trials are of several devices; else nothing."""
    found = _counts((trial for arm in sweep.arms for trial in arm.trials), _PARTS[0])
    return [f"{name} ({plural(count, 'trial')})" for name, count in found.most_common()] if len(found) > 1 else []


def _counts(trials: Iterable[TrialRecord], part: _Part) -> Counter[str]:
    """How many are of which; those of which nobody noted it are left out."""
    return Counter(name for trial in trials if (name := part.of(trial)))


def _by_arm(arms: Sequence[ArmResult], part: _Part) -> Mapping[str, Counter[str]]:
    found = {arm.label: _counts(arm.with_result, part) for arm in arms}
    return {label: count for label, count in found.items() if count}


def _spread(count: Counter[str], part: _Part) -> str:
    """ "16 on NVIDIA A100 and 8 on Tesla T4"."""
    return listed([f"{n} {part.on} {name}" for name, n in count.most_common()])


def _numbers(names: Iterable[str]) -> str:
    """ "NVIDIA A100 (5) and Tesla T4 (3)"."""
    return listed([f"{name} ({n})" for name, n in Counter(names).most_common()])


def _pairs(comparison: Comparison, part: _Part) -> list[tuple[str, str]]:
    """What both runs of each compared seed are of, candidate first, where that is known of both."""
    ours, theirs = comparison.candidate.confirm, comparison.baseline.confirm
    both, _ = in_common(comparison.candidate, comparison.baseline)
    pairs = [(part.of(ours[seed]), part.of(theirs[seed])) for seed in both]
    return [pair for pair in pairs if all(pair)]


def _share_none(comparison: Comparison, part: _Part) -> bool:
    """Whether the seeds of both arms are of different machines throughout."""
    pairs = _pairs(comparison, part)
    return bool(pairs) and {ours for ours, _ in pairs}.isdisjoint(theirs for _, theirs in pairs)


def _apart(group: Group, part: _Part) -> Iterator[str]:
    """Comparisons in which the machine changes together with the optimizer."""
    found = [comparison for comparison in group.comparisons if _share_none(comparison, part)]
    if not found:
        return
    each = [f"{c.candidate.label} ran {part.on} {_numbers(ours for ours, _ in _pairs(c, part))}" for c in found]
    if len(found) > _NAMED:
        each = [f"{plural(len(found), 'arm')} ran {part.on} none of the baseline's {part.several}"]
    base = group.baseline.label if len(group.comparisons) == 1 else f"the baseline, {group.baseline.label},"
    theirs = _numbers(name for _, name in _pairs(found[0], part))
    yield (
        f"But what the optimizer does can't be told from what {part.one}, since they changed together: the seeds of "
        f"{', those of '.join(each)}, and those of {base} {part.on} {theirs}."
    )


def _mixed(group: Group, part: _Part) -> Iterator[str]:
    """Arms whose trials are of several machines, and seeds that are compared across them."""
    counts = _by_arm(group.arms, part)
    several = [label for label, count in counts.items() if len(count) > 1]
    if not several:
        return
    if len(counts) <= _NAMED:
        said = "; ".join(f"of {label} {_spread(count, part)}" for label, count in counts.items())
    else:
        total: Counter[str] = sum(counts.values(), Counter())
        said = f"{_spread(total, part)}, those of {len(several)} of {plural(len(counts), 'arm')} {part.on} several"
    across = [text for c in group.comparisons if (text := _across(c, part, alone=len(group.comparisons) == 1))]
    seeds = f"; compared across {part.several}: {listed(across)}" if across else ""
    yield f"Trials ran {part.on} different {part.several}: {said}{seeds}."


def _across(comparison: Comparison, part: _Part, *, alone: bool) -> str:
    """ "3 of 8 seeds", with the candidate where there are others; empty where none is, or all are."""
    pairs = _pairs(comparison, part)
    count = sum(ours != theirs for ours, theirs in pairs)
    text = f"{count} of {plural(len(pairs), 'seed')}"
    return (
        "" if not count or _share_none(comparison, part) else text if alone else f"{comparison.candidate.label} {text}"
    )
