"""Tries a sweep before it is started: the model, the data, every optimizer for a few steps. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from optsweep.build.assemble import Built, build_arm, check_arm
from optsweep.config.arm import Arm
from optsweep.config.compose import contents_of
from optsweep.config.sections import AveragingConfig, DecayConfig, OptimizerConfig, ScheduleConfig, SearchConfig
from optsweep.errors import UserError, located
from optsweep.launch.checked import Checked, CheckedTask, TriedOptimizer
from optsweep.launch.cost import ArmCost, Cost, cost_of
from optsweep.launch.devices import deal
from optsweep.launch.labels import labels_of
from optsweep.launch.together import check_together, notes
from optsweep.launch.trying import STEPS, Twice, data_said, facts_of, lanes_said, memory_said, model_said, twice
from optsweep.tasks.base import Task
from optsweep.train.loop import first_steps
from optsweep.train.process import threads
from optsweep.train.program import Program
from optsweep.train.trial import Trial

SECONDS = 120.0
"""After so many, no further optimizer of the catalogue is begun; the arms' own always are."""

LEAST_SECONDS = 0.1
"""For which steps are timed, of each optimizer."""

REFERENCE = "adamw"
"""Whose time per step the others' are relative to."""


@dataclass
class Told:
    """What was found so far: what would fail, and what is worth knowing."""

    findings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @contextmanager
    def failing(self, what: str = "") -> Iterator[None]:
        """Whatever is raised inside is a finding."""
        try:
            yield
        except UserError as error:
            self.findings.append(said(error))
        except Exception as error:
            self.findings.append(f"{what}: {said(error)}")


@dataclass(frozen=True)
class Subject:
    """An optimizer as it is tried: an arm's own, or one of the catalogue's."""

    label: str
    arm: Arm
    built: Built | None = None  # of an arm


def check_arms(
    arms: Sequence[Arm],
    *,
    task: Task | None = None,
    workers: int | None = None,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda what: None,
) -> Checked:
    """Try what a sweep of these arms would do. `task`: that of all arms, where it is built already.

    `tell` hears what is being tried. Raises UserError for arms that can't be built; what fails in training is found.
    """
    until = time.monotonic() + seconds
    check_together(arms)
    labels = labels_of(arms)
    built = _built(arms, task)
    told, times, tasks, twices = Told(), dict[str, float](), [], dict[str, Twice]()
    with threads(arms[0].trainer.threads):
        for key in dict.fromkeys(repr(arm.task) for arm in arms):
            its = [(arm, b) for arm, b in zip(arms, built, strict=True) if repr(arm.task) == key]
            tasks.append(_Task(its, labels, told, until, tell).checked(times, twices))
        shown = [_warned(arm, b, told) for arm, b in zip(arms, built, strict=True) if repr(arm.task) in twices]
    everybody = f" ({', '.join(labels.values())})"
    told.remarks += [
        note.removesuffix(everybody) for note in notes([arm for arm, _ in shown], [b for _, b in shown], labels)
    ]
    cost = _cost(arms, built, labels, times, twices, workers) if len(twices) == len(tasks) else None
    return Checked(tuple(tasks), cost, _once(told.remarks), _once(told.findings))


def _built(arms: Sequence[Arm], task: Task | None) -> list[Built]:
    """Every arm; arms of one task share its data. No model is tried."""
    tasks = {repr(arm.task): task for arm in arms}
    built = []
    for arm in arms:
        built.append(build_arm(arm, tasks[repr(arm.task)]))
        tasks[repr(arm.task)] = built[-1].task
    return built


def _once(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _warned(arm: Arm, built: Built, told: Told) -> tuple[Arm, Built]:
    """The arm with all that a user should know of it."""
    with told.failing():
        return arm, replace(built, warnings=(*built.warnings, *check_arm(built)))
    return arm, built


def _cost(
    arms: Sequence[Arm],
    built: Sequence[Built],
    labels: Mapping[str, str],
    times: Mapping[str, float],
    twices: Mapping[str, Twice],
    workers: int | None,
) -> Cost:
    found: list[ArmCost] = []
    for arm, b in zip(arms, built, strict=True):
        rungs, evaluations = len(b.program.rung_steps()), twices[repr(arm.task)].evaluations
        found.append(cost_of(arm, labels[arm.name], times.get(_timed_as(arm)), rungs, evaluations))
    return Cost(tuple(found), max(1, deal(arms[0], workers)[0]))


def _timed_as(arm: Arm) -> str:
    """Equal for arms whose steps take equally long, about: schedules and averages cost little."""
    return repr((arm.task, arm.optimizer, replace(arm.trainer, steps=2, rungs=1, lanes=1)))


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


class _Task:
    """The arms of one task, and the trial of it."""

    def __init__(
        self,
        arms: Sequence[tuple[Arm, Built]],
        labels: Mapping[str, str],
        told: Told,
        until: float,
        tell: Callable[[str], None],
    ) -> None:
        self.arms, self.labels, self.told, self.until, self.tell = arms, labels, told, until, tell
        self.first, built = arms[0]
        self.task = built.task
        self.catalogue = {name: _optimizer(content) for name, content in contents_of("optimizer").items()}
        base = plain_arm(self.first, self.catalogue[REFERENCE])
        self.base = build_arm(base, self.task)
        self.program = replace(self.base.program, vmapped=True, log_every=STEPS)  # so that lanes are tried too

    def checked(self, times: dict[str, float], twices: dict[str, Twice]) -> CheckedTask:
        """Try it; the times of the arms' steps and what two equal trials showed are added to what was found before."""
        self.tell("trying the model")
        facts = [("data", facts_of(self.program))]
        tried: list[TriedOptimizer] = []
        with self.told.failing("task.model"):
            traits = self.program.traits
            plain = replace(self.program, vmapped=False).knowing(traits)
            facts += model_said(plain, self.told.remarks, self.told.findings)
            facts.append(("data order", data_said(plain, self.told.remarks, self.told.findings)))
            self.tell("training twice with one seed")
            found = twice(plain, Trial(self.base.space.hyper({}), seed=0, test=True))
            facts.append(("same seed twice", found.said(self.told.remarks, self.told.findings)))
            facts.append(("lanes", lanes_said(traits.alone)))
            tried = list(self._tried(plain, times))
            twices[repr(self.first.task)] = found
            facts.append(("memory", memory_said(plain)))
        self._judge(tried)
        axes = [f"{key}={value}" for key, value in self.first.axes.items() if key.startswith("task.")]
        return CheckedTask(" ".join([self.first.task.name, *axes]), tuple(facts), tuple(tried), REFERENCE, STEPS)

    def _subjects(self) -> Iterator[Subject]:
        """The reference, the optimizers of the arms, the others of the catalogue."""
        own: dict[str, tuple[Arm, Built]] = {}
        for arm, built in self.arms:
            own.setdefault(_timed_as(arm), (arm, built))
        names = [arm.optimizer.name for arm, _ in own.values()]
        subjects = []
        for name, (arm, built) in zip(names, own.values(), strict=True):
            plain = self.catalogue.get(name) == arm.optimizer and names.count(name) == 1
            subjects.append(Subject(name if plain else self.labels[arm.name], arm, built))
        taken = {subject.label for subject in subjects}
        subjects += [
            Subject(name, plain_arm(self.first, config))
            for name, config in self.catalogue.items()
            if name not in taken
        ]
        return iter(sorted(subjects, key=lambda subject: subject.label != REFERENCE))

    def _tried(self, like: Program, times: dict[str, float]) -> Iterator[TriedOptimizer]:
        """One subject after the other, until time is up."""
        left = []
        for subject in self._subjects():
            if subject.built is None and subject.label != REFERENCE and time.monotonic() > self.until:
                left.append(subject.label)
                continue
            self.tell(f"trying {subject.label}")
            yield self._try(subject, like, times)
        if left:
            self.told.remarks.append(f"time was up, so these were not tried: {', '.join(left)} (--seconds gives more)")

    def _try(self, subject: Subject, like: Program, times: dict[str, float]) -> TriedOptimizer:
        """Its first steps."""
        lr = 0.0
        try:
            built = subject.built or build_arm(subject.arm, self.task)
            params = {key: dimension.at(0.5) for key, dimension in built.space.dimensions.items()}
            hyper = built.space.hyper(params)
            lr = hyper["lr"]
            program = replace(built.program_for(params), vmapped=False, log_every=STEPS)
            if program.batch_size == like.batch_size and program.task is like.task:
                program.knowing(like.traits)
            found = first_steps(program, Trial(hyper, seed=0), STEPS, LEAST_SECONDS)
        except Exception as error:
            return TriedOptimizer(subject.label, lr, trouble=said(error))
        times[_timed_as(subject.arm)] = found.ms_per_step
        first, then = found.points[0].loss, found.points[1].loss
        peak = found.peak_bytes if program.device.type == "cuda" else None
        return TriedOptimizer(subject.label, lr, found.ms_per_step, (first, then), found.state_bytes, peak)

    def _judge(self, tried: Sequence[TriedOptimizer]) -> None:
        """What failed, of all of them."""
        for optimizer in tried:
            if optimizer.trouble:
                self.told.findings.append(f"{optimizer.label}: {optimizer.trouble}")
        wild = [optimizer for optimizer in tried if not optimizer.trouble and not optimizer.finite]
        if wild and len(wild) == sum(not optimizer.trouble for optimizer in tried):
            self.told.findings.append(f"the loss isn't finite within {2 * STEPS} steps, whatever the optimizer")
        elif wild:
            names = ", ".join(f"{optimizer.label} (LR {optimizer.lr:.2g})" for optimizer in wild)
            self.told.remarks.append(
                f"the loss isn't finite within {2 * STEPS} steps with {names}; a search also tries lower LRs"
            )


def _optimizer(content: Mapping[str, object]) -> OptimizerConfig:
    """An optimizer as its YAML has it."""
    options = {key: value for key, value in content.items() if key not in ("name", "_target_", "lr")}
    return OptimizerConfig(
        name=str(content["name"]), target=str(content["_target_"]), lr=content.get("lr"), options=options  # type: ignore[arg-type]
    )


def said(error: Exception) -> str:
    """An error in a line."""
    return str(error) if isinstance(error, UserError) else located(error)
