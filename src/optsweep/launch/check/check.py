"""Tries a sweep before it is started: the model, the data, every optimizer for a few steps. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from optsweep.build.assemble import Built, algorithm_of, build_arm, check_arm, device_of
from optsweep.build.named_task import task_for
from optsweep.build.stated import stated
from optsweep.config.arm import Arm
from optsweep.config.compose import contents_of
from optsweep.config.sections import AveragingConfig, DecayConfig, OptimizerConfig, ScheduleConfig, SearchConfig
from optsweep.errors import UserError, located
from optsweep.launch.check.checked import Checked, CheckedTask, TriedOptimizer
from optsweep.launch.check.trying import Line, Told, Trier, memory_said, trier_of
from optsweep.launch.neighbours import Neighbours
from optsweep.launch.pools.pool import Pool
from optsweep.launch.prepare.cost import Cost, Evaluations, cost_of
from optsweep.launch.prepare.devices import deal
from optsweep.launch.prepare.fit import FittedLanes, Fitter, fitted_said
from optsweep.launch.prepare.labels import labels_of
from optsweep.launch.prepare.together import check_together, notes
from optsweep.launch.worker.inquiries import PATIENCE_SECONDS, DiedError, Workbench, here
from optsweep.launch.worker.lane_memory import LaneMemory
from optsweep.tasks.base import Trainable
from optsweep.train.process import threads

SECONDS = 120.0
"""After so many, no further optimizer of the catalogue is begun; the arms' own always are."""

REFERENCE = "adamw"
"""Whose time per step the others' are relative to."""


def check_arms(
    arms: Sequence[Arm],
    *,
    task: Trainable | None = None,
    workers: int | None = None,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda what: None,
) -> Checked:
    """Try what a sweep of these arms would do; `task` is theirs, where Python code gave it. `tell` hears what is tried.

    Raises UserError for arms that can't be built; what fails in training is found.
    """
    check_together(arms)
    trial = _Check(arms, time.monotonic() + seconds, tell, task)
    with threads(arms[0].trainer.threads):
        for key in dict.fromkeys(repr(arm.task) for arm in arms):
            trial.check_task([arm for arm in arms if repr(arm.task) == key])
    return trial.result(workers)


@dataclass(frozen=True)
class ToCheck:
    """The request to try what a sweep of these arms would do."""

    arms: Sequence[Arm]
    workers: int | None
    seconds: float

    def run(self, bench: Workbench) -> Checked:
        """As `check_arms` has it."""

        def tell(what: str) -> None:
            bench.begin(what, PATIENCE_SECONDS)

        return check_arms(self.arms, workers=self.workers, seconds=self.seconds, tell=tell)


def check_aside(pool: Pool, request: ToCheck, tell: Callable[[str], None]) -> Checked:
    """Have it tried by a worker. Raises UserError also where the arms' own code ends that."""
    try:
        return pool.ask(request, tell)
    except DiedError as error:
        raise UserError(f"task: {error.at or 'building it'}: {error.how}: the task's own code does that") from None


@dataclass(frozen=True)
class Subject:
    """An optimizer as it is tried: an arm's own, or one of the catalogue's."""

    label: str
    arm: Arm
    built: Built | None = None  # of an arm


@dataclass
class _Check:
    """The arms, and what was found so far."""

    arms: Sequence[Arm]
    until: float  # on the monotonic clock
    tell: Callable[[str], None]
    task: Trainable | None
    told: Told = field(default_factory=Told)
    tasks: list[CheckedTask] = field(default_factory=list)
    built: dict[str, Built] = field(default_factory=dict)  # by arm, of tasks that can be trained
    times: dict[str, float] = field(default_factory=dict)  # ms per step, see _timed_as
    evaluations: dict[str, Evaluations] = field(default_factory=dict)  # by task
    fitted: dict[str, FittedLanes] = field(default_factory=dict)  # by arm

    def __post_init__(self) -> None:
        self.labels: Mapping[str, str] = labels_of(self.arms)
        self.neighbours = Neighbours()
        workers, _ = deal(here(), self.arms[0], None)
        self.fitter = Fitter.of(self.arms, workers, known=LaneMemory.of(self.arms[0].storage).times)

    def result(self, workers: int | None) -> Checked:
        """All of it."""
        known = [arm for arm in self.arms if arm.name in self.built]
        warned = [self._warned(arm) for arm in known]
        everybody = f" ({', '.join(self.labels.values())})"
        self.told.remarks += [note.removesuffix(everybody) for note in self._notes(known, warned)]
        self.told.remarks += fitted_said(
            [(self.labels[name], found) for name, found in self.fitted.items()], every=True
        )
        if busy := self.neighbours.said():
            self.told.remarks.append(busy)
        cost = self._cost(workers) if len(known) == len(self.arms) else None
        return Checked(tuple(self.tasks), cost, _once(self.told.remarks), _once(self.told.findings))

    def _notes(self, arms: Sequence[Arm], built: Sequence[Built]) -> Iterator[str]:
        labels = [self.labels[arm.name] for arm in arms]
        return notes(labels, [algorithm_of(b) for b in built], [b.warnings for b in built])

    # -- a task -------------------------------------------------------------------------------------------------------

    def check_task(self, arms: Sequence[Arm]) -> None:
        """The arms of one task. Raises UserError for a task that can't be built, or an arm."""
        first, facts, tried = arms[0], list[Line](), list[TriedOptimizer]()
        self.tell("trying the model")
        task = task_for(first, self.task).on(device_of(first.trainer.device))
        losses = ""
        if self._says(task):
            arms = [self._fitted(arm, task) for arm in arms]
            built = {arm.name: build_arm(arm, task) for arm in arms}
            contents = {n: found for n, found in contents_of("optimizer").items() if {"name", "_target_"} <= {*found}}
            catalogue = {name: _optimizer(found) for name, found in contents.items()}
            base = build_arm(plain_arm(first, catalogue[REFERENCE]), task)
            trier = trier_of(base)
            losses = trier.losses
            with self._failing():
                for line in trier.lines(self.told):
                    facts.append(line)
                    self.tell("trying the model")
                subjects = list(self._subjects([(arm, built[arm.name]) for arm in arms], catalogue))
                tried += self._tried(subjects, trier, task)
                facts.append(("memory", memory_said(base.program.device)))
                self.built |= built
                self.evaluations[repr(first.task)] = trier.evaluations
        self._judge(tried)
        axes = [f"{key}={value}" for key, value in first.axes.items() if key.startswith("task.")]
        name = " ".join([first.task.name, *axes])
        self.tasks.append(CheckedTask(name, tuple(facts), tuple(tried), REFERENCE, losses))

    def _fitted(self, arm: Arm, task: Trainable) -> Arm:
        """The arm with the lanes that its sweep would have."""
        label = self.labels[arm.name]
        self.tell(f"trying lanes of {label}")
        try:
            found = self.fitter.fit(arm, task, device_of(arm.trainer.device), lambda tried: build_arm(tried, task))
        except UserError as error:  # of first steps: a finding of who tries the model; of the arm: it is built next
            found = FittedLanes(1, True, f"not measured ({error})")
        self.fitted[arm.name] = found
        return found.on(arm)

    def _says(self, task: Trainable) -> bool:
        """Whether it says of itself what it has to, for which a loop is run for two steps."""
        with self._failing():
            stated(task)
            return True
        return False

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever is raised inside is a finding."""
        try:
            yield
        except Exception as error:
            self.told.findings.append(_said(error))

    def _subjects(
        self, arms: Sequence[tuple[Arm, Built]], catalogue: Mapping[str, OptimizerConfig]
    ) -> Iterator[Subject]:
        """The reference, the optimizers of the arms, the others of the catalogue."""
        own: dict[str, tuple[Arm, Built]] = {}
        for arm, built in arms:
            own.setdefault(_timed_as(arm), (arm, built))
        names = [arm.optimizer.name for arm, _ in own.values()]
        subjects = []
        for name, (arm, built) in zip(names, own.values(), strict=True):
            plain = catalogue.get(name) == arm.optimizer and names.count(name) == 1
            subjects.append(Subject(name if plain else self.labels[arm.name], arm, built))
        taken = {subject.label for subject in subjects}
        first, _ = arms[0]
        subjects += [Subject(n, plain_arm(first, config)) for n, config in catalogue.items() if n not in taken]
        return iter(sorted(subjects, key=lambda subject: subject.label != REFERENCE))

    def _tried(self, subjects: Sequence[Subject], trier: Trier, task: Trainable) -> Iterator[TriedOptimizer]:
        """One subject after the other; those of the catalogue until time is up."""
        left = []
        for subject in subjects:
            if subject.built is None and subject.label != REFERENCE and time.monotonic() > self.until:
                left.append(subject.label)
                continue
            self.tell(f"trying {subject.label}")
            yield self._try(subject, trier, task)
        if left:
            self.told.remarks.append(f"time was up, so these were not tried: {', '.join(left)} (--seconds gives more)")

    def _try(self, subject: Subject, trier: Trier, task: Trainable) -> TriedOptimizer:
        """Its first steps, at the middle of what is searched."""
        lr = 0.0
        try:
            built = subject.built or build_arm(subject.arm, task)
            params = {key: dimension.at(0.5) for key, dimension in built.space.dimensions.items()}
            lr = built.space.hyper(params)["lr"]
            found = trier.begin(built, params)
        except Exception as error:
            return TriedOptimizer(subject.label, lr, trouble=_said(error))
        self.times[_timed_as(subject.arm)] = found.ms_per_step
        peak = found.peak_bytes if built.program.device.type == "cuda" else None
        return TriedOptimizer(subject.label, lr, found.ms_per_step, found.losses, found.state_bytes, peak)

    def _judge(self, tried: Sequence[TriedOptimizer]) -> None:
        """What failed, of all of them."""
        self.told.findings += [f"{one.label}: {one.trouble}" for one in tried if one.trouble]
        whole = [one for one in tried if not one.trouble]
        wild = [one for one in whole if not one.finite]
        if wild and len(wild) == len(whole):
            self.told.findings.append("the loss isn't finite within the first steps, whatever the optimizer")
        elif wild:
            names = ", ".join(f"{one.label} (LR {one.lr:.2g})" for one in wild)
            self.told.remarks.append(
                f"the loss isn't finite within the first steps of {names}; a search also tries lower learning rates"
            )

    # -- all arms -----------------------------------------------------------------------------------------------------

    def _warned(self, arm: Arm) -> Built:
        """The arm with all that a user should know of it."""
        built = self.built[arm.name]
        with self._failing():
            return replace(built, warnings=(*built.warnings, *check_arm(built)))
        return built

    def _cost(self, workers: int | None) -> Cost:
        costs = []
        for arm in self.arms:
            rungs, evaluations = len(self.built[arm.name].program.rung_steps()), self.evaluations[repr(arm.task)]
            ms, speedup = self.times.get(_timed_as(arm)), self.fitted[arm.name].speedup
            costs.append(cost_of(arm, self.labels[arm.name], ms and ms / speedup, rungs, evaluations))
        return Cost(tuple(costs), max(1, deal(here(), self.arms[0], workers)[0]))


def plain_arm(arm: Arm, optimizer: OptimizerConfig) -> Arm:
    """The arm's task and trainer under an optimizer with nothing around it, at its suggested LR."""
    return replace(
        arm,
        choices={**arm.choices, "optimizer": optimizer.name},
        optimizer=optimizer,
        schedule=ScheduleConfig("constant", warmup="none"),
        decay=DecayConfig(),
        averaging=AveragingConfig(),
        search=SearchConfig(trials=0),
        confirm_seeds=1,
        repeats=1,
    )


def _optimizer(content: Mapping[str, object]) -> OptimizerConfig:
    """An optimizer as its YAML has it."""
    options = {key: value for key, value in content.items() if key not in ("name", "_target_", "lr")}
    name, target, lr = str(content["name"]), str(content["_target_"]), content.get("lr")
    return OptimizerConfig(name, target, lr, options)  # type: ignore[arg-type] # checked there


def _timed_as(arm: Arm) -> str:
    """Equal for arms whose steps take equally long, about: schedules and averages cost little."""
    return repr((arm.task, arm.optimizer, replace(arm.trainer, steps=2, rungs=1, lanes=1)))


def _once(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _said(error: Exception) -> str:
    """An error in a line."""
    return str(error) if isinstance(error, UserError) else located(error)
