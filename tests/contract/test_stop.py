"""How a sweep is asked to stop, and what happens to its workers then."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hydra.types import HydraContext
from sqlalchemy.exc import OperationalError

from hydra_plugins.optsweep.local_launcher import LocalLauncher
from optsweep import api
from optsweep.cli.main import hear_every_interrupt
from optsweep.command import Command
from optsweep.errors import UserError
from optsweep.launch import stop, work
from optsweep.launch.events import Event, Stopped
from optsweep.launch.planner import Planner
from optsweep.launch.pools.pool import Pool
from optsweep.tracking.outage import StoreFailureError, storage_outage
from optsweep.written import Written
from patience import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As in a terminal, whatever the tests were started by."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_noted_once_and_a_later_one_is_obeyed_at_once(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    with stop.StopRequest(at_a_rung=False) as request:
        assert not request.asked
        os.kill(os.getpid(), number)
        assert request.asked
        os.kill(os.getpid(), number)  # the same request, sent to the process and to its group
        monkeypatch.setattr(stop, "ONE_REQUEST_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_background_job_goes_on_ignoring_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop.StopRequest(at_a_rung=False) as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert not request.asked


class IdlePlanner:
    """A planner with work to do, and none done."""

    done_before, progress = 0, ()

    def step(self) -> bool:
        return False

    def num_done(self) -> int:
        return 0

    def release_all(self, reason: str) -> None:
        raise locked_out()


def locked_out() -> OperationalError:
    return OperationalError("SELECT", None, sqlite3.OperationalError("database is locked"))


def test_who_stops_a_sweep_whose_storage_is_away_has_stopped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(jobs: object, *, stopping: Callable[[], bool]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping()
        raise StoreFailureError("the storage is away")

    monkeypatch.setattr("optsweep.launch.worker.worker.Worker", waits)
    said: list[Event] = []
    outage = storage_outage("sqlite:///nowhere.db")
    with pytest.raises(KeyboardInterrupt):
        work.work(cast(Planner, IdlePlanner()), (), None, "optsweep …", said.append, outage)
    assert said[-1] == Stopped(0, 0, "optsweep …")


def test_ctrl_c_before_a_sweep_has_begun_leaves_nothing_that_hydra_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", interrupted)
    launcher = LocalLauncher()
    launcher.hydra_context, launcher.command = cast(HydraContext, SimpleNamespace(config_loader=None)), Command((), ())
    launcher.written = Written(tmp_path / "hydra" / "multirun.yaml")
    launcher.written.file.parent.mkdir()
    launcher.written.file.write_text("hydra: {}")
    with pytest.raises(KeyboardInterrupt):
        launcher.launch([], 0)
    assert not list(tmp_path.iterdir())


class DeadPool:
    """A pool whose worker has died; at its start, if `early`."""

    def __init__(self, *, early: bool) -> None:
        self.early = early

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        if self.early:
            raise UserError("a worker ended at its start")
        return [("worker", "its worker died (SIGTERM)")]


class Losses(list[str]):
    """A planner that notes which workers it lost."""

    def lose_worker(self, worker: str, reason: str) -> None:
        self.append(worker)


def watch(pool: DeadPool, *, asked: bool) -> list[str]:
    planner, request = Losses(), stop.StopRequest(at_a_rung=False)
    request.asked = asked
    storage = storage_outage("sqlite:///optuna.db")
    work._watch(cast(Pool, pool), cast(Planner, cast(Any, planner)), request, storage)
    return planner


def test_a_worker_that_dies_of_the_signal_that_stops_the_sweep_is_no_crash() -> None:
    assert watch(DeadPool(early=False), asked=False) == ["worker"]
    assert watch(DeadPool(early=False), asked=True) == []
    assert watch(DeadPool(early=True), asked=True) == []
    with pytest.raises(UserError, match="at its start"):
        watch(DeadPool(early=True), asked=False)


def test_an_interrupt_in_a_finalizer_is_raised_where_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalized:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    hear_every_interrupt()

    Finalized()
    with pytest.raises(KeyboardInterrupt):
        threading.Event().wait(PATIENCE_SECONDS)
