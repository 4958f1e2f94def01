"""A sweep from its stores to others, from files to servers or back: copied, compared, and only then set aside.

Whoever is killed over it gives the same command again. Until all is there and was compared, the sweep is where it was;
then it stays there under another name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from optuna.storages import RDBStorage

from optsweep.address import LOCAL_TRACKING, STORAGE_KEY, TRACKING_KEY, Address, check_apart, read_address
from optsweep.config.arm import Arm
from optsweep.errors import UserError, without_secrets
from optsweep.launch.status import repeats_of
from optsweep.launch.worker.leases import LEASE_SECONDS
from optsweep.report.wording import plural
from optsweep.search.moving import DifferentError, copy_studies, rename_studies, studies_content
from optsweep.search.storage import check_names, storage_at
from optsweep.search.studies import Studies
from optsweep.tracking import store
from optsweep.tracking.moving import Experiment, bring_runs
from optsweep.tracking.postman import deliver
from optsweep.tracking.spool import Spool
from optsweep.tracking.store import SweepNotFound, find_experiment
from optsweep.tracking.writer import Tracker

Say = Callable[[str], None]

_PLAIN = re.compile(r"[\w.:/\-]*")
"""Addresses that need no quotes."""


@dataclass(frozen=True)
class BothStores:
    """The two stores of a sweep."""

    storage: str = field(repr=False)
    tracking_uri: str = field(repr=False)

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Of the studies, and of the runs."""
        return read_address(STORAGE_KEY, self.storage), read_address(TRACKING_KEY, self.tracking_uri)

    @property
    def shown(self) -> str:
        """As a person may see them."""
        return " and ".join(address.shown for address in self.addresses)

    def check(self, *, there: bool) -> None:
        """Raise UserError for stores that can't be used, or that should be there and are not."""
        check_apart(*self.addresses)
        for address in self.addresses:
            store.check_usable(address)
            if there and not address.is_there:
                raise UserError(f"{address.key}: there is no store at {address.file}; name that of the sweep")
        if there:
            store.check(self.tracking_uri, create=False)  # of another version of MLflow

    def is_same(self, other: BothStores) -> bool:
        """Whether one of them is the other's too."""
        pairs = zip(self.addresses, other.addresses, strict=True)
        return any(one.place == another.place for one, another in pairs)


def move(sweep: str, source: BothStores, target: BothStores, say: Say) -> None:
    """Move a sweep. Raises UserError, and the source is as it was, where somebody works on it or anything differs."""
    if source.is_same(target):
        raise UserError(f"--to-storage, --to-tracking-uri: sweep {sweep} is there already; name other stores, both")
    source.check(there=True)
    target.check(there=False)
    held = storage_at(source.storage, make=False)
    studies = Studies(held, sweep)
    arms = list(repeats_of(studies))
    check_names(target.storage, sweep, arms)
    _check_nobody_trains(studies, sweep)
    store.check(target.tracking_uri)
    made = storage_at(target.storage)
    with ExitStack() as until_the_end:
        seats = [until_the_end.enter_context(of.take_seat(arms, whole=True)) for of in (studies, Studies(made, sweep))]
        _check_nobody_trains(studies, sweep)  # since then: workers from elsewhere take no seat
        deliver(Spool.of(source.tracking_uri, source.storage, sweep))
        content = studies_content(held.engine, sweep)
        before = studies_content(made.engine, sweep)
        if before and before != content:
            raise UserError(
                f"--to-storage: there is a sweep {sweep} at {target.shown} already, and it isn't this one as it is "
                f"now; name another store"
            )
        experiment = _bring_runs(sweep, source, target, copied=bool(before))
        if not before:
            _copy_studies(held, made, sweep, content)
        for seat in seats:
            seat.check()  # whoever has it by now, as after the machine slept, plans what would be set aside
        trials = len(studies.known(arms))
        aside = f"{sweep} (moved {datetime.now():%Y-%m-%d %H.%M.%S})"
        if experiment is not None:
            experiment.retire(aside)
        rename_studies(held.engine, sweep, aside)
    say(f"sweep {sweep}: {plural(trials, 'trial')} of {plural(len(arms), 'arm')} are at {target.shown} now")
    say(f"what was here is kept as '{aside}', deleted to MLflow")
    say(f"its command goes on there{f' with {keys}' if (keys := _keys(target)) else ''}")


def _check_nobody_trains(studies: Studies, sweep: str) -> None:
    """Raise UserError while workers hold trials; leases that have run out, and those of the dead, are nobody's."""
    for sign in studies.signs_of_life(LEASE_SECONDS):
        if sign.at_work and (sign.trials is not None or sign.helpers):
            raise UserError(f"sweep.name={sweep}: {sign.process} trains for this sweep; stop it, or wait for it")


def _copy_studies(held: RDBStorage, made: RDBStorage, sweep: str, content: Mapping[str, Any]) -> None:
    try:
        copy_studies(held.engine, made.engine, sweep, content)
    except DifferentError:
        raise UserError(f"--to-storage: the trials of sweep {sweep} differ there; nothing is set aside") from None


def _bring_runs(sweep: str, source: BothStores, target: BothStores, *, copied: bool) -> Experiment | None:
    """Copy what is missing of the runs, and compare; None where an earlier call has set them aside already."""
    client = store.client(source.tracking_uri)
    try:
        find_experiment(client, sweep)
    except SweepNotFound:
        if copied:
            return None
        raise UserError(f"tracking.uri: sweep {sweep} has no runs at {source.addresses[1].shown}") from None
    here = Experiment(Tracker(source.tracking_uri, sweep))
    there = Experiment(Tracker(target.tracking_uri, sweep))
    if wrong := bring_runs(here, there):
        raise UserError(f"--to-tracking-uri: sweep {sweep} isn't the same there: {wrong}; nothing is set aside")
    _adapt_command(there.tracker, target)
    return here


def _adapt_command(tracker: Tracker, target: BothStores) -> None:
    """Let the sweep's command name the stores where it is now."""
    run = tracker.sweep_run()
    sheet = tracker.sweep_sheet(run)
    if sheet is not None and sheet.command:
        tracker.write_sheet(run, replace(sheet, command=moved_command(sheet.command, target)))


def moved_command(command: str, target: BothStores) -> str:
    """A command with the stores' keys in place of its own; without secrets."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    kept = [word for word in words if not word.lstrip("+").startswith((f"{STORAGE_KEY}=", f"{TRACKING_KEY}="))]
    return " ".join([shlex.join(kept), *filter(None, [_keys(target)])]) if kept else command


def _keys(target: BothStores) -> str:
    """The keys of stores that aren't the local ones, as a command has them."""
    default = {STORAGE_KEY: Arm.storage, TRACKING_KEY: LOCAL_TRACKING}
    said = {STORAGE_KEY: target.storage, TRACKING_KEY: target.tracking_uri}
    return " ".join(_as_argument(key, value) for key, value in said.items() if value != default[key])


def _as_argument(key: str, address: str) -> str:
    """As Hydra's grammar takes it, and a shell before."""
    shown = without_secrets(address)
    return f"{key}={shown}" if _PLAIN.fullmatch(shown) else f"\"{key}='{shown}'\""
