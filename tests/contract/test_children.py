"""Processes that the product starts: Ctrl-C doesn't reach them too early, and they end with who started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from patience import PATIENCE_SECONDS

HELPER = """
import os, signal
from optsweep.report.processes import helpers

if __name__ == "__main__":
    with helpers(2) as helped:
        print(helped.pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""

PACKED = """
import threading
from optsweep.report.processes import helpers

class Draws:
    def __getstate__(self):
        print(threading.current_thread().name, flush=True)
        return {}

    def __call__(self, task):
        return task

if __name__ == "__main__":
    with helpers(2) as helped:
        assert helped.share(Draws(), range(40)) == list(range(40))
"""

CHILD = """
import multiprocessing, signal
from optsweep.children import interrupts_blocked

def say():
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)

if __name__ == "__main__":
    with interrupts_blocked():  # the first process of this one, so that the resource tracker starts too
        child = multiprocessing.get_context("spawn").Process(target=say)
        child.start()
    child.join()
    say()
"""


def run(script: str, folder: Path) -> list[str]:
    file = folder / "script.py"
    file.write_text(script, encoding="utf-8")
    # Returns when nobody holds the pipe any more, so a child that stays is a TimeoutExpired.
    ran = subprocess.run(
        [sys.executable, str(file)], stdout=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    return ran.stdout.split()


def test_a_helper_ends_when_who_draws_is_killed(tmp_path: Path) -> None:
    (pid,) = run(HELPER, tmp_path)
    assert pid.isdecimal()


def test_what_helpers_get_is_packed_before_it_is_changed_here(tmp_path: Path) -> None:
    assert run(PACKED, tmp_path) == ["MainThread"], "not the pool's thread, while this one draws"


def test_interrupts_are_blocked_in_a_child_from_its_first_moment(tmp_path: Path) -> None:
    assert run(CHILD, tmp_path) == ["True", "False"]
