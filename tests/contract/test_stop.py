"""How a sweep is asked to stop, and what happens to its workers then."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest

from optsweep.errors import UserError
from optsweep.launch import stop, work
from optsweep.launch.planner import Planner
from optsweep.launch.pool import Pool
from optsweep.tracking.outage import storage_outage


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
