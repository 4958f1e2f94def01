"""Ranks over several nodes, which torchrun starts: `torchrun … -m optsweep …`, a sweep's command or `work NAME`.

Rank 0 is that command, whose only worker leads; the others follow it, and hear of what comes next in torchrun's store.
Nobody here starts one again: where one fails the command ends, and torchrun ends all, or starts all again
(`--max-restarts`).
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from optsweep.errors import UserError
from optsweep.launch.worker.ranks.rendezvous import LostRank, ToFollow, opened
from optsweep.launch.worker.ranks.torchrun_env import Launched, launched

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from optsweep.train.ranks import Ranks

LOOK_SECONDS = 0.1
"""Between two looks of a rank whether there is something to follow."""

ENDED_SECONDS = 30.0
"""Within which torchrun ends a rank that has failed."""

LED, END, FAILED, MEETING = (f"optsweep/{name}" for name in ("led", "end", "failed", "meeting"))


def take_part(ours: Launched, command: Callable[[], int]) -> int:
    """In rank 0 the command, in the others what it leads, until it ends; returns the exit code."""
    if ours.rank == 0:
        try:
            return command()
        finally:
            with suppress(RuntimeError):  # torchrun is gone
                _store().set(END, "")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as for the command: a user's own task is a module here
    try:
        _follow(ours, _store())
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        sys.stderr.write(f"optsweep: {error}\n")
        return 2
    return 0


def _store() -> Store:
    """That of this start of all ranks."""
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(iter(rendezvous("env://")))[0]
    return store


class LaunchedRanks:
    """The others, as rank 0's worker has them."""

    def __init__(self, device: str) -> None:
        self._store, self._device, self._sent = _store(), device, 0
        self._watched = _store()  # by another thread, whom a call in this one must not keep waiting
        self._group: Ranks | None = None
        if self._store.add(LED, 1) > 1:
            raise UserError("trainer.ranks: only torchrun can start ranks again (--max-restarts)")

    @property
    def group(self) -> Ranks:
        """All of them with this process, as soon as they have heard that there is something to follow."""
        if self._group is None:
            self._group = _met(self._store, self._device)
        return self._group

    def send(self, order: ToFollow) -> None:
        """By torchrun's store."""
        self._store.set(_order(self._sent), pickle.dumps(order))  # type: ignore[arg-type]  # bytes as they are
        self._sent += 1

    def failure(self) -> LostRank | None:
        """What the first that has failed has left. One that died is torchrun's to notice."""
        store = self._watched
        try:
            return LostRank(store.get(FAILED).decode()) if store.check([FAILED]) else None
        except RuntimeError:
            return LostRank("torchrun's store is gone", died=True)

    def close(self) -> bool:
        """Only torchrun can start them again."""
        return False


def _follow(ours: Launched, store: Store) -> None:
    """Be a rank that isn't the first until rank 0 ends. Raises UserError where this fails, which rank 0 is told."""
    import torch.distributed as dist

    from optsweep.launch.worker.builds import Builds

    group, builds, taken = None, None, 0
    while (order := _next(store, taken)) is not None:
        taken += 1
        try:
            builds = builds or Builds(_device(order.arm.trainer.device, ours.local_rank))
            group = group or _met(store, str(builds.device))
            order.run(builds, group)
        except BaseException as error:
            failed = LostRank.of(ours.rank, error)
            if not store.check([FAILED]):
                store.set(FAILED, failed.reason)
            with suppress(Exception):
                dist.destroy_process_group()  # which rank 0 notices
            time.sleep(ENDED_SECONDS)
            raise UserError(failed.reason) from None


def _device(name: str, local_rank: int) -> str:
    """Of those that `trainer.device` names, this process's."""
    from optsweep.build.assemble import device_of

    found = device_of(name)
    return f"cuda:{local_rank}" if found.type == "cuda" and name in ("auto", "cuda") else str(found)


def _met(store: Store, device: str) -> Ranks:
    """All of them."""
    from torch._C._distributed_c10d import PrefixStore

    ours = launched()
    assert ours is not None
    return opened(PrefixStore(MEETING, store), ours.rank, ours.size, device)


def _order(number: int) -> str:
    return f"optsweep/order/{number}"


def _next(store: Store, number: int) -> ToFollow | None:
    """The order of this number; None: there is none any more."""
    import torch.distributed as dist

    try:
        while not store.check([_order(number)]):
            if store.check([END]):
                return None
            time.sleep(LOOK_SECONDS)  # waiting is the store's too, which says each time that it has waited in vain
        order: ToFollow = pickle.loads(store.get(_order(number)))
        return order
    except dist.DistNetworkError:
        raise UserError("rank 0 is gone") from None
