"""An arm as its planner needs to know it: plain data made from the built arm, so that another process may build it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optsweep.build.fingerprint import Identity, fingerprint_of
from optsweep.build.machine import Machine
from optsweep.config.arm import Arm
from optsweep.launch.prepare.fit import ONE_LANE, FittedLanes
from optsweep.search.space import Space
from optsweep.tracking.schema import ArmFacts, OptimizerTerms, ScheduleTrace

if TYPE_CHECKING:  # a planner reads descriptions, and has no use for a second of torch
    from optsweep.build.assemble import Built
    from optsweep.train.workload import ArmProgram

MOST_TRACED = 2_000
"""Steps of a schedule that are stored; of a longer run evenly thinned."""


@dataclass(frozen=True)
class Description:
    """What is known of an arm that was built and checked."""

    fingerprint: str
    identity: Identity
    content: Mapping[str, Any]  # the settings that decide a trial's numbers, flat
    space: Space
    algorithm: str  # equal for arms that are the same under two names
    warnings: tuple[str, ...]
    facts: ArmFacts  # with the first of the choices, where trials choose their program
    schedule: ScheduleTrace | None
    optimizer: OptimizerTerms
    num_train: int  # samples
    reads: tuple[str, ...] | None = None  # files that decide its numbers beside what is installed; None: nobody knows
    fitted: FittedLanes = ONE_LANE

    @property
    def begun_on(self) -> Machine:
        """The machine on which its trials began: this one, unless others are allowed."""
        return Machine.noted(self.content, self.identity.exact)

    def as_on(self, parts: Mapping[str, str], approximate: Mapping[str, float]) -> Description:
        """The arm as it is where these parts of its fingerprint are so, and its numbers came out like this."""
        exact = {key: parts.get(key, value) for key, value in self.identity.exact.items()}
        content = {key: parts.get(key, value) for key, value in self.content.items()}
        identity = replace(self.identity, exact=exact, approximate=approximate)
        return replace(self, identity=identity, content=content, fingerprint=fingerprint_of({**content, **exact}))


def described(arm: Arm, built: Built, fitted: FittedLanes = ONE_LANE) -> Description:
    """What is to be known of an arm that has the lanes that were found for it. Probes its model."""
    from optsweep.build.assemble import algorithm_of
    from optsweep.build.stated import stated
    from optsweep.tasks.base import Split

    program = built.program
    return Description(
        fingerprint=built.fingerprint,
        identity=built.identity,
        content={key: _sendable(value) for key, value in built.content.items()},
        space=built.space,
        algorithm=algorithm_of(built),
        warnings=built.warnings,
        facts=replace(facts_of(arm, program), lanes_found=fitted.found),
        schedule=schedule_trace(program),
        optimizer=optimizer_terms(arm, program),
        num_train=stated(program.task).sizes[Split.TRAIN],
        reads=_reads(built),
        fitted=fitted,
    )


def _reads(built: Built) -> tuple[str, ...] | None:
    """What a task that comes with optsweep reads; code of the user's own may read anything."""
    from optsweep.tasks.base import Task

    task, chosen = built.task, any(key.startswith("task.") for key in built.space.program)  # by trials
    if not isinstance(task, Task) or not type(task).__module__.startswith("optsweep.tasks."):
        return None
    return None if chosen or built.identity.has_own_code else task.reads


def facts_of(arm: Arm, program: ArmProgram) -> ArmFacts:
    """What the arm's numbers mean."""
    from optsweep.build.combination import ships_average
    from optsweep.build.resplit import redraws
    from optsweep.build.stated import stated
    from optsweep.tasks.base import Split
    from optsweep.train.workload import workload_of

    said, facts = stated(program.task), workload_of(program).facts
    return ArmFacts(
        num_parameters=facts.num_parameters,
        num_steps=facts.num_steps,
        batch_size=facts.batch_size,
        samples_seen=facts.batch_size * facts.num_steps,
        metric=said.metric,
        higher_is_better=said.higher_is_better,
        loss_unit=said.loss_unit,
        chance_loss=said.chance_loss,
        target_loss=said.target_loss,
        warmup_steps=program.schedule.length,
        device=arm.trainer.device,
        precision=program.precision,
        lanes=arm.trainer.given_lanes or 1,
        threads=arm.trainer.threads,
        data=said.digest,
        num_test=said.sizes.get(Split.TEST),
        resplit=redraws(arm, program.task),
        averaged=ships_average(arm),
        decides=program.task.decides,
    )


def optimizer_terms(arm: Arm, program: ArmProgram) -> OptimizerTerms:
    """What the config doesn't say of the optimizer; a loop of one's own says its groups where it asks for one."""
    from optsweep.tasks.base import Task

    left = [key for key, value in arm.schedule.options.items() if value == "suggested"]
    options = program.schedule.options
    terms = OptimizerTerms({key: value for key in left if isinstance(value := options.get(key), (int, float))})
    if isinstance(program.task, Task):
        return replace(terms, groups=_sendable(program.task.groups), heads=tuple(program.task.head_modules))
    start = program.task.rehearsed.start
    return replace(terms, groups=_sendable(start.groups), heads=start.heads)


def schedule_trace(program: ArmProgram, most: int = MOST_TRACED) -> ScheduleTrace | None:
    """The multipliers of every step, of more than `most` steps so many, first, last and the warm-up's corner included.

    None for a schedule that listens to evaluations: each trial has its own.
    """
    schedule, num_steps = program.schedule, program.num_steps
    if schedule.listens:
        return None
    steps = np.arange(num_steps)
    if num_steps > most:
        evenly = np.linspace(0, num_steps - 1, most).round().astype(np.int64)
        corner = schedule.length + np.arange(-1, 2)
        steps = np.union1d(evenly, corner[(corner >= 0) & (corner < num_steps)])
    return ScheduleTrace(steps, schedule.multipliers(num_steps, num_steps)[steps])


def _sendable(value: Any) -> Any:
    """The value, mappings of whatever kind as dictionaries: not every kind travels between processes."""
    return {key: _sendable(held) for key, held in value.items()} if isinstance(value, Mapping) else value
