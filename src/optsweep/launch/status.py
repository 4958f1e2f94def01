"""How far a sweep is, read from the studies that planner and workers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState
from rich.table import Table

from optsweep.address import read_address
from optsweep.errors import UserError, nearest
from optsweep.search.studies import Studies
from optsweep.tracking.schema import SweepPlan
from optsweep.train.trial import Phase


@dataclass(frozen=True)
class PhaseStatus:
    """How far a phase of an arm is, in trials of all its repeats."""

    arm: str
    phase: Phase
    done: int
    running: int
    waiting: int
    diverged: int
    pruned: int
    crashed: int
    best: float | None  # validation loss; None: no trial has one yet

    @property
    def others(self) -> str:
        """ "2 running, 1 diverged": what there is besides trials that are done and well."""
        counts = {"running": self.running, "waiting": self.waiting, "diverged": self.diverged, "pruned": self.pruned}
        crashes = [f"{self.crashed} crash{'' if self.crashed == 1 else 'es'}"] if self.crashed else []
        return ", ".join([f"{count} {what}" for what, count in counts.items() if count] + crashes)


def short_names(names: Sequence[str]) -> list[str]:
    """Arms' names for people: optimizer and schedule, and of the other choices those that not all arms share."""
    parts = [_choices(name) for name in names]
    keys = list(dict.fromkeys(key for own in parts for key in own))
    told = [key for key in keys if key in _ALWAYS or (len({own.get(key) for own in parts}) > 1 and key != "recipe")]
    short = [" + ".join(_word(key, own[key]) for key in told if key in own) for own in parts]
    return short if all(short) and len(set(short)) == len(set(names)) else list(names)


_ALWAYS = ("optimizer", "schedule")


def _choices(name: str) -> dict[str, str]:
    """ "task=iris optimizer=sgd" as pairs; a value may have spaces."""
    found: dict[str, str] = {}
    last = ""
    for word in name.split(" "):
        key, equals, value = word.partition("=")
        if equals:
            last, found[key] = key, value
        elif last:
            found[last] += f" {word}"
    return found


def _word(key: str, value: str) -> str:
    """A value alone where it is a choice that says what it is, else with its key."""
    return value if key in ("task", *_ALWAYS) else f"{key}={value}"


def status_table(sweep: str, found: Sequence[PhaseStatus]) -> Table:
    """How far each phase of each arm is, for a terminal of 80 columns."""
    table = Table(title=f"sweep {sweep}", title_justify="left", box=None)
    table.add_column("arm", overflow="fold", max_width=40)
    table.add_column("phase", no_wrap=True)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("best loss", justify="right", no_wrap=True)
    table.add_column("also")
    arms = list(dict.fromkeys(row.arm for row in found))
    names = dict(zip(arms, short_names(arms), strict=True))
    before = ""
    for row in found:
        best = "–" if row.best is None else f"{row.best:.4f}"
        table.add_row(names[row.arm] if row.arm != before else "", row.phase.value, str(row.done), best, row.others)
        before = row.arm
    return table


def status_of(storage: str, sweep: str) -> Iterator[PhaseStatus]:
    """Every arm's phases, in order. Raises UserError for a sweep that isn't there, naming the nearest."""
    studies = _existing(storage, sweep)
    for arm, count in repeats_of(studies).items():
        for phase in Phase:
            found = [studies.history(arm, phase, 0, repeat) for repeat in range(count)]
            slots = [slot for history in found for slot in history.slots.values()]
            yield PhaseStatus(
                arm,
                phase,
                done=sum(history.num_done for history in found),
                running=sum(not running.lease.expired for history in found for running in history.running),
                waiting=sum(history.waiting for history in found),
                diverged=sum(slot.value == math.inf for slot in slots),
                pruned=sum(slot.pruned for slot in slots),
                crashed=sum(sum(history.attempts.values()) for history in found),
                best=min((s.value for s in slots if s.value is not None and math.isfinite(s.value)), default=None),
            )


def repeats_of(studies: Studies) -> Mapping[str, int]:
    """How many searches each arm of a sweep has. Raises UserError for a sweep that isn't there, naming the nearest."""
    sweep = studies.sweep
    known = [name.split(" | ") for name in optuna.get_all_study_names(studies.storage)]
    repeats: dict[str, int] = {}
    for parts in known:
        if len(parts) in (3, 4) and parts[0] == sweep:
            repeat = int(parts[3]) if len(parts) == 4 else 0
            repeats[parts[1]] = max(repeats.get(parts[1], 1), repeat + 1)
    if not repeats:
        sweeps = sorted({parts[0] for parts in known if len(parts) == 3})
        raise UserError(f"no sweep is called {sweep}{nearest(sweep, sweeps)}; there are {', '.join(sweeps) or 'none'}")
    return repeats


def first_failure(studies: Studies) -> str | None:
    """The first error of a sweep that has errors only; None where any trial came to a result."""
    errors: dict[int, str] = {}
    for arm, count in repeats_of(studies).items():
        if studies.has_results(arm, count):
            return None
        trials = [t for repeat in range(count) for phase in Phase for t in studies.trials(arm, phase, repeat)]
        failed = (t for t in trials if t.state is TrialState.FAIL and not t.user_attrs.get("excused"))
        errors |= {t._trial_id: str(t.user_attrs.get("error", "")) for t in failed}
    return errors[min(errors)] if errors else None


def is_trained(storage: str, sweep: str, plan: SweepPlan) -> bool:
    """Whether a sweep has all trials of its plan, as far as the storage tells."""
    if not read_address("--storage", storage).is_there:
        return False
    studies = _existing(storage, sweep)
    size = [plan.search.trials, plan.confirm.seeds, plan.repeats]
    return all(studies.note(title.name, "finished") == size for title in plan.arms)


def forgive(storage: str, sweep: str) -> int:
    """Free what a sweep has given up; returns how many failures are counted no more.

    Raises UserError for a sweep that isn't there, or that is being run.
    """
    studies = _existing(storage, sweep)
    repeats = repeats_of(studies)
    with studies.take_seat(list(repeats), whole=True) as seat:
        return sum(studies.forgive(seat, arm, repeat) for arm, count in repeats.items() for repeat in range(count))


def _existing(storage: str, sweep: str) -> Studies:
    file = read_address("--storage", storage).file
    if file is not None and not file.is_file():
        raise UserError(f"--storage: there is no store at {file}; run a sweep first, or name another one")
    return Studies.open(storage, sweep)
