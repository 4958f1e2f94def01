"""CUDA graphs: what the device does is recorded once and repeated without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Protocol

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


MEMORY_SHARE = 3
"""Times the memory that a step takes must fit on the device for it to be recorded, as a recording keeps its own."""


class Graphs:
    """Records on a stream that all of this process share. Its recordings share their memory, as none outlives it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = _stream(device)
        self._graphs: list[torch.cuda.CUDAGraph] = []

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
        for entry in said:
            if "called a synchronizing" in str(entry.message):
                found.append(entry)
            else:
                warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)

    def record(self, call: Callable[[], object]) -> Replay | None:
        """As `Recorder` has it. Other threads may use the device meanwhile."""
        total = torch.cuda.get_device_properties(self.device).total_memory
        if MEMORY_SHARE * torch.cuda.max_memory_allocated(self.device) > total:
            return None
        torch.cuda.synchronize(self.device)
        try:
            graph = self._capture(call)
        except Exception:  # what fails for another reason fails again when it is called outside
            _stop_capturing(self.device)
            return None
        self._graphs.append(graph)
        return graph.replay

    def _capture(self, call: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with self.running():
            graph.capture_begin(
                pool=self._graphs[0].pool() if self._graphs else None, capture_error_mode="thread_local"
            )
            try:
                call()
            finally:
                graph.capture_end()
        return graph


def _stop_capturing(device: torch.device) -> None:
    """The device's generator takes itself to be captured after a capture that failed, until one succeeds."""
    Graphs(device)._capture(lambda: torch.zeros(1, device=device))


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
