"""A pool's workers: what they answer, and what becomes of those that end, hang, or lose their planner."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from errands import Dying, Echo, Hanging, Leaving, Mistake, Refusal
from optsweep.errors import UserError
from optsweep.launch.pools import local
from optsweep.launch.pools.deaths import LONGEST_PAUSE_SECONDS
from optsweep.launch.pools.local import LocalPool, _Member
from optsweep.launch.pools.member import Answered, Ready, ToWork, Worked, _Serving
from optsweep.launch.pools.pool import Pool
from optsweep.launch.worker.exit_codes import ORPHANED
from optsweep.launch.worker.inquiries import DiedError
from optsweep.launch.worker.watchdog import Watchdog

LIGHT = "errands"
"""All that these workers import."""


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    with LocalPool(1, needs=LIGHT) as made:
        yield made


def test_a_worker_answers_and_says_in_a_line_what_it_refuses(pool: LocalPool) -> None:
    assert pool.ask(Echo({"a": 1})) == {"a": 1}
    (member,) = pool._members
    with pytest.raises(UserError, match=r"^task.width: it is wrong$"):
        pool.ask(Refusal())
    with pytest.raises(RuntimeError, match=r"errands.py(.|\n)*OwnError: a mistake"):
        pool.ask(Mistake())
    assert pool._members == [member], "one worker has answered all of it"


def test_while_the_first_answer_is_on_its_way_this_process_does_something_else(
    seeming: NoProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LOOK_SECONDS", 0.0)
    done: list[str] = []

    def meanwhile() -> None:
        done.append("imported")
        seeming.say(0, Answered("an answer"))

    seeming._meanwhile = meanwhile
    seeming.say(1, Answered("of nobody who was asked"))
    assert seeming.ask(Echo(1)) == "an answer"
    seeming.say(0, Answered("another one"))
    assert (seeming.ask(Echo(2)), done) == ("another one", ["imported"])


def test_workers_that_are_dismissed_end_by_themselves_and_are_waited_for_in_the_end() -> None:
    with LocalPool(1, needs=LIGHT) as made:
        assert made.ask(Echo(1)) == 1
        (member,) = made._members
        made.dismiss()
        assert select.select([member.process.sentinel], [], [], 60.0)[0], "before anybody waits for it"
    assert member.process.exitcode == 0


def test_a_worker_opens_the_stores_of_its_planner_wherever_the_user_s_code_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_in: list[Path] = []

    def opened(jobs: Any, **rest: Any) -> Any:
        opened_in.append(Path.cwd())
        return MagicMock()

    monkeypatch.setattr("optsweep.launch.worker.worker.Worker", opened)
    here, line = Path.cwd(), MagicMock()  # which has the next order at once
    serving = _Serving(line, Watchdog(os.getppid()))
    monkeypatch.chdir(tmp_path)  # in which it goes on, and may have files
    serving.obey(ToWork([], None))
    assert (opened_in, Path.cwd()) == ([here], tmp_path)


@pytest.mark.parametrize(
    ("request_", "how"),
    [
        (Leaving(0), "its process ended with exit code 0"),
        (Dying(signal.SIGSEGV), "its process ended with SIGSEGV (errands.py:{line}, in run)"),
        (Dying(signal.SIGKILL), "its process ended with SIGKILL"),
    ],
    ids=["exit", "segfault", "kill"],
)
def test_who_asks_is_told_that_the_worker_has_ended_and_the_next_one_answers(
    pool: LocalPool, request_: Any, how: str
) -> None:
    with pytest.raises(DiedError) as raised:
        pool.ask(request_)
    assert (raised.value.at, raised.value.how) == ("an arm", how.format(line=line_of("dies here")))
    assert raised.value.killed is ("SIGKILL" in how)
    assert pool.ask(Echo("again")) == "again"


def test_a_worker_that_hangs_ends_itself_and_its_children_and_says_where(pool: LocalPool) -> None:
    with pytest.raises(DiedError) as raised:
        pool.ask(Hanging(patience=0.0))
    assert raised.value.how == f"it took longer than 0 s (errands.py:{line_of('hangs here')}, in run)"


def line_of(words: str) -> int:
    lines = (Path(__file__).parents[1] / "errands.py").read_text().splitlines()
    return next(number for number, text in enumerate(lines, 1) if words in text)


PLANNER = f"""
import errands
from optsweep.launch.pools.local import LocalPool
LocalPool(1, needs="{LIGHT}").ask(errands.Hanging(patience=1e9))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open")
def test_a_worker_whose_planner_was_killed_ends_whatever_it_is_doing_and_so_do_its_children() -> None:
    tests = Path(__file__).parents[1]
    planner = subprocess.Popen(
        [sys.executable, "-c", PLANNER], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tests)}
    )
    assert planner.stdout is not None
    orphans = [os.pidfd_open(int(pid)) for pid in planner.stdout.readline().split()]
    assert len(orphans) == 2
    planner.kill()
    planner.wait()
    for orphan in orphans:
        assert select.select([orphan], [], [], 60.0)[0], "it lives"
        os.close(orphan)
    planner.stdout.close()


# -- replacing the dead, by workers that are none ----------------------------------------------------------------------


class SettableClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A worker's process, alive until it has an exit code."""

    exitcode: int | None = None
    pid, killed = 2**22 + 1, False  # no process has so high a number

    @property
    def sentinel(self) -> int:
        return self._sentinel

    def __init__(self) -> None:
        self._sentinel, _ = os.pipe()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.killed = True

    def join(self, seconds: float = 0.0) -> None:
        pass


class Line:
    """What a worker has said."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self._readable, _ = os.pipe()

    def fileno(self) -> int:
        return self._readable

    def poll(self) -> bool:
        return bool(self.said)

    def recv(self) -> object:
        return self.said.pop(0)

    def send(self, what: object) -> None:
        pass


class NoProcesses(LocalPool):
    """A pool of workers that only seem to be."""

    def _started(self, device: str | None) -> _Member:
        return _Member(cast(Any, Process()), cast(Any, Line()), cast(Any, Line()), device)

    def say(self, place: int, what: object) -> None:
        cast(Any, self._members[place].line).said.append(what)

    def die(self, place: int, code: int = -signal.SIGKILL) -> list[tuple[str, str]]:
        cast(Any, self._members[place].process).exitcode = code
        return self.wait(0.0)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def seeming(clock: SettableClock) -> NoProcesses:
    pool = NoProcesses(1, clock)
    pool.deal(["cpu", "cpu"])
    pool.assign([])
    return pool


def pause(pool: NoProcesses, clock: SettableClock) -> float:
    """Seconds until the next worker has come."""
    before, count = clock.now, len(pool._members)
    while len(pool._members) == count:
        clock.now += 0.5
        pool.wait(0.0)
    return clock.now - before


def test_a_worker_that_dies_in_a_trial_is_replaced_with_pauses_that_grow_until_a_trial_ends(
    seeming: NoProcesses, clock: SettableClock
) -> None:
    pauses = []
    for number in range(10):
        seeming.say(-1, Ready(str(number)))
        seeming.wait(0.0)
        assert seeming.die(-1) == [(str(number), "its worker died (SIGKILL)")]
        pauses.append(pause(seeming, clock))
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    seeming.say(0, Worked())
    seeming.wait(0.0)
    assert seeming.die(-1) == []
    assert pause(seeming, clock) == 0.5


def test_workers_killed_at_their_start_end_the_sweep_only_where_none_trains(
    seeming: NoProcesses, clock: SettableClock
) -> None:
    seeming.say(0, Ready("trains"))
    for _ in range(6):
        assert seeming.die(1) == []
        pause(seeming, clock)
    with pytest.raises(UserError, match=r"^4 workers in a row were killed at their start \(SIGKILL\)"):
        seeming.die(0), seeming.die(0)


def test_one_that_fails_at_its_start_ends_the_sweep(seeming: NoProcesses) -> None:
    with pytest.raises(UserError, match=r"ended at its start \(exit code 1\)"):
        seeming.die(0, 1)


def test_a_worker_that_hangs_is_ended_by_its_name_and_no_other(seeming: NoProcesses) -> None:
    seeming.say(0, Ready("a"))
    seeming.wait(0.0)
    seeming.kill("a")
    seeming.kill("elsewhere/1/1")
    assert [cast(Any, member.process).killed for member in seeming._members] == [True, False]


def test_a_local_pool_is_a_pool() -> None:
    made: Callable[[int], Pool] = LocalPool
    assert made(1) is not None
    assert ORPHANED > 0
