"""The ranks that train a worker's trials together with it: processes that it starts, or that torchrun has started.

They have nothing of the sweep's: the worker is rank 0, and tells them what to build and when to take steps with it. One
that fails or dies in the middle of a trial is missed by rank 0 as a connection that is gone, and others are started for
the next trial. Where rank 0 waits on, as for a GPU, whoever watches the worker finds it `stuck`, and ends it.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from optsweep.children import ignore_interrupts, interrupts_blocked
from optsweep.config.arm import Arm
from optsweep.errors import first_line
from optsweep.garbage import look_seldom
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.inquiries import exit_name
from optsweep.launch.worker.ranks.rendezvous import LostRank, RankError, ToFollow, device_of_rank, opened
from optsweep.launch.worker.ranks.torchrun import LaunchedRanks
from optsweep.launch.worker.ranks.torchrun_env import launched
from optsweep.launch.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from optsweep.search.space import Params
    from optsweep.train.ranks import RankLostError, Ranks


NOTICED_SECONDS = 5.0
"""Within which it is known what has become of a rank, and by whoever waits for it."""


class Led(Protocol):
    """The other ranks, as rank 0 has them."""

    @property
    def group(self) -> Ranks:
        """All of them with this process."""

    def send(self, order: ToFollow) -> None:
        """Tell them what comes next."""

    def failure(self) -> LostRank | None:
        """Why one of them follows no more; None: all do. May be asked by another thread."""

    def close(self) -> bool:
        """End them; whether others can be had in their place."""


class Leader:
    """Rank 0's side of a process: it leads other ranks, from the first trial on that takes several."""

    def __init__(self, builds: Builds) -> None:
        self.builds = builds
        self._led: Led | None = None
        self._failed_since: float | None = None
        self.over = False  # there can't be any ranks any more

    @contextmanager
    def leading(self, arm: Arm, repeat: int, params: Params) -> Iterator[None]:
        """Within it the ranks of the arm train together what this process trains of the setting."""
        if arm.trainer.ranks == 1:
            yield
            return
        from optsweep.train.ranks import RankLostError, joined

        led = self._there(arm)
        group: Ranks | None = None
        try:
            led.send(ToFollow.of(arm, repeat, params, self.builds))
            with joined(group := led.group):
                yield
        except RankLostError as error:
            group = None
            raise self._noticed(error) from None
        finally:
            if group is not None and group.intact:
                with suppress(RankLostError):
                    group.tell(None)
            if group is None or not group.intact or self.failure():
                self.close()

    def _there(self, arm: Arm) -> Led:
        if self._led is not None and (self._led.group.size != arm.trainer.ranks or self.failure()):
            self.close()
        if self._led is None:
            ranks = arm.trainer.ranks
            device = str(self.builds.device_of(arm))
            self._led = LaunchedRanks(device) if launched() is not None else Children(ranks, device)
        return self._led

    def _noticed(self, error: RankLostError) -> RankError:
        """Why a connection to a rank is gone, as soon as that is known; of one that nobody here sees, that it is."""
        begin = time.monotonic()
        while (failed := self.failure()) is None and time.monotonic() - begin < NOTICED_SECONDS:
            time.sleep(0.05)
        return RankError(failed or LostRank(f"another rank is gone ({first_line(error)})", died=True))

    def failure(self) -> LostRank | None:
        """Why a rank follows no more; None: all do."""
        led = self._led
        return None if led is None else led.failure()

    def stuck(self) -> LostRank | None:
        """Why one does, where this process doesn't come to hear of it: it waits for something that will never come."""
        failed, now = self.failure(), time.monotonic()
        self._failed_since = (self._failed_since or now) if failed is not None else None
        return failed if self._failed_since is not None and now - self._failed_since > NOTICED_SECONDS else None

    def close(self) -> None:
        """End the others."""
        led, self._led = self._led, None
        if led is not None and not led.close():
            self.over = True


@dataclass(frozen=True)
class _Child:
    process: Any
    line: Connection


class Children:
    """Ranks on this machine, which this process starts and which end with it."""

    def __init__(self, ranks: int, device: str) -> None:
        from torch._C._distributed_c10d import FileStore

        context = mp.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="optsweep-ranks-")  # nobody else may read it
        meeting = str(Path(self._folder.name) / "meeting")
        _stay_inside()
        self._children: list[_Child] = []
        self._failure: LostRank | None = None
        self._looking = threading.Lock()  # who trains and who watches look both
        for rank in range(1, ranks):
            ours, theirs = context.Pipe()
            arguments = (theirs, rank, ranks, device_of_rank(device, rank), meeting, os.getpid())
            process = context.Process(target=_follow_parent, args=arguments, daemon=True)
            with interrupts_blocked():
                process.start()
            theirs.close()
            self._children.append(_Child(process, ours))
        self._device, self._ranks = device, ranks
        self._store = FileStore(meeting, ranks)
        self._group: Ranks | None = None

    @property
    def group(self) -> Ranks:
        """All of them with this process, as soon as they are there."""
        if self._group is None:
            self._group = opened(self._store, 0, self._ranks, self._device)
        return self._group

    def send(self, order: ToFollow) -> None:
        """By their lines."""
        from optsweep.train.ranks import RankLostError

        try:
            for child in self._children:
                child.line.send(order)
        except OSError as error:
            raise RankLostError(str(error)) from error

    def failure(self) -> LostRank | None:
        """Of the first that has failed, or died."""
        with self._looking:
            for rank, child in enumerate(self._children, 1):
                if self._failure is None:
                    with suppress(EOFError, OSError):
                        self._failure = child.line.recv() if child.line.poll() else None
                if self._failure is None and not child.process.is_alive():
                    self._failure = LostRank(f"rank {rank} died ({exit_name(child.process.exitcode)})", died=True)
            return self._failure

    def close(self) -> bool:
        """Kill them: they may be anywhere."""
        import torch.distributed as dist

        children, self._children = self._children, []
        for child in children:
            child.process.kill()
        for child in children:
            child.process.join()
        if self._group is not None:
            dist.destroy_process_group()
        self._folder.cleanup()
        return True


def _stay_inside() -> None:
    """Ranks of one machine meet on its loopback, where it has the usual name; nobody else can listen in."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def _follow_parent(line: Connection, rank: int, ranks: int, device: str, meeting: str, parent: int) -> None:
    """The process of a rank: follows until there is no more to follow, or rank 0 is gone."""
    from torch._C._distributed_c10d import FileStore

    mp.current_process().daemon = False  # a daemon may have no children, as a DataLoader's workers are
    ignore_interrupts()
    look_seldom()
    Watchdog(parent).start()
    builds = Builds(device)
    try:
        group = opened(FileStore(meeting, ranks), rank, ranks, device)
        while True:
            order: ToFollow = line.recv()
            order.run(builds, group)
    except (EOFError, OSError):
        return
    except BaseException as error:
        with suppress(OSError):
            line.send(LostRank.of(rank, error))
