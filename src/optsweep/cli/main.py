"""The `optsweep` command: its entry point and its help. `--help` answers without importing anything heavy."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from optsweep.cli.table import HELP
from optsweep.garbage import end_soon, look_seldom
from optsweep.terminal import replace_what_cannot_be_shown

SOON = 0.05
"""Seconds after which an interrupt comes again that nobody could hear."""


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    replace_what_cannot_be_shown()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _say(HELP)
        raise SystemExit(0)
    if "--version" in arguments:
        from optsweep import __version__

        _say(f"optsweep {__version__}\n")
        raise SystemExit(0)
    look_seldom()
    hear_every_interrupt()
    try:
        from optsweep.cli.doorman import run
        from optsweep.launch.worker.ranks.torchrun_env import launched

        if (ours := launched()) is None:
            code = run(arguments)
        else:
            from optsweep.launch.worker.ranks.torchrun import take_part

            code = take_part(ours, lambda: run(arguments))
    except KeyboardInterrupt:  # while that is imported
        code = 130
    with suppress(KeyboardInterrupt):  # there is nothing left to stop
        end_soon()
    raise SystemExit(code)


def hear_every_interrupt() -> None:
    """Raise a Ctrl-C again that fell into a finalizer, or a weak reference's callback, where Python would drop it."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = threading.Timer(SOON, os.kill, (os.getpid(), signal.SIGINT))  # at once it would end in here
            again.daemon = True
            again.start()
        else:
            before(unraisable)

    sys.unraisablehook = hook


def _say(text: str) -> None:
    """Write it, for as much as the reader wants of it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
