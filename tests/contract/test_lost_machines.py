"""A machine of which nothing is heard any more: its trials are free after a minute, those of one that lives aren't."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import insert, update

from arms import arm_with
from optsweep.launch.planner import PlannedArm, Planner
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.leases import LEASE_SECONDS, LeaseWatch
from optsweep.search.helping import lost_machines
from optsweep.search.ownership import LeaseLostError
from optsweep.search.process import machine_of, process_name
from optsweep.search.slots import SearchPlan
from optsweep.search.space import Space
from optsweep.search.studies import Studies
from optsweep.search.tables import HELPERS, SEATS, clock
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

ARM = arm_with({})
THERE = "b1946ac9/12/boot.pids."
WORKER, HELPER = f"{THERE}100", f"{THERE}50"


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")


def _helps(studies: Studies, process: str, left: float) -> None:
    row = {"sweep": "s", "process": process, "workers": 1, "expires": clock(studies.engine) + left}
    with studies.engine.begin() as connection:
        connection.execute(insert(HELPERS).values(**row))


def test_a_machine_is_lost_when_nobody_there_is_heard_of(studies: Studies) -> None:
    assert machine_of(WORKER) == machine_of(HELPER) == "b1946ac9/boot.pids"
    assert lost_machines(studies.engine, "s") == set()
    _helps(studies, HELPER, -1.0)
    assert lost_machines(studies.engine, "s") == {machine_of(HELPER)}
    assert lost_machines(studies.engine, "other") == set()
    _helps(studies, f"{THERE}51", 60.0)
    assert lost_machines(studies.engine, "s") == set()


def test_whose_seat_was_taken_after_its_lease_is_on_a_lost_machine(studies: Studies) -> None:
    with studies.take_seat([ARM.name], whole=True) as seat:
        there = update(SEATS).values(holder=HELPER, token="its", expires=clock(studies.engine) - 1.0)
        with studies.engine.begin() as connection:
            connection.execute(there)
        seat.release = lambda: None  # type: ignore[method-assign] # it isn't this one's
    for _ in range(2):  # once only
        with studies.take_seat([ARM.name], whole=True):
            assert lost_machines(studies.engine, "s") == {machine_of(HELPER)}


class NoNotes:
    """What MLflow is told goes nowhere."""

    def note_chosen(self, *_: object) -> None: ...


@pytest.mark.parametrize(("silent", "helper", "again"), [(70.0, -1.0, 1), (30.0, -1.0, 0), (70.0, 60.0, 0)])
def test_its_trials_are_run_again_unless_their_leases_were_renewed(
    silent: float, helper: float, again: int, studies: Studies
) -> None:
    seat = studies.take_seat([ARM.name], whole=True)
    watch = LeaseWatch(patience=0.0, lost=lambda: lost_machines(studies.engine, "s"))
    plan = SearchPlan(trials=0, lag=1, sampler="gp", pruner="none", reruns=0.0, seed=0, arm=ARM.name)
    tasks = [PlannedArm(Job(ARM, "a", "", ""), plan, Space({}))]
    tracker = cast(Tracker, NoNotes())
    planner = Planner(tasks, studies, seat, tracker, seeds=1, baseline=ARM.name, retries=1, watch=watch)
    planner.step()
    (work,) = studies.pop(ARM.name, Phase.CONFIRM, WORKER, LEASE_SECONDS - silent, 1)
    _helps(studies, HELPER, helper)
    planner.step()
    assert studies.num_waiting() == again
    if again:
        with pytest.raises(LeaseLostError):  # whoever wakes up
            studies.renew(work.claim, LEASE_SECONDS)
        (later,) = studies.pop(ARM.name, Phase.CONFIRM, process_name(), LEASE_SECONDS, 1)
        assert later.earlier == (work.id,), "from whose checkpoint it goes on"
