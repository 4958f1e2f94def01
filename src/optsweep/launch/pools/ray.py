"""A pool of workers on a Ray cluster: each is an actor that holds a local pool of one, on whatever node has room.

The planner stays where its command was called. The first actor answers what it asks; the others are started once that
one trains, so that nothing is waited for that the first trial doesn't need.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.address import STORAGE_KEY, TRACKING_KEY, Address, read_address
from optsweep.config.sections import MOST_WORKERS
from optsweep.errors import UserError
from optsweep.launch.pools.actor import Heard, NodeWorker
from optsweep.launch.pools.deaths import STARTS, Deaths
from optsweep.launch.pools.local import TERMINATE_SECONDS
from optsweep.launch.pools.ray_cluster import Cluster, LostError, Needs, RayPlace
from optsweep.launch.worker.inquiries import Answer, DiedError, Inquiry

if TYPE_CHECKING:
    from optsweep.config.arm import Arm
    from optsweep.launch.worker.job import Job

WATCH_SECONDS = 10.0
"""How long an actor watches its worker without a word to the planner."""

RESIZE_SECONDS = 3.0
"""Between two looks at what the cluster has room for."""

HEAD_START_SECONDS = 60.0
"""After which the other workers are started though the first doesn't train yet."""

PATIENCE_SECONDS = 20.0
"""After which it is said that workers wait for room."""


@dataclass(eq=False)
class _Actor:
    actor: Any
    doing: Any  # a reference to what it does; None: nothing
    name: str = ""  # of its worker, once that works trials
    placed: bool = False  # on a node
    jobs: Sequence[Job] | None = None  # that it knows of


class RayPool:
    """Workers of `threads` threads each on a cluster. A context manager, within which there is a connection to it.

    `workers` None: as many as the cluster has room for, while that changes.
    """

    def __init__(
        self,
        threads: int,
        place: RayPlace,
        needs: Needs,
        workers: int | None,
        meanwhile: Callable[[], None] = lambda: None,  # done here, once, while an answer is on its way
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[RayPlace, Needs, int | None], Cluster] = Cluster.connected,
    ) -> None:
        self._threads, self._place, self._needs, self._workers = threads, place, needs, workers
        self._meanwhile, self._clock, self._connect = meanwhile, clock, connect
        self._device: str | None = None
        self._jobs: Sequence[Job] | None = None
        self._wanted = 1
        self._members: list[_Actor] = []
        self._leaving: list[_Actor] = []
        self._waiting: list[float] = []  # when replacements are to start
        self._deaths = Deaths()
        self._resized = self._since = -RESIZE_SECONDS
        self._said_waiting = False

    def __enter__(self) -> RayPool:
        self._cluster = self._connect(self._place, self._needs, self._workers)
        try:
            nodes = self._cluster.nodes()
            self._needs = self._needs.settled(nodes)
            self._needs.check(nodes)
        except BaseException:
            self._cluster.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is not None:
                self.stop()
            self._leave(self._members)
            self._see_off()
        except Exception:
            if error[0] is None:  # else what went wrong first is said: the cluster may be gone
                raise
        finally:
            self._cluster.close()

    @property
    def size(self) -> int:
        """What is asked for, or what the cluster has room for now."""
        return self._workers or self._room()

    def _room(self) -> int:
        return min(max(1, self._needs.room(self._cluster.nodes())), MOST_WORKERS)

    # -- workers ---------------------------------------------------------------------------------------------------

    def start_one(self) -> None:
        """Start a worker, if there is none."""
        if not self._members:
            self._add()

    def deal(self, devices: Sequence[str]) -> None:
        """As many workers are wanted as there are devices in this list; Ray deals out which GPU is whose first."""
        self._device, self._wanted = devices[0], len(devices)

    def start(self) -> None:
        """Start the first worker; the others follow when it trains."""
        self.start_one()

    def assign(self, jobs: Sequence[Job]) -> None:
        """Tell the workers what to work on."""
        self._jobs, self._since = [replace(job, arm=_from_anywhere(job.arm)) for job in jobs], self._clock()
        self.start_one()
        for member in self._members:
            if member.doing is None:
                self._go_on(member)

    def _add(self) -> None:
        actor = self._cluster.start(NodeWorker, self._needs, self._threads, self._place.folder)
        self._members.append(_Actor(actor, self._cluster.call(actor.begin)))

    def _go_on(self, member: _Actor) -> None:
        """What it does next: take new jobs, or watch its worker."""
        if self._jobs is None:
            return
        if member.jobs is not self._jobs:
            member.jobs = self._jobs
            member.doing = self._cluster.call(member.actor.assign, self._jobs, self._device)
        else:
            member.doing = self._cluster.call(member.actor.watch, WATCH_SECONDS)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """Wait until a trial ends, a worker dies, or time is up; returns (name, reason) of dead workers.

        Raises UserError if a worker fails before it is ready, or can't have the stores from where it is.
        """
        doing = {member.doing: member for member in self._members if member.doing is not None}
        dead: list[tuple[str, str]] = []
        for reference in self._cluster.wait(list(doing), seconds):
            dead += self._hear(doing[reference])
        self._resize()
        return dead

    def _hear(self, member: _Actor) -> Iterator[tuple[str, str]]:
        """What a member says, or that it is gone; it goes on, or is replaced."""
        reference, member.doing = member.doing, None
        try:
            heard: Heard = self._cluster.result(reference)
        except LostError as lost:
            yield from self._bury(member, str(lost))
            return
        member.placed = True
        self._say(heard.said)
        if heard.trouble:
            raise UserError(heard.trouble)
        if heard.name:
            member.name = heard.name
            self._deaths.over()
        yield from heard.dead
        self._go_on(member)

    def _bury(self, member: _Actor, reason: str) -> Iterator[tuple[str, str]]:
        self._members.remove(member)
        self._cluster.kill(member.actor)  # what can't be reached may still live
        pause = self._deaths.add(ready=bool(member.name))
        if not member.name and self._deaths.too_many_starts and not any(other.name for other in self._members):
            raise UserError(f"{STARTS} workers in a row were lost at their start ({reason}); Ray's logs say why")
        self._waiting.append(self._clock() + pause)
        if member.name:
            yield member.name, f"its worker died ({reason})"

    def _resize(self) -> None:
        """Start what is missing, as far as it is time; take back what finds no room any more."""
        now = self._clock()
        if self._workers is None and now - self._resized >= RESIZE_SECONDS:
            self._resized, self._wanted = now, self._room()
        self._waiting = [due for due in self._waiting if due > now]
        begun = any(member.name for member in self._members) or now - self._since > HEAD_START_SECONDS
        wanted = self._wanted if begun else 1
        for _ in range(wanted - len(self._members) - len(self._waiting)):
            self._add()
        unplaced = [member for member in self._members if not member.placed]
        for member in unplaced[: max(0, len(self._members) - wanted)]:
            self._members.remove(member)
            self._cluster.kill(member.actor)
        if unplaced and not self._said_waiting and now - self._since > PATIENCE_SECONDS + HEAD_START_SECONDS:
            self._said_waiting = True
            self._say(
                [f"optsweep: {len(unplaced)} of {self._wanted} workers wait for room on the cluster ({self._needs})"]
            )

    def kill(self, worker: str) -> None:
        """End one worker, which its actor then replaces."""
        for member in self._members:
            if member.name == worker:
                self._cluster.call(member.actor.kill, worker)

    # -- questions -------------------------------------------------------------------------------------------------

    def ask(self, request: Inquiry[Answer], tell: Callable[[str], None] = lambda what: None) -> Answer:
        """The answer of one of the workers. Raises what answering raised, and DiedError if the worker has ended.

        `tell` hears nothing: an actor's call comes back with its end.
        """
        self._jobs, self._waiting = None, []
        self._see_off()
        self.start_one()
        member = self._members[0]
        if member.placed:
            self._cluster.call(member.actor.rest)
        reference = self._cluster.call(member.actor.ask, request, self._device)
        meanwhile, self._meanwhile = self._meanwhile, lambda: None
        meanwhile()
        self._until(reference, member)
        try:
            if member.doing is not None:
                self._cluster.result(member.doing)
            answered, said = self._cluster.result(reference)
        except LostError:
            self._members.remove(member)
            self._cluster.kill(member.actor)  # what can't be reached may still live
            raise DiedError("a worker", -signal.SIGKILL) from None
        member.doing, member.placed = None, True
        self._say(said)
        if answered.error is not None:
            raise answered.error
        return answered.answer  # type: ignore[no-any-return]

    def _until(self, reference: Any, member: _Actor) -> None:
        """Until something has come of it, however long the cluster has no room; that is said once."""
        late = self._clock() + PATIENCE_SECONDS
        while not self._cluster.wait([reference], 1.0):
            if not (member.placed or self._said_waiting) and self._clock() > late:
                member.placed = member.doing is not None and bool(self._cluster.wait([member.doing], 0.0))
                if not member.placed:
                    self._said_waiting = True
                    self._say([f"optsweep: waiting for room on the cluster for a worker ({self._needs})"])

    def retire(self) -> None:
        """Keep one worker, which is to answer alone."""
        kept = next((member for member in self._members if member.name), None)
        self._leave([member for member in self._members if member is not kept])

    # -- the end ---------------------------------------------------------------------------------------------------

    def dismiss(self) -> None:
        """Tell the workers to end; that they have is waited for when the pool is left."""
        self._leave(self._members)

    def _leave(self, members: Sequence[_Actor]) -> None:
        for member in list(members):
            self._members.remove(member)
            member.doing = self._cluster.call(member.actor.leave) if member.placed else None
            self._leaving.append(member)

    def _see_off(self) -> None:
        """Wait for those that were told to end."""
        leaving, self._leaving = self._leaving, []
        if ends := [member.doing for member in leaving if member.doing is not None]:
            self._cluster.wait(ends, TERMINATE_SECONDS, for_all=True)
        for member in leaving:
            self._cluster.kill(member.actor)

    def stop(self) -> None:
        """End all workers at once, in the middle of their trials."""
        members, self._members = self._members, []
        ends = [self._cluster.call(member.actor.end) for member in members if member.placed]
        if ends:
            self._cluster.wait(ends, TERMINATE_SECONDS, for_all=True)
        for member in members:
            self._cluster.kill(member.actor)

    def _say(self, lines: Sequence[str]) -> None:
        for line in lines:
            sys.stderr.write(f"{line}\n")


def _from_anywhere(arm: Arm) -> Arm:
    """The arm with addresses that hold in any working folder."""
    return replace(
        arm,
        storage=_absolute(read_address(STORAGE_KEY, arm.storage), arm.storage),
        tracking_uri=_absolute(read_address(TRACKING_KEY, arm.tracking_uri), arm.tracking_uri),
    )


def _absolute(address: Address, given: str) -> str:
    return given if address.file is None else address.at(Path(address.file).absolute()).text
