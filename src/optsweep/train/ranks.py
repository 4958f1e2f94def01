"""One trial trained by several processes (ranks): each has its share of every batch, gradients are summed over them.

Rank 0 leads: it alone has the trial, decides, is told to stop, evaluates and keeps. The others follow: between two
steps they wait for what it says next, and then take the same steps. All have the same row and the same state, since
each makes the same update from the same summed gradient; what rank 0 has is given to all before every stretch, so that
nothing drifts apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from optsweep.errors import UserError
from optsweep.tasks.nest import Nest, count_of, mapped, tensors_of


class RankLostError(Exception):
    """Another rank is gone, or doesn't answer."""


class Order(Protocol):
    """What rank 0 tells the others to do; it may be pickled."""

    def obey(self, follower: Any) -> None:
        """Do it, as `train/following.py` has it."""


@dataclass
class Ranks:
    """The ranks that train together, of which this process is one; torch.distributed's default group is theirs."""

    rank: int
    size: int
    intact: bool = True  # between two acts: all wait for what rank 0 says next

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def tell(self, order: Order | None) -> None:
        """Of rank 0: let the others hear an order; None: there is no further one."""
        with _heard():
            dist.broadcast_object_list([order], src=0)

    def hear(self) -> Order | None:
        """Of the others: the next order."""
        heard: list[Order | None] = [None]
        with _heard():
            dist.broadcast_object_list(heard, src=0)
        return heard[0]

    @contextmanager
    def acting(self, order: Order) -> Iterator[None]:
        """Within it all ranks do what is ordered; one that leaves it by an error leaves the others in the middle."""
        if self.leads:
            self.tell(order)
        self.intact = False
        yield
        self.intact = True

    def add_up(self, tensor: Tensor) -> None:
        """Sum it over the ranks, in place: bitwise the same in all of them."""
        with _heard():
            dist.all_reduce(tensor)

    @torch.no_grad()
    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give all ranks those of rank 0, in place."""
        with _heard():
            for tensor in tensors:
                held = tensor.detach()
                flat = held if held.is_contiguous() else held.contiguous()
                dist.broadcast(flat, src=0)
                if flat is not held:
                    held.copy_(flat)

    def collected(self, found: object) -> list[Any]:
        """What each rank has found, in rank 0; nothing in the others."""
        every: list[Any] = [None] * self.size if self.leads else []
        with _heard():
            dist.gather_object(found, every if self.leads else None, dst=0)
        return every

    def part(self, batch: Nest) -> Nest:
        """This rank's share of a batch."""
        return part_of(batch, self.rank, self.size)


@contextmanager
def _heard() -> Iterator[None]:
    """What torch.distributed raises inside means that another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(str(error)) from error


_joined: list[Ranks] = []
"""The group that this process is in, as torch.distributed has one for a process."""


@contextmanager
def joined(group: Ranks) -> Iterator[Ranks]:
    """Within it programs of several ranks are trained by this group; elsewhere one process has the whole batch."""
    _joined.append(group)
    try:
        yield group
    finally:
        _joined.pop()


def group_of(ranks: int) -> Ranks | None:
    """The group that trains a program of so many ranks here; None: this process does by itself."""
    return _joined[-1] if ranks > 1 and _joined else None


def part_of(batch: Nest, rank: int, size: int) -> Nest:
    """The share of one of `size` ranks, equal and contiguous ones. Raises UserError for what can't be shared."""
    try:
        count = count_of(batch)
    except ValueError as error:
        raise UserError(f"trainer.ranks: {error}, so ranks can't share it; give trainer.ranks=1") from None
    odd = next((tensor for tensor in tensors_of(batch) if not tensor.ndim or len(tensor) != count), None)
    if odd is not None:
        raise UserError(
            f"trainer.ranks: a batch of {count} samples holds a tensor of shape {list(odd.shape)}, whose rows aren't "
            f"samples, so ranks can't share it; give trainer.ranks=1"
        )
    share, rest = divmod(count, size)
    if rest:  # as the last one of a loader's
        raise UserError(f"trainer.ranks: a batch of {count} samples is not divisible by {size}; give trainer.ranks=1")
    return mapped(lambda tensor: tensor[rank * share : (rank + 1) * share], batch)
