"""What planner, workers and tracking pay for a database: SQLite's file beside a PostgreSQL server on this machine.

    PYTHONPATH=tests python benchmarks/databases.py

Milliseconds of one caller, medians over rounds in which both databases take turns; then pops and tells a second of 64
workers (16 threads in each of 4 processes, each with a connection of its own) that train nothing; then what one more
suggestion costs a planner whose search has 1,000 trials, and 10,000; then a look of it at a search of 10,000 results,
2,400 trials that wait and 64 in training, and the count by which it knows whether to look. docs/scaling.md has the
output.
"""

from __future__ import annotations

import multiprocessing as mp
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeVar

from sqlalchemy import insert, text

from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.slots import SearchPlan, Slot, results_of, suggest
from optsweep.search.space import Space
from optsweep.search.storage import open_storage
from optsweep.search.studies import Studies
from optsweep.search.tables import LEASES, TRIALS, USER_ATTRIBUTES, VALUES
from optsweep.tracking import store
from optsweep.tracking.whole import WholeRun
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Phase
from servers.parts import postgres

T = TypeVar("T")
ARM = "task=none optimizer=none"
ROUNDS, CALLS = 5, 40
PROCESSES, THREADS, TRIALS_OF_ALL = 4, 16, 1_500
RESULTS, WAITING, TRAINING, LOOKS = 10_000, 2_400, 64, 20


def one_caller(url: str) -> dict[str, float]:
    """Milliseconds of each call that a trial takes."""
    studies = Studies.open(url, f"one {uuid.uuid4().hex[:6]}")
    found: dict[str, float] = {}

    def timed(name: str, call: Callable[[int], T]) -> list[T]:
        began, made = time.perf_counter(), [call(n) for n in range(CALLS)]
        found[name] = 1e3 * (time.perf_counter() - began) / CALLS
        return made

    with studies.take_seat([ARM], whole=True) as seat:
        timed("enqueue", lambda n: studies.enqueue(seat, ARM, Phase.SEARCH, Slot(n, {"lr": 0.1}, 0, "model")))
        popped = timed("pop", lambda n: studies.pop(ARM, Phase.SEARCH, "worker", LEASE_SECONDS, 1)[0])
        claims = [work.claim for work in popped]
        timed("renew a lease", lambda n: studies.renew(claims[n], LEASE_SECONDS))
        timed("report a rung", lambda n: studies.report(claims[n], 5, 0.5, LEASE_SECONDS))
        timed("tell", lambda n: studies.tell(claims[n], End.FINISHED, 0.5, 1.0))
        timed("count states", lambda n: studies.states([(ARM, 0)]))
    return found


def tracking(uri: str) -> float:
    """Milliseconds of a trial's run of 120 points, written whole."""
    tracker = Tracker(uri, f"one {uuid.uuid4().hex[:6]}")
    points = [(key, 0.5, 1_000 * step, step) for step in range(40) for key in ("train/loss", "val/loss", "lr")]
    tags, params = {f"tag{n}": "x" for n in range(8)}, {f"param{n}": "1" for n in range(8)}
    began = time.perf_counter()
    for _ in range(CALLS):
        assert tracker.add_whole([WholeRun("a trial", tags, params, points, "FINISHED", 1, 2)])
    return 1e3 * (time.perf_counter() - began) / CALLS


# -- many workers --------------------------------------------------------------------------------------------------


def _work(url: str, sweep: str, counts: Queue[int], ready: Barrier) -> None:
    """A process of workers; says how many trials they had, or raises."""
    held = [Studies.open(url, sweep) for _ in range(THREADS)]
    done: list[int] = []

    def work(studies: Studies, name: str) -> None:
        count = 0
        while works := studies.pop(ARM, Phase.SEARCH, name, LEASE_SECONDS, 1):
            studies.tell(works[0].claim, End.FINISHED, 0.5, 0.0)
            count += 1
        done.append(count)

    threads = [threading.Thread(target=work, args=(s, f"w{mp.current_process().pid}-{n}")) for n, s in enumerate(held)]
    ready.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.put(sum(done) if len(done) == THREADS else -1)


def many_workers(url: str, trials: int = TRIALS_OF_ALL) -> tuple[float, int, int]:
    """Trials a second that all workers pop and tell, how many workers had no error, and results that are there."""
    sweep = f"many {uuid.uuid4().hex[:6]}"
    studies = Studies.open(url, sweep)
    with studies.take_seat([ARM], whole=True) as seat:
        for n in range(trials):
            studies.enqueue(seat, ARM, Phase.SEARCH, Slot(n, {"lr": 0.1}, 0, "model"))
    context = mp.get_context("spawn")
    counts, ready = context.Queue(), context.Barrier(PROCESSES + 1)
    processes = [context.Process(target=_work, args=(url, sweep, counts, ready)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    ready.wait()
    began = time.perf_counter()
    had = [counts.get() for _ in processes]
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    told = sum(trial.told for trial in studies.known([ARM]))
    assert told == sum(had) == trials, "none lost, none doubled"
    return trials / seconds, THREADS * sum(count >= 0 for count in had), told


# -- one more suggestion -------------------------------------------------------------------------------------------


def one_more(url: str, trials: int) -> float:
    """CPU milliseconds from a result to the next trial in the queue, of a planner that knows the others.

    The search is one of 1.4 times as many trials: its first half is over, so that its model suggests.
    """
    plan, space = example(trials * 7 // 5)
    studies = Studies.open(url, f"long {trials} {uuid.uuid4().hex[:6]}")
    _fill(url, studies, trials)
    times, known = [], results_of(space)
    with studies.take_seat([ARM], whole=True) as seat:
        studies.history(ARM, Phase.SEARCH, 1)
        for n in range(trials, trials + 12):
            studies.enqueue(seat, ARM, Phase.SEARCH, Slot(n, {"lr": 0.1}, 0, "model"))
            (work,) = studies.pop(ARM, Phase.SEARCH, "worker", LEASE_SECONDS, 1)
            studies.tell(work.claim, End.FINISHED, 0.5, 0.0)
            began = time.process_time()
            slots = studies.history(ARM, Phase.SEARCH, 1).prefix()
            slot = suggest(plan, space, len(slots), slots, known)
            studies.enqueue(seat, ARM, Phase.CONFIRM, slot)
            times.append(1e3 * (time.process_time() - began))
    return statistics.median(times)


def one_look(url: str) -> tuple[float, float]:
    """CPU milliseconds of a look of a planner that has looked before, and of the count that comes before it."""
    studies = Studies.open(url, f"look {uuid.uuid4().hex[:6]}")
    _fill(url, studies, RESULTS)
    with studies.take_seat([ARM], whole=True) as seat:
        slots = [Slot(n, {"lr": 0.1}, 0, "model") for n in range(RESULTS, RESULTS + WAITING + TRAINING)]
        studies.enqueue_all(seat, ARM, Phase.SEARCH, slots)
        studies.pop(ARM, Phase.SEARCH, "worker", LEASE_SECONDS, TRAINING)
        studies.history(ARM, Phase.SEARCH, 1)
        looks, counts = [], []
        for _ in range(LOOKS):
            began = time.process_time()
            studies.history(ARM, Phase.SEARCH, 1)
            looks.append(1e3 * (time.process_time() - began))
            began = time.process_time()
            studies.states([(ARM, 0)])
            counts.append(1e3 * (time.process_time() - began))
    return statistics.median(looks), statistics.median(counts)


def _fill(url: str, studies: Studies, trials: int) -> None:
    """So many results, straight in the tables."""
    study, engine = studies.ensure(ARM, Phase.SEARCH), open_storage(url).engine
    with engine.begin() as connection:
        rows = [{"study_id": study, "state": "COMPLETE", "number": n} for n in range(trials)]
        numbers = list(connection.execute(insert(TRIALS).returning(TRIALS.c.trial_id), rows).scalars())
        for table, of in ((USER_ATTRIBUTES, _attributes), (VALUES, _values)):
            connection.execute(insert(table), [row for place, n in enumerate(numbers) for row in of(place, n)])
        connection.execute(insert(LEASES), [{"trial_id": n, "token": 2, "step": 0} for n in numbers])
        connection.execute(text("ANALYZE"))  # as a server does by itself while tables grow


def _attributes(place: int, number: int) -> Iterator[Mapping[str, object]]:
    said = {"id": f'"{number}"', "slot": place, "params": f'{{"lr": {0.001 * (1 + place % 97)}}}', "seed": 0}
    said |= {"origin": '"model"', "attempt": 0, "prune_above": "{}", "end": '"finished"', "train_seconds": 0.1}
    return ({"trial_id": number, "key": key, "value_json": str(value)} for key, value in said.items())


def _values(place: int, number: int) -> Iterator[Mapping[str, object]]:
    yield {"trial_id": number, "objective": 0, "value": 1 + abs(place % 97 - 40) / 97, "value_type": "FINITE"}


# -- all of it -----------------------------------------------------------------------------------------------------


@contextmanager
def databases() -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """Addresses for studies and for runs, by the database's name."""
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        files = [f"sqlite:///{Path(folder) / name}.db" for name in ("studies", "runs")]
        tables = [server.make_database(name) for name in ("studies", "runs")]
        yield {"SQLite": files[0], "PostgreSQL": tables[0]}, {"SQLite": files[1], "PostgreSQL": tables[1]}


def main() -> None:
    names: Sequence[str] = ("SQLite", "PostgreSQL")
    with databases() as (studies, runs):
        for uri in runs.values():
            store.check(uri)
        timed: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        for _ in range(ROUNDS):
            for name in names:
                for call, found in one_caller(studies[name]).items():
                    timed[name].setdefault(call, []).append(found)
                timed[name].setdefault("a trial's run", []).append(tracking(runs[name]))
        print("| milliseconds of one caller | SQLite | PostgreSQL |\n| --- | ---: | ---: |")
        for call in timed[names[0]]:
            print(f"| {call} | " + " | ".join(f"{statistics.median(timed[name][call]):.1f}" for name in names) + " |")
        for name in names:
            rate, fine, told = many_workers(studies[name])
            print(f"{name}: {fine} workers without an error, {told} trials, {rate:.0f} pops and tells a second")
        for name in names:
            few, many = (one_more(studies[name], trials) for trials in (1_000, 10_000))
            print(f"{name}: one more suggestion {few:.0f} CPU ms at 1,000 trials, {many:.0f} at 10,000")
        for name in names:
            look, count = one_look(studies[name])
            print(f"{name}: a look {look:.1f} CPU ms, the count before it {count:.1f}")


def example(trials: int) -> tuple[SearchPlan, Space]:
    """A search of one learning rate."""
    from optsweep.build.assemble import build_arm
    from optsweep.config.compose import compose
    from optsweep.config.door import arm_of
    from optsweep.launch.standing import search_plan

    arm = arm_of(compose(["task=iris_mlp", "optimizer=sgd", f"search.trials={trials}", "sweep.name=example"]))
    return search_plan(arm, 0), build_arm(arm).space


if __name__ == "__main__":
    main()
