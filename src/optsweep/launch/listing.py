"""The sweeps that a storage has: how far each is, when it was worked on last, what came of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from optsweep.address import read_address
from optsweep.launch.status import FINISHED, PLANNED, is_finished
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.search.overview import StoredSweep, stored_sweeps
from optsweep.search.signs import signs_of_life
from optsweep.search.storage import storage_at


@dataclass(frozen=True)
class ListedSweep:
    """A sweep in a list."""

    name: str
    state: str  # running | finished | stopped
    arms: int
    done: int  # trials with a result
    planned: int | None  # None: `auto` decides
    last: datetime | None  # when its last trial ended
    verdict: str  # in short, as its report has it; empty: there is none


def listed_sweeps(storage: str, reports: Path) -> list[ListedSweep]:
    """Those of a storage, the latest first; none where it isn't there. Raises UserError if it can't be opened."""
    address = read_address("--storage", storage)
    if not address.is_there:
        return []
    engine = storage_at(storage, make=False).engine
    return [_listed(engine, held, reports) for held in stored_sweeps(engine, PLANNED, FINISHED)]


def _listed(engine: Engine, held: StoredSweep, reports: Path) -> ListedSweep:
    planned = held.noted(PLANNED)
    running = any(sign.at_work for sign in signs_of_life(engine, held.name, LEASE_SECONDS))
    state = "running" if running else "finished" if all(map(is_finished, held.notes.values())) else "stopped"
    verdict = short_verdict(reports / held.name / "results.json")
    return ListedSweep(held.name, state, len(held.arms), held.done, _total(planned), held.last, verdict)


def _total(planned: list[object]) -> int | None:
    total = 0
    for size in planned:
        if not (isinstance(size, list) and all(isinstance(part, int) for part in size)):
            return None
        trials, seeds, repeats = size
        total += repeats * (trials + seeds)
    return total


def short_verdict(results: Path) -> str:
    """A report's first headline without its numbers, and how many more there are; nothing where it can't be read."""
    try:
        groups = json.loads(results.read_text(encoding="utf-8"))["groups"]
        said = [str(group["headline"]) for group in groups]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if not said:
        return ""
    begin = re.split(r": mean |\. ", re.sub(r" \([^()]*\)", "", said[0]), maxsplit=1)[0].removesuffix(".")
    return begin + (f" (and {len(said) - 1} more)" if len(said) > 1 else "")
