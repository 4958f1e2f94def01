"""What a config leaves open is settled before training: as the sweep began, as remembered, or as measured now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from optsweep.address import STORAGE_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.launch.continuity import Begun, begun
from optsweep.launch.description import Description
from optsweep.launch.devices import deal
from optsweep.launch.fit import Fitter, fitted_said
from optsweep.launch.inquiries import Asker
from optsweep.launch.lane_memory import LaneMemory
from optsweep.launch.together import describe_all
from optsweep.search.studies import Studies
from optsweep.tracking import store


@dataclass(frozen=True)
class Settled:
    """Arms whose lanes and lags are numbers, with what is known of them."""

    arms: Sequence[Arm]
    known: Sequence[Description]
    memory: LaneMemory

    def remember(self, labels: Mapping[str, str]) -> Iterator[str]:
        """Keep what was measured, beside stores that are there by now; lines of what there is to say."""
        if self.memory.trouble:
            yield self.memory.trouble
        measured = {its.fitted.key: its.fitted.times for its in self.known if its.fitted.key}
        new = {key: times for key, times in measured.items() if self.memory.times.get(key) != times}
        if trouble := self.memory.add(new):
            yield trouble
        yield from fitted_said([(labels[arm.name], its.fitted) for arm, its in zip(self.arms, self.known, strict=True)])


def settle(asker: Asker, arms: Sequence[Arm], labels: Mapping[str, str]) -> Settled:
    """Have the arms built, checked and settled. Raises UserError with one line, before anything is written."""
    before = _begun(arms)
    arms = [_with_lag(arm, before.get(arm.name)) for arm in arms]
    memory = LaneMemory.of(arms[0].storage)
    kinds = {name: held.lanes for name, held in before.items()}
    known = describe_all(asker, arms, labels, Fitter.of(arms, deal(arms[0], None)[0], known=memory.times, begun=kinds))
    return Settled([its.fitted.on(arm) for arm, its in zip(arms, known, strict=True)], known, memory)


def _begun(arms: Sequence[Arm]) -> Mapping[str, Begun]:
    """How arms began that leave something open; nothing where there are no studies yet."""
    storage = read_address(STORAGE_KEY, arms[0].storage)
    left_open = [arm for arm in arms if arm.trainer.given_lanes is None or arm.search.lag_found]
    if not left_open or not storage.is_there:
        return {}
    store.check_usable(storage)
    return begun(Studies.open(arms[0].storage, arms[0].sweep), left_open)


def _with_lag(arm: Arm, before: Begun | None) -> Arm:
    """The arm with the lag that it began with, where its config leaves that open: the plan may have grown since."""
    if before is None or not arm.search.lag_found:
        return arm
    return replace(arm, search=replace(arm.search, lag=before.lag))
