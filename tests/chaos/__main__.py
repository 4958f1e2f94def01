"""Small sweeps, killed, stopped, frozen and starved until the budget is spent, and compared with undisturbed ones.

`make chaos [SEED=1] [KILLS=200] [OUTAGES=20]`; `make chaos REPLAY=1/7` repeats episode 7 of seed 1. Exits with 1 if a
promise was broken.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from chaos.plan import Plan
from chaos.run import Run
from chaos.tally import Tally, table


def main(arguments: Sequence[str]) -> int:
    """Run episodes; returns the exit code."""
    parser = argparse.ArgumentParser("chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--outages", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no episode after so many")
    parser.add_argument("--replay", metavar="SEED/EPISODE", help="one episode, as it was planned")
    parser.add_argument("--out", type=Path, help="write the tables there too")
    options = parser.parse_args(arguments)

    def spent(tally: Tally) -> bool:
        return bool(tally.counted["kill"] >= options.kills and tally.counted["outage"] >= options.outages)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the table is of what was done by then
    place = Path(tempfile.mkdtemp(prefix="optsweep-chaos-"))
    with Run(place, (lambda tally: False) if options.replay else spent) as run:
        if not run.disk.small:
            run.say("no small file system can be mounted here (that takes root): the disk is never full")
        if options.replay:
            seed, number = map(int, options.replay.split("/"))
            episodes = iter([number])
        else:
            seed, episodes = options.seed, count()
        with suppress(KeyboardInterrupt):
            for episode in episodes:
                if run.spent or time.monotonic() - run.begin > options.minutes * 60:
                    break
                plan = Plan(seed, episode, options.outages > 0)
                run.episode(f"{seed}/{episode}", plan.sweep, plan)
    return _told(run, place, options.out)


def _told(run: Run, place: Path, out: Path | None) -> int:
    text, violations = table(run.tally), run.tally.violations
    print(f"\n{text}\n{(time.monotonic() - run.begin) / 60:.0f} minutes")
    if out is not None:
        out.write_text(text, encoding="utf-8")
    for violation in violations:
        print(
            f"{violation.kind}: {violation.what}\n"
            f"    call {violation.call}, after {violation.after}; make chaos REPLAY={violation.episode}"
        )
    if violations:
        print(f"what the commands printed: {place}")
        return 1
    shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
