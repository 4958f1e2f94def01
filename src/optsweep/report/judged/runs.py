"""From rows to arms: the runs of each, the value that counts of every run, and what was left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from optsweep.errors import UserError, nearest
from optsweep.report.judged.question import LAST, Question
from optsweep.report.judged.table import RunTable, columns_of, text_of
from optsweep.report.wording import listed, plural

MOST_ARMS = 200
_UNFINISHED = frozenset({"running", "failed", "crashed", "killed", "scheduled", "preempted", "preempting", "pruned"})
_STATES = ("state", "status")  # columns of W&B and MLflow, in any case
_NAMED = 3  # places that a note lists


@dataclass(frozen=True)
class Reading:
    """A value of a run at a step; None: the run has one value, whose step isn't told."""

    step: float | None
    value: float


@dataclass(frozen=True)
class GivenRun:
    """One run, or the mean of `count` runs."""

    seed: str  # as the column has it
    index: int  # the same for equal seeds of different arms
    end: Reading  # what counts; not finite: it diverged
    curve: tuple[Reading, ...]  # by step
    count: int = 1

    @property
    def goes_on(self) -> bool:
        """Whether it trained on after the step that counts."""
        last = self.curve[-1].step
        return last is not None and self.end.step is not None and last > self.end.step


@dataclass(frozen=True, eq=False)
class RunArm:
    """The runs of one arm, as the tests see them."""

    label: str
    style: int
    runs: tuple[GivenRun, ...]
    sign: float  # −1 where higher is better
    per_step: float = 0.0  # what a step lowers the loss by
    reference: float = 0.0  # the step that losses are corrected to

    @cached_property
    def test_losses(self) -> Mapping[int, float]:
        """Finite losses by seed."""
        return {run.index: self.loss(run) for run in self.runs if math.isfinite(run.end.value)}

    @property
    def test_blocks(self) -> Mapping[int, Sequence[float]]:
        """None: a table of runs has no losses of parts of a split."""
        return {}

    @property
    def diverged_seeds(self) -> int:
        """Runs whose value isn't finite."""
        return sum(not math.isfinite(run.end.value) for run in self.runs)

    @property
    def count(self) -> int:
        """Runs that the mean is over."""
        return sum(run.count for run in self.runs if math.isfinite(run.end.value))

    @property
    def mean(self) -> float:
        """Mean loss."""
        held = [(self.loss(run), run.count) for run in self.runs if math.isfinite(run.end.value)]
        return sum(loss * count for loss, count in held) / self.count if held else math.nan

    @property
    def value(self) -> float:
        """Mean of the metric itself."""
        return self.sign * self.mean

    @property
    def steps(self) -> tuple[float, ...]:
        """Where the values that count were measured."""
        return tuple(sorted({run.end.step for run in self.runs if run.end.step is not None}))

    def loss(self, run: GivenRun) -> float:
        """Its value as a loss, at the step that is referred to."""
        further = 0.0 if run.end.step is None else run.end.step - self.reference
        return self.sign * run.end.value + self.per_step * further


@dataclass(frozen=True)
class Gathered:
    """Arms with their runs, and what was left out."""

    arms: tuple[RunArm, ...]  # those that have a run that counts, in order
    at: float | str | None
    absent: tuple[tuple[str, int], ...]  # (arm, its runs) without any run at the step
    left_out: tuple[str, ...]  # in words


@dataclass
class _Rows:
    """Rows as they are read."""

    points: dict[str, dict[str, dict[float | None, tuple[float, str]]]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # reason: places
    latest: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)  # run: restarts, step

    def skip(self, reason: str, place: str) -> None:
        self.skipped.setdefault(reason, []).append(place)

    def restarted(self, arm: str, seed: str, step: float) -> str:
        """The run's name, numbered anew where its steps begin again."""
        times, last = self.latest.get((arm, seed), (0, -math.inf))
        times += step <= last
        self.latest[arm, seed] = (times, step)
        return f"{seed} ({times + 1})" if times else seed

    def notes(self) -> list[str]:
        """ "3 rows have no test_loss and are left out (line 4, line 7 and line 9)"."""
        said = []
        for reason, places in self.skipped.items():
            shown = places if len(places) <= _NAMED else [*places[: _NAMED - 1], f"{len(places) - _NAMED + 1} more"]
            said.append(f"{plural(len(places), 'row')} {reason} ({listed(shown)}).")
        return said


def gather(table: RunTable, question: Question) -> Gathered:
    """The arms that are asked for. Raises UserError where the rows can't answer the question."""
    rows = _read(table, question)
    order = _order(list(rows.points), question)
    at = _step(rows, order, question)
    seeds: dict[str, int] = {}
    arms: list[RunArm] = []
    absent: list[tuple[str, int]] = []
    without = Counter[str]()
    for label in order:
        runs = []
        for seed, points in rows.points[label].items():
            curve = tuple(
                Reading(step, points[step][0]) for step in sorted(points, key=lambda s: -1 if s is None else s)
            )
            end = _end(curve, at)
            if end is None:
                without[label] += 1
                continue
            index = seeds.setdefault(seed, len(seeds))
            runs.append(GivenRun(seed, index, end, curve, rows.counts.get((label, seed), 1)))
        if runs:
            arms.append(RunArm(label, len(arms), tuple(runs), question.sign, question.per_step))
        else:
            absent.append((label, len(rows.points[label])))
    _enough(arms, at, question)
    notes = [*rows.notes(), *_without_step(without, [label for label, _ in absent], at)]
    return Gathered(tuple(_to_one_step(arms)), at, tuple(absent), tuple(notes))


# -- reading -------------------------------------------------------------------------------------------------------


def _read(table: RunTable, question: Question) -> _Rows:
    if question.names:
        table = table.named(question.names)
    wanted = {
        "--arm": question.arm,
        "--metric": question.metric,
        "--seed": question.seed,
        "--step": question.step,
        "--mean-of": question.mean_of,
    }
    columns = {option: table.column(option, name) for option, name in wanted.items() if name is not None}
    where = [(table.column("--where", key), value) for key, value in question.where]
    state = next((name for name in table.columns if name.lower() in _STATES), None)
    rows = _Rows()
    for place, row in table.rows:
        if all(text_of(row.get(key)) == value for key, value in where):
            ended = "" if state is None or question.step else text_of(row.get(state)).lower()
            _take(rows, place, {option: text_of(row.get(name)) for option, name in columns.items()}, ended, question)
    if not rows.points:
        why = f": {rows.notes()[0]}" if rows.skipped else "; --where leaves none" if where else ""
        raise UserError(f"--metric {question.metric}: no row has a run that counts{why}")
    return rows


def _take(rows: _Rows, place: str, cells: Mapping[str, str], ended: str, question: Question) -> None:
    """Keep a row's point, or say why not."""
    for option, text in cells.items():
        if text == "":
            column = {"--arm": question.arm, "--metric": question.metric, "--seed": question.seed}.get(option)
            return rows.skip(f"without {column or option.removeprefix('--')} left out", place)
    if ended in _UNFINISHED:
        return rows.skip("of runs that didn't finish left out", place)
    value = math.nan if ended == "diverged" else _number("--metric", question.metric, cells["--metric"], place)
    step = _number("--step", str(question.step), cells["--step"], place) if question.step else None
    if step is not None and not math.isfinite(step):
        raise UserError(f"--step {question.step}: {place} has {cells['--step']!r}; a finite number is wanted")
    arm, seed = cells["--arm"], cells.get("--seed", place)
    if question.restarts and step is not None:
        seed = rows.restarted(arm, seed, step)
    held = rows.points.setdefault(arm, {}).setdefault(seed, {})
    if question.mean_of is not None:
        count = _number("--mean-of", question.mean_of, cells["--mean-of"], place)
        if not (count >= 1 and count == int(count)):
            raise UserError(f"--mean-of {question.mean_of}: {place} has {cells['--mean-of']!r}, no whole number ≥ 1")
        rows.counts[arm, seed] = int(count)
    if step in held:
        before, where = held[step]
        if before == value or (math.isnan(before) and math.isnan(value)):
            return rows.skip("repeating an earlier one counted once", place)
        told = f"{question.arm} {arm}, {question.seed} {seed}" + (f", step {step:g}" if step is not None else "")
        hint = "if rows are points of curves, give --step"
        if step is not None:
            hint = "if several runs have one name, one after the other, give --restarts"
        raise UserError(f"--seed {question.seed}: {where} and {place} are both of {told}, with unlike values; {hint}")
    held[step] = (value, place)
    return None


def _number(option: str, column: str, text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"{option} {column}: {place} has {text[:40]!r}, which is no number; plain numbers of one unit are wanted"
        ) from None


# -- who and where -------------------------------------------------------------------------------------------------


def _order(found: Sequence[str], question: Question) -> Sequence[str]:
    for option, wanted in (
        ("--arms", question.arms),
        ("--baseline", (question.baseline,) if question.baseline else ()),
    ):
        for label in wanted:
            if label not in found:
                there = columns_of(list(found))
                raise UserError(f"{option} {label}: there is no such arm{nearest(label, found)}; there are {there}")
    if question.arms and question.baseline and question.baseline not in question.arms:
        raise UserError(f"--baseline {question.baseline}: --arms leaves it out; name it there too")
    order = tuple(dict.fromkeys(question.arms)) or tuple(found)
    if len(order) > MOST_ARMS:
        raise UserError(
            f"--arm {question.arm}: it has {len(order):,} values, more than {MOST_ARMS} arms; name another column, or "
            f"some of them with --arms"
        )
    return order


def _step(rows: _Rows, order: Sequence[str], question: Question) -> float | str | None:
    """The step that counts. Raises UserError if no run has it."""
    if question.step is None or question.at == LAST:
        return question.at
    of_arms = [{step for run in rows.points[arm].values() for step in run if step is not None} for arm in order]
    if question.at is not None:
        there = sorted(set().union(*of_arms))
        if question.at not in there:
            near = listed([f"{step:g}" for step in sorted(there, key=lambda s: abs(s - float(question.at or 0)))[:3]])
            raise UserError(f"--at {question.at:g}: no run has this step; the nearest are {near}")
        return question.at
    common = set.intersection(*of_arms)
    if not common:
        raise UserError("--at: the arms have no step in common; name one, or last for each run's own last one")
    return max(common)


def _end(curve: Sequence[Reading], at: float | str | None) -> Reading | None:
    """The point that counts; of a run that diverged before the step, the one where it did."""
    if at is None or at == LAST:
        return curve[-1]
    for point in curve:
        if not math.isfinite(point.value) and point.step is not None and point.step <= float(at):
            return point
    return next((point for point in curve if point.step == at), None)


def _enough(arms: Sequence[RunArm], at: float | str | None, question: Question) -> None:
    there = f" with a run at step {at:g}" if isinstance(at, float) else ""
    if len(arms) < 2:
        only = f"only one arm, {arms[0].label}" if arms else "no arm"
        raise UserError(f"--arm {question.arm}: there is {only}{there}; a comparison needs two")
    if question.baseline and all(arm.label != question.baseline for arm in arms):
        raise UserError(f"--baseline {question.baseline}: it has no run at step {at}")


def _without_step(without: Mapping[str, int], absent: Sequence[str], at: float | str | None) -> list[str]:
    """How many runs have no such step, and of which arms nothing is left."""
    if not without:
        return []
    text = f"{plural(sum(without.values()), 'run')} of {plural(len(without), 'arm')} left out, without a point at "
    text += f"step {float(at or 0):g}"
    some = [f"{label} ({count})" for label, count in without.items() if label not in absent]
    parts = [f"some of {listed(some)}"] if some else []
    parts += [f"all of {listed(list(absent))}"] if absent else []
    return [f"{text}: {'; '.join(parts)}."]


def _to_one_step(arms: Sequence[RunArm]) -> list[RunArm]:
    """With losses corrected to the first step at which one ends, if that is asked for."""
    reference = min((step for arm in arms for step in arm.steps), default=0.0)
    return [RunArm(arm.label, arm.style, arm.runs, arm.sign, arm.per_step, reference) for arm in arms]
