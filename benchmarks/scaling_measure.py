"""What the model of benchmarks/scaling.py is fed with, and what it is held against: constants, and sweeps that ran.

A server's computing is read from /proc, where all processes of its cluster are; the file's is that of who calls.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from statistics import median

from benchmarks.databases import example
from benchmarks.scaling_model import Sweep

from optsweep.launch.work import POLL_SECONDS
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.launch.worker.worker import LOOK_SECONDS
from optsweep.search.ownership import Claim
from optsweep.search.slots import Slot, next_slots, results_of, suggest
from optsweep.search.studies import Studies
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Phase
from servers.parts import Postgres, mlflow_server

ARM = "task=none optimizer=none"
CALLS, ROUNDS = 60, 3
OF_A_SERVER = 15
KNOWN = 400
"""Results that the planner knows whose suggestion is timed."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Call:
    """Milliseconds of a call: on the clock, of who calls, and of the server."""

    wall: float
    caller: float
    server: float


def cluster_seconds(folder: Path) -> float:
    """What all processes of a PostgreSQL cluster have computed, those that have ended included."""
    main = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    total = 0
    for pid, held in _processes():
        if pid == main:
            total += sum(map(int, held[11:15]))
        elif int(held[1]) == main:
            total += sum(map(int, held[11:13]))
    return total / TICKS


def calls(url: str, server: Callable[[], float]) -> dict[str, Call]:
    """What each call of the studies takes, a search of one arm in an otherwise idle database; medians of rounds."""
    rounds = [_calls(Studies.open(url, f"calls {uuid.uuid4().hex[:6]}"), server) for _ in range(ROUNDS)]
    return {
        name: Call(
            median(found[name].wall for found in rounds),
            median(found[name].caller for found in rounds),
            median(found[name].server for found in rounds),
        )
        for name in rounds[0]
    }


def _calls(studies: Studies, server: Callable[[], float]) -> dict[str, Call]:
    found: dict[str, Call] = {}
    claims: list[Claim] = []

    def timed(name: str, call: Callable[[int], object]) -> None:
        theirs, mine, begin = server(), time.process_time(), time.perf_counter()
        for number in range(CALLS):
            call(number)
        spent = (time.perf_counter() - begin, time.process_time() - mine, server() - theirs)
        found[name] = Call(*(1e3 * seconds / CALLS for seconds in spent))

    with studies.take_seat([ARM], whole=True) as seat:
        timed("enqueue", lambda n: studies.enqueue(seat, ARM, Phase.SEARCH, Slot(n, {"lr": 0.1}, 0, "model")))
        timed("pop", lambda n: claims.append(studies.pop(ARM, Phase.SEARCH, "w", LEASE_SECONDS, 1)[0].claim))
        timed("renew", lambda n: studies.renew(claims[n], LEASE_SECONDS))
        timed("report", lambda n: studies.report(claims[n], 5, 0.5, LEASE_SECONDS))
        timed("tell", lambda n: studies.tell(claims[n], End.FINISHED, 0.5, 1.0))
        timed("look", lambda n: (studies.states([(ARM, 0)]), studies.history(ARM, Phase.SEARCH, 1)))
    return found


def share_of_core(seconds: float = 0.4) -> float:
    """What a process that computes gets of a core now: 1 on a machine that is idle."""
    begin, mine = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        sum(range(1_000))
    return (time.process_time() - mine) / (time.perf_counter() - begin)


def suggestion() -> float:
    """Milliseconds of a core for one more suggestion of a model, in a search that goes on."""
    plan, space = example(2 * KNOWN)
    slots = [Slot(n, {"lr": 0.001 * (1 + n % 97)}, 0, "model", value=1 + abs(n % 97 - 40) / 97) for n in range(KNOWN)]
    known, times = results_of(space), []
    for _ in range(20):
        begin = time.process_time()
        slots.append(suggest(plan, space, len(slots), slots, known))
        times.append(1e3 * (time.process_time() - begin))
        slots[-1] = Slot(len(slots) - 1, slots[-1].params, 0, "model", value=1.0)
    return median(times)


def tracking(server: Postgres) -> dict[str, float]:
    """Milliseconds that the three calls of a trial to an MLflow server take to compute: there, and of who calls."""
    with tempfile.TemporaryDirectory() as folder, mlflow_server(server.make_database("runs"), Path(folder)) as served:
        tracker = Tracker(served.address, "made-up")
        _trials(tracker, 3)
        assert served._process is not None
        group = served._process.pid
        theirs, mine = group_seconds(group) + cluster_seconds(server.folder), time.process_time()
        _trials(tracker, OF_A_SERVER)
        theirs, mine = group_seconds(group) + cluster_seconds(server.folder) - theirs, time.process_time() - mine
        return {"caller": 1e3 * mine / OF_A_SERVER, "server": 1e3 * theirs / OF_A_SERVER}


def of_core(make: Callable[[str], object], uri: str, calls: int = 40) -> float:
    """Milliseconds of a core that each of the calls takes which this makes."""
    begin = time.process_time()
    make(uri)
    return 1e3 * (time.process_time() - begin) / calls


def group_seconds(group: int) -> float:
    """What the processes of a group have computed."""
    return sum(sum(map(int, held[11:13])) for _, held in _processes() if int(held[2]) == group) / TICKS


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Numbers of all that there are, and what /proc says of each, from its state on."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            yield int(stat.parent.name), stat.read_text().rpartition(")")[2].split()


def _trials(tracker: Tracker, number: int) -> None:
    from mlflow.entities import Metric

    keys = ("train/loss", "val/loss", "lr")
    for _ in range(number):
        tags = {f"tag{n}": "x" for n in range(8)}
        run = tracker.client.create_run(tracker.experiment_id, tags=tags, run_name="a trial")
        points = [Metric(key, 0.5, 1_000 * step, step) for step in range(40) for key in keys]
        tracker.client.log_batch(run.info.run_id, metrics=points)
        tracker.client.set_terminated(run.info.run_id, "FINISHED")


# -- sweeps that ran -----------------------------------------------------------------------------------------------


PROCESSES = 4


def ran(url: str, sweep: Sweep, workers: int) -> float:
    """Seconds of a real sweep whose trials sleep: real studies, planner's steps and pops, so many workers."""
    name, arms = f"ran {uuid.uuid4().hex[:6]}", [f"arm {n}" for n in range(sweep.searches)]
    context = mp.get_context("spawn")
    over, ready = context.Event(), context.Semaphore(0)
    each = [workers // PROCESSES + (n < workers % PROCESSES) for n in range(PROCESSES)]
    held = [
        context.Process(target=_work, args=(url, name, arms, sweep.seconds, count, ready, over))
        for count in each
        if count
    ]
    studies = Studies.open(url, name)
    for arm in arms:
        for phase in Phase:
            studies.ensure(arm, phase)
    for process in held:
        process.start()
    for _ in held:
        ready.acquire()
    try:
        return _plan(studies, sweep, arms)
    finally:
        over.set()
        for process in held:
            process.join()


def _plan(studies: Studies, sweep: Sweep, arms: Sequence[str]) -> float:
    """Plan it, with a look a second; seconds until all is told."""
    plan, space = example(sweep.trials)
    known, begin, told = {arm: results_of(space) for arm in arms}, time.perf_counter(), 0
    confirmed = set[str]()
    with studies.take_seat(arms, whole=True) as seat:
        while told < sweep.total:
            studies.states([(arm, 0) for arm in arms])
            told = 0
            for arm in arms:
                search = studies.history(arm, Phase.SEARCH, 1)
                for slot in next_slots(plan, space, search.prefix(), known[arm]):
                    studies.enqueue(seat, arm, Phase.SEARCH, slot)
                if search.num_done == sweep.trials and arm not in confirmed:
                    confirmed.add(arm)
                    studies.enqueue_all(
                        seat, arm, Phase.CONFIRM, [Slot(n, {}, n, "chosen") for n in range(sweep.seeds)]
                    )
                told += search.num_done + studies.history(arm, Phase.CONFIRM, 1).num_done
            time.sleep(POLL_SECONDS if told < sweep.total else 0.0)
    return time.perf_counter() - begin


def _work(url: str, sweep: str, arms: Sequence[str], seconds: float, count: int, ready: Semaphore, over: Event) -> None:
    """A process of workers, each with connections of its own."""
    held = [Studies.open(url, sweep) for _ in range(count)]

    def work(studies: Studies, place: int) -> None:
        at = place
        while not over.is_set():
            for n in range(len(arms)):
                arm = arms[(at + n) % len(arms)]
                if any(_once(studies, arm, phase, f"w{place}", seconds) for phase in Phase):
                    at += n + 1
                    break
            else:
                time.sleep(LOOK_SECONDS)

    threads = [threading.Thread(target=work, args=(studies, os.getpid() * 100 + n)) for n, studies in enumerate(held)]
    ready.release()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _once(studies: Studies, arm: str, phase: Phase, name: str, seconds: float) -> bool:
    works = studies.pop(arm, phase, name, LEASE_SECONDS, 1)
    for work in works:
        time.sleep(seconds)
        studies.tell(work.claim, End.FINISHED, 1 + work.slot.number % 7 / 7, seconds)
    return bool(works)


def ray_call() -> float:
    """Milliseconds that a call of an actor takes to compute of who calls."""
    import ray

    class Answers:
        def one(self) -> int:
            return 1

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        actor = ray.remote(Answers).remote()
        ray.get(actor.one.remote())
        begin = time.process_time()
        for _ in range(200):
            ray.get(actor.one.remote())
        return 1e3 * (time.process_time() - begin) / 200
    finally:
        ray.shutdown()
