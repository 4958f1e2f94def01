"""How far a sweep is, read from the studies that planner and workers share."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from optsweep.address import near, read_address
from optsweep.config.arm import Arm
from optsweep.errors import NotThereError, UserError, nearest
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.launch.worker.shared_folder import CHECKPOINTS, where_kept
from optsweep.report.wording import duration, number, plural
from optsweep.search.helping import notes
from optsweep.search.signs import Sign
from optsweep.search.studies import WENT_ON, Studies
from optsweep.search.study_names import StudyName
from optsweep.tracking.schema import SweepPlan
from optsweep.train.trial import Phase

PLANNED = "planned"
"""The note of an arm's size: search trials, confirm seeds, repeats."""

FINISHED = "finished"
"""The note of what size an arm had when nothing was left to train."""

REPORT = "report"
"""The note of an arm's last report: of what size the arm was, and its page; null: none was asked for."""

MOST_NAMED = 8
"""Sweeps that a line names."""


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
    planned: int | None = None  # trials; None: `auto` decides, or nobody has said yet

    @property
    def progress(self) -> str:
        """ "8/16", or "8" where nobody knows of how many."""
        return str(self.done) if self.planned is None else f"{self.done}/{self.planned}"


def others(found: Sequence[PhaseStatus]) -> str:
    """ "2 running, 1 diverged": what phases have besides trials that are done and well."""
    counts = {key: sum(of(phase) for phase in found) for key, of in _BESIDE.items()}
    said = [f"{count} {what}" for what, count in counts.items() if count]
    crashed = sum(phase.crashed for phase in found)
    return ", ".join([*said, f"{crashed} crash{'' if crashed == 1 else 'es'}"] if crashed else said)


_BESIDE: Mapping[str, Callable[[PhaseStatus], int]] = {
    "running": lambda phase: phase.running,
    "waiting": lambda phase: phase.waiting,
    "diverged": lambda phase: phase.diverged,
    "pruned": lambda phase: phase.pruned,
}


@dataclass(frozen=True)
class LastError:
    """What went wrong last."""

    what: str  # with file and line
    where: str  # which trial
    when: datetime


@dataclass(frozen=True)
class LastReport:
    """Of a sweep that is finished."""

    sweep: str
    page: str | None  # None: none was asked for

    @property
    def unasked(self) -> bool:
        """Whether there is none, and none is to come."""
        return self.page is None

    @property
    def where(self) -> str:
        """Its page, as it is seen from here."""
        return str(near(Path(self.page or "")))

    def __str__(self) -> str:
        how = f"no report was asked for: `optsweep report {shlex.quote(self.sweep)}` writes it"
        return how if self.unasked else f"report: {self.where}"


def last_report(sweep: str, noted: Collection[Mapping[str, Any]]) -> LastReport | None:
    """By the notes of its arms; None while it isn't finished, and where the report of what it has is still to come."""
    held = [of[REPORT] for of in noted if is_finished(of) and (of.get(REPORT) or {}).get("of") == of[PLANNED]]
    if not held or len(held) < len(noted):
        return None
    pages = [of["page"] for of in held]
    return LastReport(sweep, None if None in pages else pages[0])


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is, and who is at work."""

    phases: tuple[PhaseStatus, ...]
    planned: int | None  # trials; None: `auto` decides, or nobody has said yet
    train_seconds: float  # spent in training, by all workers
    signs: tuple[Sign, ...]
    last_error: LastError | None
    checkpoints: str = ""  # where they lie, and whether trials have gone on from them
    report: LastReport | None = None  # None: it is still to come

    @property
    def done(self) -> int:
        """Trials with a result, or given up."""
        return sum(phase.done for phase in self.phases)

    def lines(self) -> Iterator[str]:
        """What isn't of an arm, in words."""
        told = f"{self.done} trials done" if self.planned is None else f"{self.done} of {self.planned} trials done"
        spent = f"{told}; {duration(self.train_seconds)} of training spent"
        if self.planned is not None and 0 < self.done < self.planned:
            left = self.train_seconds / self.done * (self.planned - self.done)
            spent += f", about {duration(left)} left, by one worker"
        yield spent
        for sign in self.signs:
            role = "planner" if sign.trials is None else f"worker with {plural(sign.trials, 'trial')}"
            role = f"{plural(sign.helpers, 'worker')} of `optsweep work`" if sign.helpers else role
            state = "" if sign.alive is not False else "; it is dead, and what it had is run again"
            yield f"{role}: {sign.process}, last heard of {duration(sign.seconds)} ago{state}"
        if not self.signs:
            yield "nobody is at work"
        if self.checkpoints:
            yield self.checkpoints
        if self.report is not None:
            yield str(self.report)
        if self.last_error is not None:
            error = self.last_error
            yield f"last error ({error.where}, {error.when.astimezone():%Y-%m-%d %H:%M:%S}): {error.what}"


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
    """How far each arm is, a row each, for a terminal of 80 columns."""
    table = Table(title=f"sweep {sweep}", title_justify="left", box=None)
    table.add_column("arm", overflow="fold", max_width=44)
    for name in (*(phase.value for phase in Phase), "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("also")
    for label, phases in by_arm(found).items():
        best = min((phase.best for phase in phases if phase.best is not None), default=None)
        progress = {phase.phase: phase.progress for phase in phases}
        cells = [progress.get(phase, "–") for phase in Phase]
        table.add_row(label, *cells, number(best), others(phases))
    return table


def by_arm(found: Sequence[PhaseStatus]) -> Mapping[str, Sequence[PhaseStatus]]:
    """The phases of each arm by its short name."""
    arms = list(dict.fromkeys(phase.arm for phase in found))
    names = short_names(arms)
    return {name: [p for p in found if p.arm == arm] for arm, name in zip(arms, names, strict=True)}


def plain(sweep: str, found: SweepStatus) -> dict[str, Any]:
    """What `optsweep status --json` prints. Keys are only ever added."""
    error = found.last_error
    return {
        "sweep": sweep,
        "done": found.done,
        "planned": found.planned,
        "train_seconds": found.train_seconds,
        "arms": [
            {"name": phases[0].arm, "label": label, "phases": {phase.phase.value: _counts(phase) for phase in phases}}
            for label, phases in by_arm(found.phases).items()
        ],
        "checkpoints": found.checkpoints,
        "report": None if found.report is None else {"page": found.report.page},
        "at_work": [asdict(sign) for sign in found.signs],
        "last_error": None if error is None else {**asdict(error), "when": error.when.isoformat()},
    }


def _counts(phase: PhaseStatus) -> dict[str, Any]:
    return {key: value for key, value in asdict(phase).items() if key not in ("arm", "phase")}


def status_of(storage: str, sweep: str) -> SweepStatus:
    """How far a sweep is. Raises UserError for a sweep that isn't there, naming the nearest."""
    studies = _existing(storage, sweep)
    repeats = repeats_of(studies)
    every = [(arm, phase, n) for arm, count in repeats.items() for phase in Phase for n in range(count)]
    trials = [(arm, phase, trial) for arm, phase, n in every for trial in studies.trials(arm, phase, n)]
    seconds = sum(float(trial.user_attrs.get("train_seconds", 0.0)) for _, _, trial in trials)
    phases = tuple(_phases(studies))
    planned = [phase.planned for phase in phases]
    total = None if None in planned else sum(count for count in planned if count is not None)
    signs = tuple(studies.signs_of_life(LEASE_SECONDS))
    noted = notes(studies.engine, sweep, (PLANNED, FINISHED, REPORT))
    report = last_report(sweep, [noted.get(arm, {}) for arm in repeats])
    kept = _kept(studies, storage, trials)
    return SweepStatus(phases, total, seconds, signs, _last_error(trials), kept, report)


def _kept(studies: Studies, storage: str, trials: Sequence[tuple[str, Phase, FrozenTrial]]) -> str:
    went_on = sum(WENT_ON in trial.user_attrs for _, _, trial in trials)
    noted = studies.note(trials[0][0], CHECKPOINTS) if trials else None
    return where_kept(noted, went_on, on_server=read_address("--storage", storage).file is None)


def _planned(studies: Studies, arm: str) -> Mapping[Phase, int]:
    """Trials of an arm's phases; of none where a number isn't fixed."""
    size = studies.note(arm, PLANNED)
    if size is None or not all(isinstance(part, int) for part in size):
        return {}
    trials, seeds, repeats = size
    return {Phase.SEARCH: repeats * trials, Phase.CONFIRM: repeats * seeds}


def _last_error(trials: Sequence[tuple[str, Phase, FrozenTrial]]) -> LastError | None:
    """The latest, of a trial's own or a worker's death; None where nothing went wrong."""
    arms = list(dict.fromkeys(arm for arm, _, _ in trials))
    names = dict(zip(arms, short_names(arms), strict=True))
    found = []
    for arm, phase, trial in trials:
        said, when = trial.user_attrs, trial.datetime_complete
        if trial.state is TrialState.FAIL and not said.get("excused") and when is not None:
            where = f"{names[arm]} · {phase.value} {said.get('slot')}"
            found.append(LastError(str(said.get("error", "")), where, when.replace(tzinfo=UTC)))
    return max(found, key=lambda error: error.when, default=None)


def _phases(studies: Studies) -> Iterator[PhaseStatus]:
    """Every arm's phases, in order."""
    for arm, count in repeats_of(studies).items():
        planned = _planned(studies, arm)
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
                planned=planned.get(phase),
            )


def repeats_of(studies: Studies) -> Mapping[str, int]:
    """How many searches each arm of a sweep has. Raises UserError for a sweep that isn't there, naming the nearest."""
    sweep = studies.sweep
    known = [study for name in optuna.get_all_study_names(studies.storage) if (study := StudyName.read(name))]
    repeats: dict[str, int] = {}
    for study in known:
        if study.sweep == sweep:
            repeats[study.arm] = max(repeats.get(study.arm, 1), study.repeat + 1)
    if not repeats:
        sweeps = sorted({study.sweep for study in known})
        raise NotThereError(f"no sweep is called {sweep}{nearest(sweep, sweeps)}; {there_are(sweeps)}")
    return repeats


def there_are(sweeps: Sequence[str]) -> str:
    """A few of them, and how many there are."""
    more = f", … ({len(sweeps)} in all: optsweep list sweeps)" if len(sweeps) > MOST_NAMED else ""
    return f"there are {', '.join(sweeps[:MOST_NAMED]) or 'none'}{more}"


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
    return all(studies.note(title.name, FINISHED) == size for title in plan.arms)


def size_of(arm: Arm) -> list[object]:
    """What is planned of an arm, as its notes have it; a plan that grew is another."""
    return [arm.search.trials, arm.confirm_seeds, arm.repeats]


def is_finished(noted: Mapping[str, Any]) -> bool:
    """Whether an arm has all that is planned of it, by its notes."""
    return noted.get(FINISHED) is not None and noted[FINISHED] == noted.get(PLANNED)


def check_ended(studies: Studies, labels: Mapping[str, str]) -> None:
    """Raise UserError where a launcher has come back before its jobs were done with all arms."""
    noted = notes(studies.engine, studies.sweep, (PLANNED, FINISHED))
    left = [label for arm, label in labels.items() if not is_finished(noted.get(arm, {}))]
    if left:
        raise UserError(
            f"hydra/launcher: it came back before its jobs had ended ({left[0]}, of {len(left)}); "
            f"wait for them (optsweep status {studies.sweep}), then give the same command again"
        )


def forgive(storage: str, sweep: str) -> int:
    """Free what a sweep has given up; returns how many failures are counted no more.

    Raises UserError for a sweep that isn't there, or that is being run.
    """
    studies = _existing(storage, sweep)
    repeats = repeats_of(studies)
    with studies.take_seat(list(repeats), whole=True) as seat:
        freed = {arm: sum(studies.forgive(seat, arm, n) for n in range(count)) for arm, count in repeats.items()}
        for arm, count in freed.items():
            if count:
                studies.set_note(arm, FINISHED, None)
    return sum(freed.values())


def check_there(storage: str) -> None:
    """Raise UserError for a storage that isn't there: looking makes none."""
    address = read_address("--storage", storage)
    if not address.is_there:
        raise NotThereError(f"--storage: there is no store at {address.file}; run a sweep first, or name another one")


def _existing(storage: str, sweep: str) -> Studies:
    check_there(storage)
    return Studies.open(storage, sweep, make=False)
