"""Where a sweep's limits lie on 10 to 10,000 workers: a cost model of measured constants, and what it foretells.

    PYTHONPATH=tests:. python benchmarks/scaling.py            # docs/scaling.md's tables and figure, of stored numbers
    PYTHONPATH=tests:. python benchmarks/scaling.py --measure  # constants and sweeps anew, minutes; PostgreSQL, Ray

Numbers lie in benchmarks/scaling.json: milliseconds of each call, and sweeps that ran on a PostgreSQL of their
own with trials that sleep, everything on one machine. The same sweeps are simulated with these constants
(benchmarks/scaling_model.py). Nothing is fitted; where others compute on the machine too, what a process got of a core
was measured beside each sweep, and stretches what the simulated ones compute.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.scaling_model import Bound, Costs, Engine, Simulation, Station, Sweep, closed_form

HERE = Path(__file__).resolve().parent
STORED, PAGE, PICTURE = HERE / "scaling.json", HERE.parent / "docs/scaling.md", "images/scaling.svg"
BEGIN, END = "<!-- written by benchmarks/scaling.py -->", "<!-- end -->"

RAN = [
    (Sweep(searches=4, trials=24, seconds=seconds, seeds=4), workers)
    for seconds, workers in (
        (0.0, 1),
        (0.0, 4),
        (0.0, 16),
        (0.0, 64),
        (0.5, 4),
        (0.5, 16),
        (0.5, 64),
        (2.0, 16),
        (2.0, 64),
    )
]

ROUNDS = 3
WORKERS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
LENGTHS = {10.0: "10 s", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h"}
WIDE = Sweep(searches=36, trials=400, seconds=1.0)
NARROW = Sweep(searches=3, trials=64, seconds=1.0)
SERVER_CORES = 8


def engines(stored: Mapping[str, Any]) -> dict[str, Engine]:
    """Those that people run, by what is computed: a database server of 8 cores, an MLflow server with one process."""
    pg, file, mlflow = stored["calls"]["PostgreSQL"], stored["calls"]["SQLite"], stored["tracking"]

    def ours(of: Mapping[str, Any], name: str) -> float:
        return float(of[name]["caller"]) / 1e3

    def by(name: str, servers: int, more: float = 0.0) -> Engine:
        costs = Costs(
            suggest=stored["suggest"] / 1e3,
            enqueue=ours(pg, "enqueue") + more,
            pop={"database": pg["pop"]["server"] / 1e3, "worker": ours(pg, "pop")},
            tell={"database": pg["tell"]["server"] / 1e3, "worker": ours(pg, "tell")},
            renew={"database": pg["renew"]["server"] / 1e3},
            track={MLFLOW: mlflow["server"] / 1e3, "worker": mlflow["caller"] / 1e3},
            look=ours(pg, "look"),
        )
        stations = (Station("database", SERVER_CORES), Station(MLFLOW, servers), Station("worker", 10**6))
        return Engine(name, costs, stations)

    local = Costs(
        suggest=stored["suggest"] / 1e3,
        enqueue=ours(file, "enqueue"),
        pop={"file": ours(file, "pop")},
        tell={"file": ours(file, "tell")},
        renew={"file": ours(file, "renew")},
        deliver=stored["run"]["SQLite"] / 1e3,
        look=ours(file, "look"),
        woken=True,
    )
    return {
        "files": Engine("local, SQLite", local, (Station("file", 1),)),
        "servers": by("by hand, SLURM", 1),
        "ray": by("Ray", 1, 2 * stored["ray call"] / 1e3),
        "four": by("by hand, SLURM, 4 MLflow processes", 4),
    }


MLFLOW = "MLflow server"


def this_machine(stored: Mapping[str, Any], share: float) -> Engine:
    """Where the sweeps ran: workers, planner and database on the same cores, of which a process gets a share."""
    pg = stored["calls"]["PostgreSQL"]

    def computed(name: str) -> float:
        return float(pg[name]["server"] + pg[name]["caller"]) / 1e3 / share

    costs = Costs(
        suggest=stored["suggest"] / 1e3 / share,
        enqueue=computed("enqueue"),
        pop={"cores": computed("pop")},
        tell={"cores": computed("tell")},
        renew={"cores": computed("renew")},
        look=computed("look"),
    )
    return Engine("one machine", costs, (Station("cores", stored["cores"]),))


# -- tables --------------------------------------------------------------------------------------------------------


def constants_table(stored: Mapping[str, Any]) -> Iterator[str]:
    """Milliseconds of each call."""
    yield "| milliseconds of a core | SQLite, of the caller | PostgreSQL, of the caller | of its server |"
    yield "| --- | ---: | ---: | ---: |"
    for name, words in CALLS.items():
        file, server = (stored["calls"][key][name] for key in ("SQLite", "PostgreSQL"))
        yield f"| {words} | {file['caller']:.1f} | {server['caller']:.1f} | {server['server']:.1f} |"
    held, run = stored["tracking"], stored["run"]
    yield f"| a trial's run, whole into a file | {run['SQLite']:.1f} | – | – |"
    yield f"| a trial's three calls to an MLflow server | – | {held['caller']:.1f} | {held['server']:.1f} |"
    yield f"| a suggestion of the model, of the planner | {stored['suggest']:.1f} | {stored['suggest']:.1f} | – |"
    yield f"| a call of a Ray actor, of the planner | – | {stored['ray call']:.1f} | – |"


CALLS = {
    "enqueue": "enqueue",
    "pop": "pop",
    "renew": "renew a lease, every 10 s",
    "report": "report a rung, with a pruner",
    "tell": "tell",
    "look": "a look of the planner at an arm",
}


def ran_table(stored: Mapping[str, Any]) -> Iterator[str]:
    """Sweeps that ran, beside what was foretold."""
    yield "| workers | a trial | of a core | trials a second, measured | simulated | off by | closed form |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for point in stored["ran"]:
        rate, found = point["rate"], point["simulated"]
        off = f"{100 * (found / rate - 1):+.0f} %"
        first = f"| {point['workers']} | {point['seconds']:g} s | {100 * point['share']:.0f} % "
        yield f"{first}| {rate:.1f} | {found:.1f} | {off} | {point['closed form']:.1f} |"


def limits_table(stored: Mapping[str, Any]) -> Iterator[str]:
    """The largest number of workers at 90 % of their time in training, by engine and length of a trial."""
    of = engines(stored)
    yield f"| {WIDE.searches} searches of {WIDE.trials} trials | " + " | ".join(LENGTHS.values()) + " |"
    yield "| --- |" + " ---: |" * len(LENGTHS)
    for engine in of.values():
        yield f"| {engine.name} | " + " | ".join(_limit(engine, WIDE, seconds) for seconds in LENGTHS) + " |"
    yield (
        f"| {NARROW.searches} searches of {NARROW.trials} trials, by hand | "
        + " | ".join(_limit(of["servers"], NARROW, seconds) for seconds in LENGTHS)
        + " |"
    )


def _limit(engine: Engine, sweep: Sweep, seconds: float) -> str:
    """As "230 (MLflow server)": the largest at 90 %, and what bounds a few more."""
    at = Sweep(sweep.searches, sweep.trials, seconds, sweep.seeds)
    few, many = 0, 100_000
    while many - few > max(1, few // 50):
        middle = (few + many) // 2
        few, many = (middle, many) if closed_form(engine, at, max(1, middle)).efficiency >= 0.9 else (few, middle)
    found = closed_form(engine, at, 4 * max(1, few))
    return f"{_rounded(few):,} ({found.limit})"


def _rounded(number: int) -> int:
    """To two digits."""
    digits = max(0, len(str(number)) - 2)
    return round(number, -digits)


def rates_table(stored: Mapping[str, Any]) -> Iterator[str]:
    """What each station serves at most."""
    yield "| trials a second at most | " + " | ".join(LENGTHS.values()) + " |"
    yield "| --- |" + " ---: |" * len(LENGTHS)
    for engine in engines(stored).values():
        for name in engine.demand(1.0):
            if name != "worker":
                row = (engine.servers(name) / engine.demand(seconds)[name] for seconds in LENGTHS)
                yield f"| {engine.name}: {name} | " + " | ".join(f"{rate:,.0f}" for rate in row) + " |"


def page(stored: Mapping[str, Any]) -> str:
    """What stands between the marks in docs/scaling.md."""
    parts: Sequence[tuple[str, Iterator[str]]] = (
        ("### What each call takes", constants_table(stored)),
        ("### Sweeps that ran, and the same ones simulated", ran_table(stored)),
        ("### What each part serves", rates_table(stored)),
        ("### Workers at 90 % of their time in training", limits_table(stored)),
    )
    return "\n\n".join(f"{title}\n" + "\n".join(rows) for title, rows in parts)


# -- figure --------------------------------------------------------------------------------------------------------


def draw(stored: Mapping[str, Any], file: Path) -> None:
    """Efficiency over workers: lines are the closed form, points simulated."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "scaling", "font.size": 9, "svg.fonttype": "path"})
    engine = engines(stored)["servers"]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True, layout="constrained")
    for panel, sweep in zip(panels, (WIDE, NARROW), strict=True):
        labels: list[tuple[str, int]] = []
        for seconds, style in zip(LENGTHS, STYLES, strict=True):
            at = Sweep(sweep.searches, sweep.trials, seconds, sweep.seeds)
            fine = [round(10 ** (1 + 3 * n / 90)) for n in range(91)]
            bounds = [closed_form(engine, at, workers) for workers in fine]
            panel.plot(fine, [100 * bound.efficiency for bound in bounds], color=style[0], linestyle=style[1], lw=1.6)
            found = [100 * Simulation(engine, at, workers).run().efficiency for workers in WORKERS]
            panel.plot(WORKERS, found, style[2], color=style[0], label=f"{LENGTHS[seconds]} a trial", ms=5)
            _mark(panel, fine, bounds, style[0], labels)
        panel.set(xscale="log", xlabel="workers", xlim=(9, 11_500), ylim=(0, 104))
        panel.axhline(90, color="0.6", lw=0.8, linestyle=":")
        trials = sweep.total
        panel.set_title(f"{sweep.searches} searches at once, n = {trials:,} trials", fontsize=9.5)
        panel.grid(alpha=0.25, lw=0.5)
    panels[0].set_ylabel("share of workers' time in training (%)")
    panels[0].legend(frameon=False, title="lines: closed form; points: simulated", title_fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


STYLES = (("#D55E00", "-", "o"), ("#E69F00", "--", "s"), ("#0072B2", "-.", "^"), ("#009E73", ":", "D"))


def _mark(
    panel: Any, workers: Sequence[int], bounds: Sequence[Bound], colour: str, labels: list[tuple[str, int]]
) -> None:
    """Where another thing begins to bound the sweep; `labels` are those that stand, each below the one before."""
    for before, (at, bound) in zip(bounds, zip(workers[1:], bounds[1:], strict=True), strict=False):
        if bound.limit != before.limit:
            place = (at, 100 * bound.efficiency)
            panel.plot(*[[value] for value in place], "|", color=colour, ms=13, mew=1.5)
            if any(name == bound.limit and at < 1.5 * there and there < 1.5 * at for name, there in labels):
                continue
            left = sum(at < 1.5 * there for _, there in labels)  # the one before is near
            side = {"xytext": (-6, -14), "ha": "right"} if left else {"xytext": (5, 4)}
            panel.annotate(bound.limit, place, textcoords="offset points", fontsize=7, color=colour, **side)
            labels.append((bound.limit, at))


# -- all of it -----------------------------------------------------------------------------------------------------


def measure() -> None:
    """Constants, and sweeps that ran, stored one by one; the file's database waits for its disk, the server doesn't."""
    import tempfile
    from dataclasses import asdict

    from benchmarks import databases
    from benchmarks import scaling_measure as by

    from optsweep.tracking import store
    from servers.parts import postgres

    with tempfile.TemporaryDirectory() as folder, postgres("-c max_connections=300") as server:
        file, url = f"sqlite:///{folder}/studies.db", server.make_database("studies")
        runs = f"sqlite:///{folder}/runs.db"
        store.check(runs)
        found: dict[str, Any] = {"date": str(date.today()), "cores": os.cpu_count(), "ran": []}
        called = {
            "SQLite": by.calls(file, lambda: 0.0),
            "PostgreSQL": by.calls(url, lambda: by.cluster_seconds(server.folder)),
        }
        found["calls"] = {key: {name: asdict(call) for name, call in of.items()} for key, of in called.items()}
        found["suggest"] = by.suggestion()
        found["run"] = {"SQLite": median(by.of_core(databases.tracking, runs) for _ in range(3))}
        found["ray call"], found["tracking"] = by.ray_call(), by.tracking(server)
        _store(found)
        for _ in range(ROUNDS):
            for place, (sweep, workers) in enumerate(RAN):
                share, rate = by.share_of_core(), sweep.total / by.ran(url, sweep, workers)
                if place == len(found["ran"]):
                    found["ran"].append({"workers": workers, "seconds": sweep.seconds, "n": sweep.total, "rounds": []})
                found["ran"][place]["rounds"].append({"share": share, "rate": rate})
                print(f"{workers} workers, trials of {sweep.seconds:g} s: {rate:.1f} a second", flush=True)
                _store(found)


def _store(found: Mapping[str, Any]) -> None:
    STORED.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    if "--measure" in sys.argv:
        measure()
    stored = json.loads(STORED.read_text())
    for point, (sweep, workers) in zip(stored["ran"], RAN, strict=False):
        point["share"], point["rate"] = (median(each[key] for each in point["rounds"]) for key in ("share", "rate"))
        engine = this_machine(stored, point["share"])
        point["simulated"] = Simulation(engine, sweep, workers).run().rate
        point["closed form"] = closed_form(engine, sweep, workers).rate
    _store(stored)
    draw(stored, PAGE.parent / PICTURE)
    print(page(stored))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{page(stored)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
