"""What a config leaves open is decided before training: as the sweep began, as remembered, or as measured now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from optsweep.address import STORAGE_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.launch.prepare.continuity import BegunArm, begun
from optsweep.launch.prepare.description import Description
from optsweep.launch.prepare.devices import deal
from optsweep.launch.prepare.fit import Fitter, fitted_said
from optsweep.launch.prepare.together import describe_all
from optsweep.launch.worker.inquiries import Asker
from optsweep.launch.worker.lane_memory import LaneMemory
from optsweep.search.studies import Studies
from optsweep.tracking import store


def decide(
    asker: Asker, arms: Sequence[Arm], labels: Mapping[str, str]
) -> tuple[Sequence[Arm], Sequence[Description], LaneMemory]:
    """Have the arms built and checked: they come back with numbers for lanes and lag, and with what is known of them.

    Last comes what was remembered of lanes. Raises UserError with one line, before anything is written.
    """
    before = _begun(arms)
    arms = [_with_lag(arm, before.get(arm.name)) for arm in arms]
    memory = LaneMemory.of(arms[0].storage)
    kinds = {name: held.lanes for name, held in before.items()}
    fitter = Fitter.of(arms, deal(asker, arms[0], None)[0], known=memory.times, begun=kinds)
    known = describe_all(asker, arms, labels, fitter)
    return [its.fitted.on(arm) for arm, its in zip(arms, known, strict=True)], known, memory


def remember(
    memory: LaneMemory, arms: Sequence[Arm], known: Sequence[Description], labels: Mapping[str, str]
) -> Iterator[str]:
    """Keep what was measured, beside stores that are there by now; lines of what there is to say."""
    if memory.trouble:
        yield memory.trouble
    measured = {its.fitted.key: its.fitted.times for its in known if its.fitted.key}
    with suppress(OSError):  # which is said below
        memory.file.parent.mkdir(exist_ok=True)  # ./mlruns, where the storage is a server
    if trouble := memory.add({key: times for key, times in measured.items() if memory.times.get(key) != times}):
        yield trouble
    yield from fitted_said([(labels[arm.name], its.fitted) for arm, its in zip(arms, known, strict=True)])


def _begun(arms: Sequence[Arm]) -> Mapping[str, BegunArm]:
    """How arms began that leave something open; nothing where there are no studies yet."""
    storage = read_address(STORAGE_KEY, arms[0].storage)
    left_open = [arm for arm in arms if arm.trainer.given_lanes is None or arm.search.lag_found]
    if not left_open or not storage.is_there:
        return {}
    store.check_usable(storage)
    return begun(Studies.open(arms[0].storage, arms[0].sweep), left_open)


def _with_lag(arm: Arm, before: BegunArm | None) -> Arm:
    """The arm with the lag that it began with, where its config leaves that open: the plan may have grown since."""
    if before is None or not arm.search.lag_found:
        return arm
    return replace(arm, search=replace(arm.search, lag=before.lag))
