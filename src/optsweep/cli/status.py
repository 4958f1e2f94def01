"""`optsweep status`: how far a sweep is, read from the studies that planner and workers share."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
from rich.console import Console
from rich.table import Table

from optsweep.errors import UserError, nearest
from optsweep.search.studies import Studies
from optsweep.tracking.writer import database
from optsweep.train.trial import Phase


def print_status(storage: str, sweep: str) -> None:
    """A row per arm and phase. Raises UserError for a sweep that isn't there, naming the nearest."""
    if storage.startswith("sqlite:") and not Path(database(storage)).is_file():
        raise UserError(f"--storage: there is no store at {database(storage)}; run a sweep first, or name another one")
    studies = Studies.open(storage, sweep)
    known = [name.split(" | ") for name in optuna.get_all_study_names(studies.storage)]
    arms = list(dict.fromkeys(parts[1] for parts in known if len(parts) == 3 and parts[0] == sweep))
    if not arms:
        sweeps = sorted({parts[0] for parts in known if len(parts) == 3})
        raise UserError(f"no sweep is called {sweep}{nearest(sweep, sweeps)}; there are {', '.join(sweeps) or 'none'}")
    table = Table(title=f"sweep {sweep}", title_justify="left", box=None)
    for column in ("arm", "phase", "done", "running", "waiting", "diverged", "pruned", "crashed", "best val loss"):
        table.add_column(column, justify="left" if column in ("arm", "phase") else "right")
    for arm in arms:
        for phase in Phase:
            found = studies.history(arm, phase, retries=0)
            slots = list(found.slots.values())
            finite = [slot.value for slot in slots if slot.value is not None and math.isfinite(slot.value)]
            alive = sum(not running.lease.expired for running in found.running)
            table.add_row(
                arm,
                phase.value,
                str(found.num_done),
                str(alive),
                str(found.waiting),
                str(sum(slot.value == math.inf for slot in slots)),
                str(sum(slot.pruned for slot in slots)),
                str(sum(found.attempts.values())),
                f"{min(finite):.4f}" if finite else "–",
            )
    Console(width=None).print(table)
