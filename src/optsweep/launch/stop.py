"""How a sweep is asked to stop: Ctrl-C and SIGTERM, noted now and obeyed where nothing is being written."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

ONE_REQUEST_SECONDS = 1.0
"""Signals closer together are one request: `timeout`, for one, sends its signal to the process and to its group."""


class StopRequest:
    """Within it Ctrl-C and SIGTERM are noted, and obeyed where nothing is being written; a second one at once.

    A KeyboardInterrupt in the middle of a commit would leave a session behind that can't release what runs.
    """

    asked = False

    def __init__(self, *, at_a_rung: bool) -> None:
        self._at_a_rung = at_a_rung  # obeyed late, so say so

    def __enter__(self) -> StopRequest:
        self._before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # a background job of a script ignores Ctrl-C, and still does
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def _note(self, *_: object) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = True, now
            if self._at_a_rung:  # not by sys.stderr, which a signal may have interrupted
                os.write(2, b"stopping at the trial's next evaluation; Ctrl-C again stops at once\n")
        elif now - self._since > ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
