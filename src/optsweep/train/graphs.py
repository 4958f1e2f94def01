"""CUDA graphs: what the device does is recorded once and repeated without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, Protocol

import torch

Replay = Callable[[], None]


class Recorder(Protocol):
    """Where calls run, and what repeats them. Whatever a recorded call reads and writes has to keep its place."""

    def running(self) -> AbstractContextManager[object]:
        """Inside, what is called goes where it can be recorded, and comes after what was called before."""

    def watched(self) -> AbstractContextManager[Sequence[object]]:
        """A list that afterwards has what waited for the device inside."""

    def record(self, call: Callable[[], object]) -> Replay | None:
        """What repeats what `call` does on the device, which recording doesn't do; None if it can't be recorded."""


class Graphs:
    """Records on a stream of its own, which all of this process share, as they share the memory inside recordings."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream, self._pool = _place(device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """As `Recorder` has it; what is called afterwards comes after it."""
        outside = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    @contextmanager
    def watched(self) -> Iterator[Sequence[object]]:
        """As `Recorder` has it, as far as torch notices."""
        mode = torch.cuda.get_sync_debug_mode()
        found: list[object] = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode(mode or "warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        found.extend(entry for entry in said if "called a synchronizing" in str(entry.message))

    def record(self, call: Callable[[], object]) -> Replay | None:
        """As `Recorder` has it. Other threads may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        try:
            with self.running():
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    call()
                finally:
                    graph.capture_end()
        except Exception:  # what fails for another reason fails again when it is called outside
            return None
        return graph.replay


@lru_cache(maxsize=8)
def _place(device: torch.device) -> tuple[torch.cuda.Stream, Any]:
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
