"""Ranks over several nodes, which torchrun starts: `torchrun … -m optsweep work NAME`.

The process of rank 0 is the helper, whose only worker leads; the others follow it. They hear of what comes next in
torchrun's store. Nobody here starts one again: where one fails the helper ends, and torchrun ends them all, or starts all
again (`--max-restarts`).
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.builds import Builds
from optsweep.launch.to_follow import Failed, ToFollow, opened

if TYPE_CHECKING:
    import torch.distributed as dist

    from optsweep.train.ranks import Group

LOOK = timedelta(seconds=2)
"""Between two looks of a rank whether there is something to follow."""

ENDED_SECONDS = 30.0
"""Within which torchrun ends a rank that has failed."""

END, FAILED, MEETING = "optsweep/end", "optsweep/failed", "optsweep/meeting"


@dataclass(frozen=True)
class Launched:
    """What torchrun says of this process."""

    rank: int
    size: int
    local_rank: int

    def device(self, name: str) -> str:
        """Its device, of those that `trainer.device` names."""
        import torch

        cuda = name in ("auto", "cuda") and torch.cuda.is_available()
        return f"cuda:{self.local_rank}" if cuda else name

    def check(self, arm: Arm, workers: int | None) -> None:
        """Raise UserError if these are no ranks of one trial of the arm."""
        if arm.trainer.ranks != self.size:
            raise UserError(
                f"trainer.ranks: a trial of this sweep takes {arm.trainer.ranks}, and torchrun has started {self.size} "
                f"processes; let --nnodes times --nproc-per-node be {arm.trainer.ranks}"
            )
        if workers not in (None, 1):
            raise UserError(f"--workers: processes that torchrun has started are one worker, not {workers}")


def launched() -> Launched | None:
    """What torchrun says; None: it hasn't started this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return Launched(*(int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


def _store() -> dist.Store:
    """That of this start of all ranks."""
    import torch.distributed as dist

    store, _, _ = next(iter(dist.rendezvous("env://")))
    return store


def end_all() -> None:
    """In rank 0: the others have nothing more to follow."""
    _store().set(END, "")


class Peers:
    """The others, as rank 0's worker has them."""

    def __init__(self, device: str) -> None:
        self._store, self._device, self._sent = _store(), device, 0
        self._watched = _store()  # by another thread, whom a call in this one must not keep waiting
        self._group: Group | None = None

    @property
    def group(self) -> Group:
        """All of them with this process, as soon as they have heard that there is something to follow."""
        if self._group is None:
            self._group = _met(self._store, self._device)
        return self._group

    def send(self, order: ToFollow) -> None:
        """By torchrun's store."""
        self._store.set(_order(self._sent), pickle.dumps(order))
        self._sent += 1

    def failure(self) -> Failed | None:
        """What the first that has failed has left. One that died is torchrun's to notice."""
        store = self._watched
        return Failed(store.get(FAILED).decode()) if store.check([FAILED]) else None

    def close(self) -> bool:
        """Only torchrun can start them again."""
        return False


def follow_elsewhere() -> None:
    """Be a rank that isn't the first until rank 0 ends. Raises UserError where it fails, which rank 0 is told."""
    ours, store, taken = launched(), _store(), 0
    assert ours is not None
    group, builds = None, None
    while (order := _next(store, taken)) is not None:
        taken += 1
        try:
            builds = builds or Builds(ours.device(order.arm.trainer.device))
            group = group or _met(store, builds.device or "cpu")
            order.run(builds, group)
        except BaseException as error:
            reason = Failed.of(ours.rank, error).reason
            if not store.check([FAILED]):
                store.set(FAILED, reason)
            sys.stderr.write(f"optsweep: {reason}\n")
            time.sleep(ENDED_SECONDS)
            raise UserError(reason) from None


def _met(store: dist.Store, device: str) -> Group:
    """All of them."""
    import torch.distributed as dist

    ours = launched()
    assert ours is not None
    return opened(dist.PrefixStore(MEETING, store), ours.rank, ours.size, device)


def _order(number: int) -> str:
    return f"optsweep/order/{number}"


def _next(store: dist.Store, number: int) -> ToFollow | None:
    """The order of this number; None: there is none any more."""
    import torch.distributed as dist

    while True:
        try:
            store.wait([_order(number)], LOOK)
            order: ToFollow = pickle.loads(store.get(_order(number)))
            return order
        except dist.DistNetworkError:
            raise UserError("rank 0 is gone") from None
        except dist.DistStoreError:
            if store.check([END]):
                return None
